package main

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// addOutputs fills in the node's recordings and pushes, and its storage.
func (n *Node) addOutputs(status *amphiv1.NodeStatus) {
	status.Outputs = n.outputs.status()
	st := n.recordings.queue.Status()
	status.Storage, status.StorageReason, status.StorageWaiting = string(st.Health), st.Reason, uint32(st.Pending)
}

// outputExporter tells of recordings, pushes, the storage and webhooks.
type outputExporter struct {
	node                     *Node
	outputs, bytes, retries  *prometheus.Desc
	waiting, stored, failing *prometheus.Desc
	hooks, hooked, unhooked  *prometheus.Desc
}

func newOutputExporter(n *Node) *outputExporter {
	one := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("amphi_"+name, help, labels, nil)
	}
	return &outputExporter{node: n,
		outputs:  one("outputs", "Recordings and pushes: those that are made now, and those that have ended since the start, by kind and state.", "kind", "state"),
		bytes:    one("output_bytes_total", "Bytes recorded or pushed, by kind; of outputs that are made now as far as they are.", "kind"),
		retries:  one("output_retries_total", "Attempts of pushes that failed or broke, by kind.", "kind"),
		waiting:  one("storage_uploads_waiting", "Files of recordings that are on their way to the storage."),
		stored:   one("storage_files_stored_total", "Files that are in the storage."),
		failing:  one("storage_failing", "1 while the storage does not take files, by why: away, full, denied.", "health"),
		hooks:    one("webhook_deliveries_waiting", "Events that targets of webhooks have not taken."),
		hooked:   one("webhook_deliveries_total", "Attempts to deliver events, by outcome.", "outcome"),
		unhooked: one("webhook_dropped_total", "Events that were not delivered, by reason.", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (e *outputExporter) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{e.outputs, e.bytes, e.retries, e.waiting, e.stored, e.failing, e.hooks, e.hooked, e.unhooked} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (e *outputExporter) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	for kind, sum := range e.node.outputs.totals() {
		label := strings.ToLower(strings.TrimPrefix(kind.String(), "OUTPUT_KIND_"))
		for state, n := range sum.states {
			gauge(e.outputs, float64(n), label, strings.ToLower(strings.TrimPrefix(state.String(), "OUTPUT_STATE_")))
		}
		counter(e.bytes, float64(sum.bytes), label)
		counter(e.retries, float64(sum.retries), label)
	}
	st := e.node.recordings.queue.Status()
	gauge(e.waiting, float64(st.Pending))
	counter(e.stored, float64(st.Stored))
	for _, health := range []string{"away", "full", "denied"} {
		gauge(e.failing, truth(string(st.Health) == health), health)
	}
	if e.node.hooks == nil {
		return
	}
	hooks := e.node.hooks.Stats()
	gauge(e.hooks, float64(hooks.Waiting))
	counter(e.hooked, float64(hooks.Delivered), "delivered")
	counter(e.hooked, float64(hooks.Failed), "failed")
	for reason, n := range hooks.Dropped {
		counter(e.unhooked, float64(n), reason)
	}
}

// totals adds up what has ended and what is made now, by kind; states are those of both.
func (o *outputs) totals() map[amphiv1.OutputKind]*outputSum {
	all := map[amphiv1.OutputKind]*outputSum{}
	add := func(kind amphiv1.OutputKind, bytes, retries uint64) *outputSum {
		if all[kind] == nil {
			all[kind] = &outputSum{states: map[amphiv1.OutputState]uint64{}}
		}
		all[kind].bytes += bytes
		all[kind].retries += retries
		return all[kind]
	}
	for _, s := range o.status() {
		out := s.GetOutput()
		add(out.GetKind(), out.GetBytes(), uint64(out.GetRetries())).states[out.GetState()]++
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for kind, sum := range o.sums {
		total := add(kind, sum.bytes, sum.retries)
		for state, n := range sum.states {
			total.states[state] += n
		}
	}
	return all
}
