package media

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"time"
)

// Limits and periods of the engine.
const (
	maxEncodings     = 4   // simulcast streams per track
	maxInStreams     = 256 // SSRCs that one endpoint may send
	maxSlots         = 96  // sending slots per endpoint
	maxSubscriptions = 1000
	workerQueue      = 16384 // packets waiting for one worker
	workerFull       = 64    // endpoints on a worker before the next one gets any
	videoRing        = 512
	audioRing        = 128
	// replayLimit is how many packets since the last keyframe a newcomer is sent
	// at once instead of waiting for a new keyframe.
	replayLimit      = 96
	clockPeriod      = 20 * time.Millisecond
	workerPeriod     = 50 * time.Millisecond
	idleClockPeriod  = 200 * time.Millisecond // without publishers
	idlePeriod       = 500 * time.Millisecond // of workers whose endpoints are sent nothing
	awakeTicks       = 20                     // of a worker, for an endpoint that is sent no track any more
	keyframeInterval = 200 * time.Millisecond
	keyframeRetry    = 600 * time.Millisecond
	qualityPeriod    = time.Second
	speakersPeriod   = 200 * time.Millisecond
	reportPeriod     = time.Second
	feedbackPeriod   = 60 * time.Millisecond
	handshakeTimeout = 20 * time.Second
	// handshakesPerCore bounds the DTLS handshakes under way, which take one round trip, and
	// handshakePlace is how long one counts for that at most.
	handshakesPerCore = 32
	handshakePlace    = time.Second
	// slotGrace is how long a slot that a connected client gets waits before it is
	// used: the client has to apply the answer first, or it does not know whose the
	// packets are.
	slotGrace = 120 * time.Millisecond
)

// Config of an Engine. The zero value of each field means its default.
type Config struct {
	// Logger gets what happens to endpoints, nothing per packet. Default: discards.
	Logger *slog.Logger
	// UDPAddr is where media is served, default ":7882".
	UDPAddr string
	// TCPAddr is where ICE-TCP (RFC 6544) is served; empty: nowhere.
	TCPAddr string
	// PublicIPs are the addresses told to clients. Default: the address bound
	// to, or where that is unspecified those of all interfaces, loopback included.
	PublicIPs []netip.Addr
	// Workers is the number of sending goroutines, default GOMAXPROCS.
	Workers int
	// DisconnectedAfter is how long an endpoint may be silent before it counts as
	// disconnected, FailedAfter how much longer until it has failed. Defaults 5 s and 15 s.
	DisconnectedAfter, FailedAfter time.Duration
	// NoGSO sends every packet with its own system call; for comparison.
	NoGSO bool
}

func (c Config) withDefaults() (Config, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.UDPAddr == "" {
		c.UDPAddr = ":7882"
	}
	if c.Workers == 0 {
		c.Workers = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	if c.Workers < 1 || c.Workers > maxWorkers {
		return c, fmt.Errorf("media: Workers %d is outside 1..%d", c.Workers, maxWorkers)
	}
	if c.DisconnectedAfter == 0 {
		c.DisconnectedAfter = 5 * time.Second
	}
	if c.FailedAfter == 0 {
		c.FailedAfter = 15 * time.Second
	}
	if c.DisconnectedAfter < 0 || c.FailedAfter < 0 {
		return c, errors.New("media: negative timeout")
	}
	return c, nil
}

// candidateIPs returns the addresses for the answer's candidates.
func (c *Config) candidateIPs(bound netip.Addr) ([]netip.Addr, error) {
	if len(c.PublicIPs) > 0 {
		return c.PublicIPs, nil
	}
	if bound.IsValid() && !bound.IsUnspecified() {
		return []netip.Addr{bound}, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing interface addresses: %w", err)
	}
	var ips []netip.Addr
	for _, a := range addrs {
		ipNet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(ipNet.IP)
		if ip = ip.Unmap(); !ok || ip.IsLinkLocalUnicast() || bound.Is4() && !ip.Is4() {
			continue
		}
		ips = append(ips, ip)
	}
	if len(ips) == 0 {
		return nil, errors.New("no interface has a usable address")
	}
	return ips, nil
}
