package main

import (
	"github.com/prometheus/client_golang/prometheus"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// meshExporter tells of a node's cluster. Other nodes are labels of its trunks only: there are few of them.
type meshExporter struct {
	mesh                                         *mesh
	leads, leased, term, applied, nodes, refused *prometheus.Desc
	draining, standbys, relays                   *prometheus.Desc
	up, rtt, loss, bits, budget                  *prometheus.Desc
	playlists, waiting, upstream, cached         *prometheus.Desc
	objects, requests, answers, streamed         *prometheus.Desc
}

func newMeshExporter(m *mesh) *meshExporter {
	one := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("amphi_"+name, help, labels, nil)
	}
	return &meshExporter{mesh: m,
		leads:    one("raft_leader", "1 on the node that leads the cluster's Raft group."),
		leased:   one("node_leased", "1 while this node may decide for its rooms."),
		term:     one("raft_term", "Raft's term."),
		applied:  one("raft_applied_index", "Entries of Raft's log that this node has carried out."),
		nodes:    one("cluster_nodes", "Nodes as this one's gossip has them, by state.", "state"),
		refused:  one("cluster_refused_total", "What was refused at the cluster's ports, by port and reason.", "reason"),
		draining: one("node_draining", "1 while this node drains."),
		standbys: one("rooms_standby", "Rooms of which this node has a copy for their owner's death."),
		relays:   one("relays", "Tracks that this node sends to others."),
		up:       one("trunk_up", "1 while a trunk carries packets both ways.", "node"),
		rtt:      one("trunk_rtt_seconds", "Round trip of a trunk.", "node"),
		loss:     one("trunk_loss_ratio", "Share of what came in by a trunk that was lost lately, before repair.", "node"),
		bits:     one("trunk_bits_per_second", "What a trunk carried in the last second, by direction.", "node", "direction"),
		budget:   one("trunk_budget_bits_per_second", "What a trunk's path is taken to carry.", "node"),

		playlists: one("hls_edge_playlists", "Media playlists of other nodes' streams that this node follows."),
		waiting:   one("hls_edge_waiting_requests", "Players' requests for other nodes' streams that wait."),
		upstream:  one("hls_edge_upstream_open", "Requests to streams' origins under way."),
		cached:    one("hls_edge_cached_bytes", "Objects of other nodes' streams in the cache, in bytes."),
		objects:   one("hls_edge_objects_total", "Players' requests for objects of other nodes' streams: from the cache (hit), fetched (miss), or together with another's fetch (shared).", "source"),
		requests:  one("hls_edge_upstream_total", "Requests to streams' origins, by result.", "result"),
		answers:   one("hls_edge_answers_total", "Answers to players of other nodes' streams, by outcome.", "outcome"),
		streamed:  one("hls_edge_bytes_total", "Bytes of other nodes' streams, from origins (in) and to players (out).", "direction"),
	}
}

// Describe implements prometheus.Collector.
func (e *meshExporter) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{e.leads, e.leased, e.term, e.applied, e.nodes, e.refused, e.draining, e.standbys, e.relays,
		e.up, e.rtt, e.loss, e.bits, e.budget, e.playlists, e.waiting, e.upstream, e.cached, e.objects, e.requests, e.answers, e.streamed} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (e *meshExporter) Collect(out chan<- prometheus.Metric) {
	s := &amphiv1.NodeStatus{}
	e.mesh.addCluster(s)
	c := s.GetCluster()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(e.leads, truth(c.GetRaftState() == "leader"))
	gauge(e.leased, truth(c.GetLeased()))
	gauge(e.term, float64(c.GetTerm()))
	gauge(e.applied, float64(c.GetAppliedIndex()))
	for state, n := range map[string]uint32{"alive": c.GetAlive(), "suspect": c.GetSuspect(), "dead": c.GetDead()} {
		gauge(e.nodes, float64(n), state)
	}
	for reason, n := range c.GetRefused() {
		out <- prometheus.MustNewConstMetric(e.refused, prometheus.CounterValue, float64(n), reason)
	}
	e.collectEdge(out)
	gauge(e.draining, truth(s.GetDrain() != nil))
	gauge(e.standbys, float64(e.mesh.node.signal.Stats().Standby.Rooms))
	gauge(e.relays, float64(len(e.mesh.relays.Stats("").Relays)))
	for _, t := range s.GetTrunks() {
		gauge(e.up, truth(t.GetState() == "up"), t.GetNode())
		gauge(e.rtt, t.GetRttMs()/1000, t.GetNode())
		gauge(e.loss, t.GetLoss(), t.GetNode())
		gauge(e.bits, float64(t.GetInKbps())*1000, t.GetNode(), "in")
		gauge(e.bits, float64(t.GetOutKbps())*1000, t.GetNode(), "out")
		gauge(e.budget, float64(t.GetBudgetKbps())*1000, t.GetNode())
	}
}

// collectEdge tells how the node serves other nodes' streams.
func (e *meshExporter) collectEdge(out chan<- prometheus.Metric) {
	s := e.mesh.edge.Stats()
	for d, v := range map[*prometheus.Desc]int64{
		e.playlists: int64(s.Playlists), e.waiting: int64(s.Waiting), e.upstream: int64(s.Upstream), e.cached: s.CachedBytes,
	} {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	count := func(d *prometheus.Desc, n uint64, label string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), label)
	}
	count(e.objects, s.Hits, "hit")
	count(e.objects, s.Misses, "miss")
	count(e.objects, s.Shared, "shared")
	count(e.requests, s.Requests-s.Failures, "answered")
	count(e.requests, s.Failures, "failed")
	count(e.streamed, s.BytesIn, "in")
	count(e.streamed, s.BytesOut, "out")
	for outcome, n := range s.Answers {
		count(e.answers, n, string(outcome))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
