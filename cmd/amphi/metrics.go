package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/hls/serve"
	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/turn"
	"github.com/amphi-sfu/amphi/signal"
)

// collectors gathers the node's metrics, all named amphi_* but Go's own; none has a label of a room or a user.
func (n *Node) collectors() prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newExporter(n),
		newOutputExporter(n),
	)
	if n.mesh != nil {
		registry.MustRegister(newMeshExporter(n.mesh))
	}
	return registry
}

// metric is one exported family: what it is, and how a scrape reads it.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*scrape) float64
}

// family is metrics that differ by one label.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*scrape) map[string]uint64
}

// scrape is the snapshots that one collection reads from.
type scrape struct {
	media    media.EngineStats
	signal   signal.Stats
	programs []hls.ProgramStats
	requests serve.Stats
	turn     turn.Stats
	// Transcoders of encoders that ended, by reason.
	transcoders map[string]uint64
}

// sum adds up a figure over all endpoints.
func (s *scrape) sum(figure func(*media.EndpointStats) uint64) float64 {
	var total uint64
	for i := range s.media.Routers {
		for j := range s.media.Routers[i].Endpoints {
			total += figure(&s.media.Routers[i].Endpoints[j])
		}
	}
	return float64(total)
}

// named turns counts by a component's own kind of name into counts by label.
func named[K ~string, V int64 | uint64](counts map[K]V) map[string]uint64 {
	labelled := make(map[string]uint64, len(counts))
	for name, n := range counts {
		labelled[string(name)] = uint64(n)
	}
	return labelled
}

// exporter reads the components' counters when Prometheus asks, so that they need not know of it.
type exporter struct {
	node     *Node
	metrics  []metric
	families []family
	// Those with two labels, and of another type.
	layers, estimates *prometheus.Desc
}

func newExporter(n *Node) *exporter {
	one := func(name, help string, kind prometheus.ValueType, read func(*scrape) float64) metric {
		return metric{prometheus.NewDesc("amphi_"+name, help, nil, nil), kind, read}
	}
	by := func(name, help, label string, read func(*scrape) map[string]uint64) family {
		return family{prometheus.NewDesc("amphi_"+name, help, []string{label}, nil), prometheus.CounterValue, read}
	}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	return &exporter{node: n,
		layers: prometheus.NewDesc("amphi_video_downtracks", "Pictures that clients receive or should, by the simulcast layer that suits their size and by the one forwarded now; -1: none.",
			[]string{"max", "current"}, nil),
		estimates: prometheus.NewDesc("amphi_client_estimate_bits_per_second", "Bandwidth towards the clients whose path is estimated now.", nil, nil),
		metrics: []metric{
			one("clients", "Open signalling connections.", gauge, func(s *scrape) float64 { return float64(s.signal.Clients.Open) }),
			one("clients_accepted_total", "Signalling connections accepted.", counter, func(s *scrape) float64 { return float64(s.signal.Clients.Accepted) }),
			one("clients_refused_total", "Signalling connections refused.", counter, func(s *scrape) float64 { return float64(s.signal.Clients.Refused) }),
			one("messages_received_total", "Messages from clients.", counter, func(s *scrape) float64 { return float64(s.signal.Clients.In) }),
			one("messages_sent_total", "Messages to clients.", counter, func(s *scrape) float64 { return float64(s.signal.Clients.Out) }),
			one("rooms_owned", "Rooms that this node decides for.", gauge, func(s *scrape) float64 { return float64(s.signal.Owner.Rooms) }),
			one("room_events_total", "Decisions of the rooms owned.", counter, func(s *scrape) float64 { return float64(s.signal.Owner.Events) }),
			one("endpoints", "WebRTC endpoints.", gauge, func(s *scrape) float64 { return float64(s.media.Endpoints) }),
			one("packets_in_use", "Packet buffers in use.", gauge, func(s *scrape) float64 { return float64(s.media.Pooled) }),
			one("open_endpoint_packets_received", "Media packets from the endpoints that are open now.", gauge,
				func(s *scrape) float64 { return s.sum(func(e *media.EndpointStats) uint64 { return e.PacketsIn }) }),
			one("open_endpoint_packets_sent", "Media packets to the endpoints that are open now.", gauge,
				func(s *scrape) float64 { return s.sum(func(e *media.EndpointStats) uint64 { return e.PacketsOut }) }),
			one("ice_tcp_connections", "ICE-TCP connections open.", gauge, func(s *scrape) float64 { return float64(s.media.TCP.Open) }),
			one("records_lost_total", "Durable changes that could not be written.", counter, func(s *scrape) float64 { return float64(s.signal.Lost) }),
			one("turn_allocations", "TURN allocations open.", gauge, func(s *scrape) float64 { return float64(s.turn.Open) }),
			one("turn_allocations_total", "TURN allocations made.", counter, func(s *scrape) float64 { return float64(s.turn.Allocations) }),
			one("turn_connections", "TURN clients' TCP and TLS connections open.", gauge, func(s *scrape) float64 { return float64(s.turn.Connections) }),
			one("hls_waiting", "HLS requests that wait for their part.", gauge, func(s *scrape) float64 { return float64(s.requests.Waiting) }),
			one("compositor_exits_total", "Ends of compositors of the programs that run.", counter, func(s *scrape) float64 {
				var exits float64
				for i := range s.programs {
					exits += float64(s.programs[i].Composer.Exits)
				}
				return exits
			}),
			one("programs_overloaded", "Programs with fewer pictures than they should have, for lack of CPU.", gauge, func(s *scrape) float64 {
				var n float64
				for i := range s.programs {
					if s.programs[i].Overloaded() {
						n++
					}
				}
				return n
			}),
			one("programs", "Programs composed.", gauge, func(s *scrape) float64 { return float64(len(s.programs)) }),
		},
		families: []family{
			{prometheus.NewDesc("amphi_downtracks", "Tracks that clients receive or should, by why they get no more; ok: as they can.", []string{"reason"}, nil), gauge, downTracksByReason},
			by("media_dropped_total", "Media packets dropped, by reason.", "reason", func(s *scrape) map[string]uint64 { return s.media.Drops }),
			by("socket_dropped_total", "Datagrams dropped at the media socket, by reason.", "reason", func(s *scrape) map[string]uint64 { return named(s.media.Socket.Drops) }),
			by("ice_tcp_dropped_total", "Connections and frames of ICE-TCP refused or dropped, by reason.", "reason", func(s *scrape) map[string]uint64 { return s.media.TCP.Drops }),
			by("turn_refused_total", "TURN requests and packets refused, by reason.", "reason", func(s *scrape) map[string]uint64 { return named(s.turn.Refused) }),
			by("turn_bytes_total", "Bytes relayed for TURN clients, by direction.", "direction", func(s *scrape) map[string]uint64 {
				return map[string]uint64{"in": s.turn.BytesIn, "out": s.turn.BytesOut}
			}),
			by("replica_messages_dropped_total", "Messages from owners dropped by replicas, by reason.", "reason", func(s *scrape) map[string]uint64 { return s.signal.Replica.Dropped }),
			by("program_dropped_total", "Packets and pictures dropped by running programs, by reason.", "reason", func(s *scrape) map[string]uint64 {
				drops := map[string]uint64{}
				for i := range s.programs {
					for reason, n := range s.programs[i].Drops() {
						drops[reason] += uint64(n)
					}
				}
				return drops
			}),
			by("transcoder_exits_total", "Transcoders of encoders over RTMP that ended though nobody had asked for it; quiet: killed because nothing came out of them.", "reason",
				func(s *scrape) map[string]uint64 { return s.transcoders }),
			by("hls_requests_total", "HLS requests, by outcome.", "outcome", func(s *scrape) map[string]uint64 { return named(s.requests.Requests) }),
			by("room_messages_dropped_total", "Messages between nodes dropped, by reason.", "reason", func(s *scrape) map[string]uint64 { return s.signal.Owner.Dropped }),
			by("clients_closed_total", "Signalling connections ended by the server, by code.", "code", func(s *scrape) map[string]uint64 { return named(s.signal.Clients.Closed) }),
		},
	}
}

// Describe implements prometheus.Collector.
func (e *exporter) Describe(out chan<- *prometheus.Desc) {
	for _, m := range e.metrics {
		out <- m.desc
	}
	for _, f := range e.families {
		out <- f.desc
	}
	out <- e.layers
	out <- e.estimates
}

// Collect implements prometheus.Collector.
func (e *exporter) Collect(out chan<- prometheus.Metric) {
	s := &scrape{media: e.node.media.Stats(), signal: e.node.signal.Stats(), programs: e.node.origin.Programs(),
		requests: e.node.origin.Requests(), transcoders: e.node.encoders.transcoderExits()}
	if e.node.relay != nil {
		s.turn = e.node.relay.Stats()
	}
	for _, m := range e.metrics {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.read(s))
	}
	for _, f := range e.families {
		for label, value := range f.read(s) {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, float64(value), label)
		}
	}
	for l, n := range s.videoLayers() {
		out <- prometheus.MustNewConstMetric(e.layers, prometheus.GaugeValue, float64(n), strconv.Itoa(l.max), strconv.Itoa(l.current))
	}
	clients, sum, buckets := s.estimates()
	out <- prometheus.MustNewConstHistogram(e.estimates, clients, sum, buckets)
}
