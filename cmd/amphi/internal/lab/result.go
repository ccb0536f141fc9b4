package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/record"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/wire"
)

// Result is what became of one run of a scenario.
type Result struct {
	Scenario string `json:"scenario"`
	Run      int    `json:"run"`
	// Node is what was hit, Roles what it was for the room besides an edge.
	Node  string   `json:"node,omitempty"`
	Roles []string `json:"roles,omitempty"`
	// Skipped or Failed say why there is nothing to judge.
	Skipped string `json:"skipped,omitempty"`
	Failed  string `json:"failed,omitempty"`

	// Direct are gaps of tracks that came from or went to clients of the node, Others all others, Before
	// those of all tracks in the seconds before.
	Direct Gaps `json:"direct"`
	Others Gaps `json:"others"`
	Before Gaps `json:"before"`
	// Awake is the longest silence of audio among Direct, less the time in it in which the lab itself, where the peers are, stood still.
	Awake time.Duration `json:"direct_audio_awake_ns"`
	// Missing of the Others' packets never came.
	Packets int `json:"packets"`
	Missing int `json:"missing"`

	// Tracks has a line for each viewer and track that had a gap or misses something.
	Tracks []TrackResult `json:"tracks,omitempty"`

	Messages record.Verdict `json:"messages"`
	// Store says what an acknowledged write to the session store lacks.
	Store []string `json:"store,omitempty"`
	// Stall and DurableStall are the longest times between acknowledged writes.
	Stall        time.Duration `json:"stall_ns"`
	DurableStall time.Duration `json:"durable_stall_ns"`

	// Back is how long each peer that lost its node was without media connection.
	Back Spread `json:"back"`
	// Known is when all other nodes counted the target dead, 0 if they never did.
	Known time.Duration `json:"known_ns,omitempty"`
	// Figures are what a scenario without a fault measures.
	Figures []Figure `json:"figures,omitempty"`
	// Expired peers had to join as new ones; Refused counts attempts that failed at a node that runs.
	Expired int `json:"expired"`
	Refused int `json:"refused"`

	// Normal is the time until everything flowed again: from the fault, and from its end.
	NormalFromFault time.Duration `json:"normal_from_fault_ns"`
	NormalFromMend  time.Duration `json:"normal_from_mend_ns"`

	Checks []Check `json:"checks,omitempty"`
	// Wire is how the emulated network kept up.
	Wire WireCost `json:"wire"`
	// Pressure is the share of the time in which something on the machine waited for a processor, in percent.
	Pressure float64 `json:"cpu_pressure_percent"`
	// NodeCPU is what all nodes used together, in cores.
	NodeCPU float64 `json:"node_cpu_cores"`
}

// TrackResult is what one viewer got of one track, from the fault on.
type TrackResult struct {
	Viewer    string `json:"viewer"`
	Publisher string `json:"publisher"`
	Audio     bool   `json:"audio"`
	Direct    bool   `json:"direct"`
	record.Window
}

// Figure is one thing measured.
type Figure struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
}

func (r *Result) figure(what string, value float64) {
	r.Figures = append(r.Figures, Figure{what, value})
}

// WireCost is the network's own part in a run.
type WireCost struct {
	Packets uint64        `json:"packets"`
	CPU     float64       `json:"cpu_cores"`
	LateP99 time.Duration `json:"late_p99_ns"`
}

// Gaps are the longest silences per viewer and track.
type Gaps struct {
	Audio Spread `json:"audio"`
	Video Spread `json:"video"`
}

// Spread sums up durations.
type Spread struct {
	N   int           `json:"n"`
	P50 time.Duration `json:"p50_ns"`
	P95 time.Duration `json:"p95_ns"`
	Max time.Duration `json:"max_ns"`
}

func spread(all []time.Duration) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[min(len(all)-1, int(q*float64(len(all))))] }
	return Spread{N: len(all), P50: at(0.5), P95: at(0.95), Max: all[len(all)-1]}
}

func (s Spread) String() string {
	if s.N == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d/%d", s.P50.Milliseconds(), s.P95.Milliseconds(), s.Max.Milliseconds())
}

// max is the worse of both kinds in each place.
func (g Gaps) worse() Spread {
	return Spread{
		N: g.Audio.N + g.Video.N, P50: max(g.Audio.P50, g.Video.P50), P95: max(g.Audio.P95, g.Video.P95), Max: max(g.Audio.Max, g.Video.Max),
	}
}

// Check compares something with its target.
type Check struct {
	What   string  `json:"what"`
	Target string  `json:"target,omitempty"` // its name in the list of targets, as C5
	Value  float64 `json:"value"`
	Limit  float64 `json:"limit"`
	OK     bool    `json:"ok"`
}

func (r *Result) check(target, what string, value, limit float64) {
	r.Checks = append(r.Checks, Check{What: what, Target: target, Value: value, Limit: limit, OK: value <= limit})
}

func (r *Result) checkTime(target, what string, value, limit time.Duration) {
	r.check(target, what+" ms", float64(value.Milliseconds()), float64(limit.Milliseconds()))
}

// Passed tells whether every check holds; what was left out has not failed.
func (r *Result) Passed() bool {
	return r.Failed == "" && !slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.OK })
}

// slack is by how many times a machine that has other things to do may miss a time.
const slack = 10

// Sound tells whether what no machine excuses holds: nothing acknowledged is lost, doubled or out of order, and
// everything comes back, in times that a busy machine holds too.
func (r *Result) Sound() bool {
	return r.Failed == "" && !slices.ContainsFunc(r.Checks, func(c Check) bool {
		switch {
		case strings.Contains(c.What, "messages") || strings.Contains(c.What, "writes lost"):
			return !c.OK
		case strings.HasSuffix(c.What, " ms"):
			return c.Value > slack*c.Limit
		}
		return false
	})
}

func (r *Result) verdict() string {
	switch {
	case r.Skipped != "":
		return "skipped: " + r.Skipped
	case r.Failed != "":
		return "FAILED: " + r.Failed
	}
	var broken []string
	for _, c := range r.Checks {
		if !c.OK {
			broken = append(broken, strings.TrimSpace(fmt.Sprintf("%s %s %g > %g", c.Target, c.What, c.Value, c.Limit)))
		}
	}
	if len(broken) > 0 {
		return "MISSED " + strings.Join(broken, "; ") + r.figures()
	}
	return "ok" + r.figures()
}

func (r *Result) figures() string {
	var all []string
	for _, f := range r.Figures {
		all = append(all, fmt.Sprintf("%s %.3g", f.What, f.Value))
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
}

// crowded is a pressure from which times are no longer the cluster's alone.
const crowded = 90

// Report is a whole run of the lab.
type Report struct {
	Topology string     `json:"topology"`
	Seed     uint64     `json:"seed"`
	Results  []Result   `json:"results"`
	Wire     wire.Stats `json:"wire"`
}

// WriteJSON writes everything.
func (rep *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(rep)
}

// WriteText writes the table. Times are in milliseconds: p50/p95/max of the longest silence per viewer and track.
func (rep *Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tNODE\tBEFORE\tGAP DIRECT\tGAP OTHERS\tMISSING\tMSG LOST/REORDERED\tBACK\tSTALL\tNORMAL\tRESULT")
	passed, skipped := 0, 0
	for i := range rep.Results {
		r := &rep.Results[i]
		if r.Skipped != "" {
			skipped++
			fmt.Fprintf(t, "%s\t%s\t\t\t\t\t\t\t\t\t%s\n", r.Scenario, r.Node, r.verdict())
			continue
		}
		if r.Passed() {
			passed++
		}
		node := r.Node
		if len(r.Roles) > 0 {
			node += " (" + strings.Join(r.Roles, ", ") + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%v\t%v\t%v\t%d of %d\t%d/%d of %d\t%v\t%d\t%d\t%s\n", r.Scenario, node, r.Before.worse(), r.Direct.worse(), r.Others.worse(),
			r.Missing, r.Packets, r.Messages.Lost, r.Messages.Reordered, r.Messages.Acked, r.Back, r.DurableStall.Milliseconds(),
			r.NormalFromMend.Milliseconds(), r.verdict())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	cores := 0.0
	if rep.Wire.Uptime > 0 {
		cores = float64(rep.Wire.CPU) / float64(rep.Wire.Uptime)
	}
	worst := 0.0
	for _, r := range rep.Results {
		worst = max(worst, r.Pressure)
	}
	if worst > crowded {
		fmt.Fprintf(w, "\nThe machine was busy with other things too (processors were waited for in up to %.0f %% of the time): gaps may not be the cluster's.\n", worst)
	}
	_, err := fmt.Fprintf(w, "\n%d of %d passed, %d skipped. Topology %s, seed %d. The network carried %d packets with %.2f cores, late by %v p50, %v p99.\n",
		passed, len(rep.Results)-skipped, skipped, rep.Topology, rep.Seed, rep.Wire.Packets, cores,
		rep.Wire.LateP50.Round(time.Microsecond), rep.Wire.LateP99.Round(time.Microsecond))
	return err
}
