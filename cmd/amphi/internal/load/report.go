package load

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/tally"
)

// Quantiles of a duration, in milliseconds.
type Quantiles struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func quantiles(h *tally.Histogram) Quantiles {
	return Quantiles{
		Count: h.Count(), P50: ms(h.Quantile(0.5)), P95: ms(h.Quantile(0.95)), P99: ms(h.Quantile(0.99)), Max: ms(h.Max()),
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Report is what a load measured.
type Report struct {
	Publishers  int     `json:"publishers"`
	Subscribers int     `json:"subscribers"`
	Players     int     `json:"players"`
	Traffic     string  `json:"traffic"`
	Seconds     float64 `json:"seconds"`

	Join   *JoinReport   `json:"join,omitempty"`
	Media  *MediaReport  `json:"media,omitempty"`
	Chat   *ChatReport   `json:"chat,omitempty"`
	HLS    *HLSReport    `json:"hls,omitempty"`
	Server *ServerReport `json:"server,omitempty"`
	// GeneratorCores is the generator's own CPU; near the machine's cores it spoils the figures.
	GeneratorCores float64  `json:"generator_cores"`
	Failed         int      `json:"failed"`
	Failures       []string `json:"failures,omitempty"`
}

// JoinReport is in milliseconds from the begin of the WebSocket's connection.
type JoinReport struct {
	// Signalled until joined came, Packet until the first video packet, Decodable until the first packet of a keyframe.
	Signalled Quantiles `json:"signalled_ms"`
	Packet    Quantiles `json:"first_packet_ms"`
	Decodable Quantiles `json:"decodable_ms"`
}

// MediaReport is over all subscribers.
type MediaReport struct {
	Packets     uint64  `json:"packets"`
	Lost        uint64  `json:"lost"`
	LostPercent float64 `json:"lost_percent"`
	Repeated    uint64  `json:"repeated"`
	// Delay is from the publisher's write to the subscriber's kernel, of video.
	Delay    Quantiles `json:"delay_ms"`
	Frames   uint64    `json:"frames"`
	Broken   uint64    `json:"broken_frames"`
	Freezes  uint64    `json:"freezes"`
	FrozenMS float64   `json:"frozen_ms"`
	// KbpsEach is what one subscriber receives.
	KbpsEach         float64 `json:"kbps_each"`
	KeyframeRequests uint64  `json:"keyframe_requests"`
}

// ChatReport counts messages; each should reach every peer.
type ChatReport struct {
	Sent     uint64    `json:"sent"`
	Refused  uint64    `json:"refused"`
	Received uint64    `json:"received"`
	Latency  Quantiles `json:"latency_ms"`
}

// HLSReport is over all players.
type HLSReport struct {
	Players int       `json:"players"`
	Started int       `json:"started"`
	Startup Quantiles `json:"startup_ms"`
	// Latency is at the play head, Edge at the end of a part's download for its first sample.
	Latency   Quantiles `json:"latency_ms"`
	Edge      Quantiles `json:"edge_ms"`
	Stalls    int       `json:"stalls"`
	StalledMS float64   `json:"stalled_ms"`
	Requests  int       `json:"requests"`
	Failures  int       `json:"failures"`
	// Spread is how long after the first player each of a crowd has a part.
	Spread *Quantiles `json:"spread_ms,omitempty"`
	// EdgeHits is the share of the objects asked for, in percent, that the edge had; EdgeUpstream its upstream requests
	// and EdgeObjects the objects that it fetched, in the measurement.
	EdgeHits     float64 `json:"edge_hits_percent,omitempty"`
	EdgeUpstream uint64  `json:"edge_upstream,omitempty"`
	EdgeObjects  uint64  `json:"edge_objects,omitempty"`
	// PerSecond is how many requests the edge answered per second, PerCore the same over the server's cores.
	PerSecond float64 `json:"requests_per_second,omitempty"`
	PerCore   float64 `json:"requests_per_core,omitempty"`
}

// ServerReport is what the server's process cost.
type ServerReport struct {
	PID   int     `json:"pid"`
	Cores float64 `json:"cores"`
	// PerPacketUS is CPU microseconds per packet that subscribers received; 0 without packets.
	PerPacketUS float64 `json:"us_per_packet"`
	// IdleUS is CPU microseconds per second and subscriber, when nothing is published.
	IdleUS  float64 `json:"idle_us_per_subscriber_s"`
	RSSMiB  float64 `json:"rss_mib"`
	RSSEach float64 `json:"rss_kib_per_subscriber"`
	// JoinMS is CPU milliseconds per join, the media's cost taken out.
	JoinMS float64 `json:"join_cpu_ms"`
}

// report sums up. Players have not ended yet: their part is added by finish.
func (r *run) report(m *meter) *Report {
	elapsed := m.stop.at.Sub(m.start.at)
	rep := &Report{
		Publishers: r.cfg.Publishers, Subscribers: r.cfg.Subscribers, Players: r.cfg.Players, Traffic: r.cfg.Traffic,
		Seconds: elapsed.Seconds(), GeneratorCores: (m.stop.own - m.start.own).Seconds() / elapsed.Seconds(),
	}
	subs := r.everySubscriber()
	if len(subs) > 0 {
		rep.Join, rep.Media = joins(subs), r.media(subs, elapsed)
	}
	if r.cfg.ChatRate > 0 {
		r.chat.mu.Lock()
		rep.Chat = &ChatReport{
			Sent: r.chat.sent.Load(), Refused: r.chat.refused.Load(), Received: r.chat.received.Load(),
			Latency: quantiles(&r.chat.latency),
		}
		r.chat.mu.Unlock()
	}
	if m.pid != 0 {
		rep.Server = m.report(len(subs), r.cfg.Publishers == 0)
	}
	return rep
}

func (m *meter) report(subs int, idle bool) *ServerReport {
	elapsed := m.stop.at.Sub(m.start.at)
	cpu := m.stop.cpu - m.start.cpu
	s := &ServerReport{PID: m.pid, Cores: cpu.Seconds() / elapsed.Seconds(), RSSMiB: float64(m.stop.rss) / (1 << 20)}
	if subs == 0 {
		return s
	}
	if m.stop.rss > m.idle.rss {
		s.RSSEach = float64(m.stop.rss-m.idle.rss) / 1024 / float64(subs)
	}
	perPacket := 0.0
	if n := m.stop.packets - m.start.packets; n > 0 {
		perPacket = float64(cpu.Microseconds()) / float64(n)
	}
	s.PerPacketUS = perPacket
	if idle {
		s.IdleUS = float64(cpu.Microseconds()) / elapsed.Seconds() / float64(subs)
	}
	joining := float64((m.start.cpu - m.idle.cpu).Microseconds()) - perPacket*float64(m.start.packets)
	s.JoinMS = max(0, joining) / 1000 / float64(subs)
	return s
}

func joins(subs []*subscriber) *JoinReport {
	var signalled, packet, decodable tally.Histogram
	for _, s := range subs {
		s.mu.Lock()
		for _, x := range []struct {
			h *tally.Histogram
			d time.Duration
		}{{&signalled, s.joined}, {&packet, s.packet}, {&decodable, s.decode}} {
			if x.d > 0 {
				x.h.Add(x.d)
			}
		}
		s.mu.Unlock()
	}
	return &JoinReport{Signalled: quantiles(&signalled), Packet: quantiles(&packet), Decodable: quantiles(&decodable)}
}

func (r *run) media(subs []*subscriber, elapsed time.Duration) *MediaReport {
	var c tally.Counts
	var delay tally.Histogram
	var size uint64
	for _, s := range subs {
		for _, in := range s.everyTrack() {
			in.mu.Lock()
			c = c.Add(in.window)
			delay.Merge(&in.result)
			size += in.size
			in.mu.Unlock()
		}
	}
	m := &MediaReport{
		Packets: c.Received, Lost: c.Lost, Repeated: c.Repeated, Delay: quantiles(&delay), Frames: c.Frames, Broken: c.Broken,
		Freezes: c.Freezes, FrozenMS: ms(c.Frozen), KbpsEach: float64(size) * 8 / 1000 / elapsed.Seconds() / float64(len(subs)),
	}
	if total := c.Received + c.Lost; total > 0 {
		m.LostPercent = 100 * float64(c.Lost) / float64(total)
	}
	seen := make(map[*publisher]bool)
	for _, p := range r.publishers {
		if !seen[p] {
			seen[p] = true
			m.KeyframeRequests += p.requested.Load()
		}
	}
	return m
}

// finish adds what is known only when everybody has left.
func (r *run) finish(rep *Report) *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep.Failed, rep.Failures = r.failed, r.failures
	if r.cfg.Players == 0 {
		return rep
	}
	h := &HLSReport{Players: r.cfg.Players}
	var startup, latency, edge tally.Histogram
	for _, w := range r.watchers {
		if w.result.Started {
			h.Started++
			startup.Add(w.result.Startup)
		}
		latency.Merge(&w.result.Latency)
		edge.Merge(&w.result.Edge)
		h.Stalls += w.result.Stalls
		h.StalledMS += ms(w.result.Stalled)
		h.Requests += w.result.Requests
		h.Failures += w.result.Failures
	}
	h.Startup, h.Latency, h.Edge = quantiles(&startup), quantiles(&latency), quantiles(&edge)
	r.crowded(h, rep)
	rep.HLS = h
	return rep
}

// crowded adds what is measured with a crowd alone.
func (r *run) crowded(h *HLSReport, rep *Report) {
	var spread tally.Histogram
	for _, w := range r.watchers {
		if w.result.Spread != nil {
			spread.Merge(w.result.Spread)
		}
	}
	if !r.cfg.Crowd || spread.Count() == 0 {
		return
	}
	q := quantiles(&spread)
	h.Spread = &q
	// A reload and a part each time.
	h.PerSecond = 2 * float64(spread.Count()) / rep.Seconds
	if rep.Server != nil && rep.Server.Cores > 0 {
		h.PerCore = h.PerSecond / rep.Server.Cores
	}
	if a, b := r.edge, r.edgeAfter; b != nil {
		hits, misses, shared := b.GetHits()-a.GetHits(), b.GetMisses()-a.GetMisses(), b.GetShared()-a.GetShared()
		h.EdgeHits = 100 * float64(hits+shared) / float64(max(1, hits+misses+shared))
		h.EdgeUpstream, h.EdgeObjects = b.GetUpstreamRequests()-a.GetUpstreamRequests(), misses
	}
}

// Text writes the report for people.
func (r *Report) Text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%d publishers (%s), %d subscribers, %d HLS players, %.1f s\n", r.Publishers, r.Traffic, r.Subscribers, r.Players, r.Seconds)
	row := func(name string, q Quantiles) {
		if q.Count > 0 {
			fmt.Fprintf(w, "%s\tp50 %.1f ms\tp95 %.1f ms\tp99 %.1f ms\tmax %.1f ms\t(%d)\n", name, q.P50, q.P95, q.P99, q.Max, q.Count)
		}
	}
	if j := r.Join; j != nil {
		row("join: signalled", j.Signalled)
		row("join: first video packet", j.Packet)
		row("join: decodable", j.Decodable)
	}
	if m := r.Media; m != nil && m.Packets > 0 {
		row("one-way delay", m.Delay)
		fmt.Fprintf(w, "packets\t%d, lost %d (%.3f %%), repeated %d, %.0f kbit/s each\n", m.Packets, m.Lost, m.LostPercent, m.Repeated, m.KbpsEach)
		fmt.Fprintf(w, "frames\t%d, broken %d, freezes %d (%.0f ms), keyframe requests %d\n", m.Frames, m.Broken, m.Freezes, m.FrozenMS, m.KeyframeRequests)
	}
	if c := r.Chat; c != nil {
		row("chat latency", c.Latency)
		fmt.Fprintf(w, "chat\tsent %d, refused %d, received %d\n", c.Sent, c.Refused, c.Received)
	}
	if h := r.HLS; h != nil {
		row("HLS startup", h.Startup)
		row("HLS latency", h.Latency)
		row("HLS live edge", h.Edge)
		if h.Spread != nil {
			row("HLS spread of a part", *h.Spread)
			fmt.Fprintf(w, "HLS edge\t%.0f requests/s, %.0f per core, %.2f %% of objects at hand, %d upstream requests, %d of them for objects\n",
				h.PerSecond, h.PerCore, h.EdgeHits, h.EdgeUpstream, h.EdgeObjects)
		}
		fmt.Fprintf(w, "HLS\t%d of %d started, stalls %d (%.0f ms), requests %d, failures %d\n", h.Started, h.Players, h.Stalls, h.StalledMS, h.Requests, h.Failures)
	}
	if s := r.Server; s != nil {
		fmt.Fprintf(w, "server\t%.2f cores, %.2f µs per packet, %.1f MiB, %.0f KiB per subscriber, %.2f ms per join\n",
			s.Cores, s.PerPacketUS, s.RSSMiB, s.RSSEach, s.JoinMS)
		if s.IdleUS > 0 {
			fmt.Fprintf(w, "server\t%.0f µs per second and idle subscriber\n", s.IdleUS)
		}
	}
	fmt.Fprintf(w, "generator\t%.2f cores\n", r.GeneratorCores)
	for _, f := range r.Failures {
		fmt.Fprintf(w, "failed\t%s\n", f)
	}
	if more := r.Failed - len(r.Failures); more > 0 {
		fmt.Fprintf(w, "failed\t%d more\n", more)
	}
	return w.Flush()
}
