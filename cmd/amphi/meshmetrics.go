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
	}
}

// Describe implements prometheus.Collector.
func (e *meshExporter) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{e.leads, e.leased, e.term, e.applied, e.nodes, e.refused, e.draining, e.standbys, e.relays,
		e.up, e.rtt, e.loss, e.bits, e.budget} {
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

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
