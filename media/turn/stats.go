package turn

import "sync/atomic"

// Reason is why something was refused or dropped.
type Reason string

// Reasons, in the order of the counters.
const (
	ReasonCredentials Reason = "credentials" // unknown or wrong
	ReasonExpired     Reason = "expired"     // credentials
	ReasonQuota       Reason = "quota"       // too many allocations of one user
	ReasonCapacity    Reason = "capacity"    // too many allocations in all
	ReasonPeer        Reason = "peer"        // not this node's media
	ReasonTransport   Reason = "transport"   // not plain UDP, or a family without media
	ReasonBandwidth   Reason = "bandwidth"   // more than an allocation may carry
	ReasonRate        Reason = "rate"        // too many requests of one address
	ReasonMalformed   Reason = "malformed"   // neither STUN nor channel data
	ReasonConnections Reason = "connections" // too many, or silent
)

func reasons() []Reason {
	return []Reason{ReasonCredentials, ReasonExpired, ReasonQuota, ReasonCapacity, ReasonPeer, ReasonTransport,
		ReasonBandwidth, ReasonRate, ReasonMalformed, ReasonConnections}
}

type counters struct {
	allocations, bytesIn, bytesOut atomic.Uint64
	refused                        [10]atomic.Uint64 // by the order of reasons
}

func (c *counters) refuse(why Reason) {
	for i, r := range reasons() {
		if r == why {
			c.refused[i].Add(1)
		}
	}
}

// Stats is a snapshot of what a Server counts.
type Stats struct {
	// Open and Connections are allocations and TCP or TLS connections that are there now.
	Open, Connections int
	// Allocations counts all that were made.
	Allocations uint64
	// BytesIn came from clients, BytesOut went to them; what they carry alone.
	BytesIn, BytesOut uint64
	// Refused counts requests and packets by reason.
	Refused map[Reason]uint64
}

// Stats is safe to call at any time.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open, connections := len(s.relays), len(s.streams)
	s.mu.Unlock()
	stats := Stats{Open: open, Connections: connections, Allocations: s.stats.allocations.Load(),
		BytesIn: s.stats.bytesIn.Load(), BytesOut: s.stats.bytesOut.Load(), Refused: map[Reason]uint64{}}
	for i, r := range reasons() {
		if n := s.stats.refused[i].Load(); n > 0 {
			stats.Refused[r] = n
		}
	}
	return stats
}
