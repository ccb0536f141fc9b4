package wire

import (
	"syscall"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/tally"
	"github.com/amphi-sfu/amphi/media/netem"
)

// Stats are counted since the switch began.
type Stats struct {
	// Links that carried something.
	Links []LinkStats `json:"links"`
	// Packets delivered over all links.
	Packets uint64 `json:"packets"`
	// NotIPv4 and NoPort were dropped for that reason.
	NotIPv4 uint64 `json:"not_ipv4"`
	NoPort  uint64 `json:"no_port"`
	// LateP50, LateP99 and LateMax say how much later than due packets were delivered.
	LateP50 time.Duration `json:"late_p50_ns"`
	LateP99 time.Duration `json:"late_p99_ns"`
	LateMax time.Duration `json:"late_max_ns"`
	// CPU is the process's user and system time, Uptime the time that it was used in.
	CPU    time.Duration `json:"cpu_ns"`
	Uptime time.Duration `json:"uptime_ns"`
}

// LinkStats are of one direction between two ports.
type LinkStats struct {
	From string `json:"from"`
	To   string `json:"to"`
	netem.Stats
}

// Stats reads the counters.
func (s *Switch) Stats() Stats {
	out := Stats{NotIPv4: s.notIPv4.Load(), NoPort: s.noPort.Load(), Uptime: time.Since(s.start)}
	var late tally.Histogram
	for _, p := range s.ports {
		p.mu.Lock()
		late.Merge(&p.late)
		for from, link := range p.links {
			st := link.Stats()
			out.Packets += st.Delivered
			if st.Sent > 0 {
				out.Links = append(out.Links, LinkStats{From: s.ports[from].name, To: p.name, Stats: st})
			}
		}
		p.mu.Unlock()
	}
	out.LateP50, out.LateP99, out.LateMax = late.Quantile(0.5), late.Quantile(0.99), late.Max()
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		out.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return out
}

// Link is what a link shall be.
type Link struct {
	From   string       `json:"from"`
	To     string       `json:"to"`
	Params netem.Params `json:"params"`
}
