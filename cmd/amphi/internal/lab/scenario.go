package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/peer"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/wire"
)

const (
	// before is how long everything is watched before the fault.
	before = 3 * time.Second
	// settled is how long all must have been normal to count as such.
	settled = 2 * time.Second
	// patience is how long after the fault's end that may take.
	patience = 30 * time.Second
	// repair is the time in which a packet that was lost on the way may still come.
	repair = time.Second
)

// Scenario is one fault done to one kind of node, or something else that is measured.
type Scenario struct {
	fault  fault
	target string
	// measure, with a title, replaces the fault.
	title   string
	measure func(ctx context.Context, r *run) error
	// lasts is how long it takes, besides the rest.
	lasts time.Duration
	// seats, if set, replaces who sits where; with crowd the target is where the last of them sits.
	seats func(l *Lab) ([]seat, error)
	crowd bool
	// aside keeps peers away from nodes that the fault takes down.
	aside bool
	// founder is the kind of node that the room's owner shall be: the leader, or else the second node.
	founder string
	// short scenarios are in the short form.
	short bool
}

// Name says what is done to what.
func (sc *Scenario) Name() string {
	switch {
	case sc.measure != nil:
		return sc.title
	case sc.crowd:
		return sc.fault.name + ": " + sc.title
	case sc.target == everything:
		return sc.fault.name
	}
	return sc.fault.name + ": " + sc.target
}

// seats is who sits where: publishers on the first nodes of two regions, viewers on every node.
func (l *Lab) seats(sc *Scenario) ([]seat, error) {
	if sc.seats != nil {
		return sc.seats(l)
	}
	var nodes []string
	for _, p := range l.nodes {
		if !sc.aside || !contains(p.Roles, "voter") {
			nodes = append(nodes, p.ID)
		}
	}
	if len(nodes) == 0 {
		nodes = []string{l.nodes[0].ID}
	}
	var seats []seat
	seen := map[string]bool{}
	for _, id := range nodes {
		const publishers = 2
		if region := l.node(id).Region; !seen[region] && len(seen) < publishers {
			seen[region] = true
			seats = append(seats, seat{node: id, publish: true})
		}
	}
	if len(nodes) == 1 {
		seats = append(seats, seats[0])
	}
	for _, id := range nodes {
		seats = append(seats, seat{node: id})
	}
	return seats, nil
}

// run is one run of a scenario under way.
type run struct {
	*stage
	scenario *Scenario
	result   *Result
	target   *process
	hit      map[string]bool // names of actors that were at the target
	began    time.Time       // the fault
	mended   time.Time
	wire     wire.Stats
	cpu      time.Duration
	waited   time.Duration
	stood    *stood
	watch    *watch // of what the other nodes say about the target
}

// Play runs a scenario once on a whole cluster. What is wrong with the cluster is in the result.
func (l *Lab) Play(ctx context.Context, sc *Scenario, number int, room string) Result {
	r := &run{scenario: sc, result: &Result{Scenario: sc.Name(), Run: number}, hit: map[string]bool{}}
	err := l.play(ctx, r, room)
	switch {
	case errors.Is(err, errNoSuchRole), errors.Is(err, errNotOffered):
		r.result.Skipped, _, _ = strings.Cut(err.Error(), "\n")
	case err != nil:
		r.result.Failed = err.Error()
	}
	return *r.result
}

func (l *Lab) play(ctx context.Context, r *run, room string) error {
	if err := l.Start(ctx); err != nil {
		return err
	}
	founder, err := l.founder(ctx, r.scenario)
	if err != nil {
		return err
	}
	seats, err := l.seats(r.scenario)
	if err != nil {
		return err
	}
	if r.stage, err = l.raise(ctx, room, founder, seats); err != nil {
		return err
	}
	defer r.close()
	r.stood = beginStood(ctx)
	defer r.stood.end()
	wait(ctx, before)
	if r.scenario.measure != nil {
		err := errors.Join(r.scenario.measure(ctx, r), l.net.Mend(faultName))
		wait(ctx, settled) // what a lossy network held up comes now
		r.judgeDecisions(ctx)
		r.limitDecisions()
		return err
	}
	if err := r.choose(ctx); err != nil {
		return err
	}
	if err := r.suffer(ctx); err != nil {
		return err
	}
	err = r.recover(ctx)
	r.judge(ctx)
	if err != nil {
		return err
	}
	return ctx.Err()
}

// founder is the node that shall own the room.
func (l *Lab) founder(ctx context.Context, sc *Scenario) (string, error) {
	second := l.nodes[min(1, len(l.nodes)-1)].ID
	if sc.target != combined && sc.founder != leader {
		return second, nil
	}
	for _, p := range l.nodes {
		s, err := l.status(ctx, p)
		if err == nil && s.GetCluster().GetLeader() != "" {
			return s.GetCluster().GetLeader(), nil
		}
	}
	if l.cfg.Topology.Alone {
		return second, nil
	}
	return "", errors.New("no node knows the Raft leader")
}

// choose finds the node to hit, and notes who is there.
func (r *run) choose(ctx context.Context) error {
	c, err := r.lab.casting(ctx, r.room)
	if err != nil {
		return err
	}
	if r.scenario.crowd {
		r.target = r.lab.node(r.cast[len(r.cast)-1].home)
	} else if r.target, err = r.find(c, r.scenario.target); err != nil {
		return err
	}
	if r.target == nil {
		return nil
	}
	r.result.Node, r.result.Roles = r.target.ID, c.roles(r.target.ID)
	for _, a := range r.cast {
		if p := r.lab.byURL(a.Node()); p == r.target {
			r.hit[a.Name()] = true
		}
	}
	return nil
}

// suffer applies the fault, holds it, and mends it.
func (r *run) suffer(ctx context.Context) error {
	var err error
	if r.wire, err = r.lab.net.wire.Stats(); err != nil {
		return err
	}
	r.cpu, r.waited = r.lab.cpu(), waited()
	r.began = time.Now()
	r.lab.cfg.Logger.Info("fault", "scenario", r.scenario.Name(), "node", r.result.Node)
	f := r.scenario.fault
	r.watch = r.beginWatch(ctx)
	defer r.watch.end()
	applied := f.apply(ctx, r.stage, r.target)
	if errors.Is(applied, errNotOffered) {
		return applied
	}
	if applied == nil {
		wait(ctx, f.hold)
	}
	mended := f.mend(ctx, r.stage, r.target)
	r.mended = time.Now()
	return errors.Join(applied, mended)
}

// recover waits until everything has been normal for a while.
func (r *run) recover(ctx context.Context) error {
	lastBad, whole := r.mended, time.Time{}
	why := errors.New("it was never looked at")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Since(r.mended) < patience {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now := time.Now()
		if err := r.normal(now); err != nil {
			lastBad, why = now, err
		}
		if whole.IsZero() {
			if err := r.lab.whole(ctx); err != nil {
				why = err
				continue
			}
			whole = time.Now()
		}
		if now.Sub(lastBad) >= settled {
			normal := lastBad
			if whole.After(normal) {
				normal = whole
			}
			r.result.NormalFromFault, r.result.NormalFromMend = normal.Sub(r.began), normal.Sub(r.mended)
			return nil
		}
	}
	r.result.NormalFromFault, r.result.NormalFromMend = time.Since(r.began), time.Since(r.mended)
	return fmt.Errorf("not normal after %v: %w", patience, why)
}

// judge fills in the result.
func (r *run) judge(ctx context.Context) {
	res := r.result
	until := time.Now()
	r.judgeMedia(until)
	res.Known = r.watch.known(r.began)
	r.judgePeers()
	r.judgeDecisions(ctx)
	if st, err := r.lab.net.wire.Stats(); err == nil {
		passed := (st.Uptime - r.wire.Uptime).Seconds()
		res.Wire = WireCost{Packets: st.Packets - r.wire.Packets, CPU: (st.CPU - r.wire.CPU).Seconds() / passed, LateP99: st.LateP99}
	}
	res.Pressure = 100 * float64(waited()-r.waited) / float64(until.Sub(r.began))
	// Nodes that were started anew count from zero.
	res.NodeCPU = max(0, (r.lab.cpu()-r.cpu).Seconds()) / until.Sub(r.began).Seconds()
	r.judgeLimits()
}

// judgeDecisions is about messages and the session store.
func (r *run) judgeDecisions(ctx context.Context) {
	r.result.Messages = r.messages.Verdict(r.names(), time.Now().Add(-repair))
	r.judgeStore(ctx)
}

func (r *run) judgeMedia(until time.Time) {
	var direct, others, calm [2][]time.Duration
	for _, viewer := range r.cast {
		for _, t := range r.tracks(viewer) {
			kind := 0
			if !t.Audio {
				kind = 1
			}
			calm[kind] = append(calm[kind], viewer.Media.Window(t, r.began.Add(-before+repair), r.began).Gap)
			w := viewer.Media.Window(t, r.began, until)
			whole := viewer.Media.Window(t, r.began, until.Add(-repair))
			publisher := r.publisher(t.Publisher)
			hit := r.concerned(viewer, publisher)
			if w.Gap > quiet || whole.Missing > 0 {
				whole.Gap, whole.GapAt = w.Gap, w.GapAt
				r.result.Tracks = append(r.result.Tracks, TrackResult{
					Viewer: viewer.Name(), Publisher: publisher.Name(), Audio: t.Audio, Direct: hit, Window: whole,
				})
			}
			if hit {
				direct[kind] = append(direct[kind], w.Gap)
				if at := r.began.Add(w.GapAt); t.Audio {
					r.result.Awake = max(r.result.Awake, w.Gap-r.stood.within(at, at.Add(w.Gap)))
				}
				continue
			}
			others[kind] = append(others[kind], w.Gap)
			r.result.Packets += whole.Packets
			r.result.Missing += whole.Missing
		}
	}
	both := func(g [2][]time.Duration) Gaps { return Gaps{Audio: spread(g[0]), Video: spread(g[1])} }
	r.result.Direct, r.result.Others, r.result.Before = both(direct), both(others), both(calm)
}

func (s *stage) publisher(number uint16) *actor {
	i := slices.IndexFunc(s.cast, func(a *actor) bool {
		n, publishes := a.Publisher()
		return publishes && n == number
	})
	return s.cast[i]
}

// concerned tells whether a viewer and a publisher are themselves clients of what was hit.
func (r *run) concerned(viewer, publisher *actor) bool {
	if f := r.scenario.fault.between; f != nil {
		return f(r.stage, viewer, publisher)
	}
	return r.hit[viewer.Name()] || r.hit[publisher.Name()]
}

func (r *run) judgePeers() {
	var back []time.Duration
	for _, a := range r.cast {
		lost := time.Time{}
		for _, e := range a.Events() {
			if e.At.Before(r.began) {
				continue
			}
			switch e.What {
			case peer.Lost:
				if lost.IsZero() {
					lost = e.At
				}
			case peer.MediaUp:
				if !lost.IsZero() {
					back = append(back, e.At.Sub(lost))
					lost = time.Time{}
				}
			case peer.Expired:
				r.result.Expired++
			case peer.Failed:
				r.result.Refused++
			}
		}
	}
	r.result.Back = spread(back)
}

func (r *run) judgeStore(ctx context.Context) {
	promised := map[*writer]int{}
	for _, w := range r.store {
		stall := w.stall(r.began)
		if w.durable {
			r.result.DurableStall = max(r.result.DurableStall, stall)
		} else {
			r.result.Stall = max(r.result.Stall, stall)
		}
		w.mu.Lock()
		promised[w] = w.acked
		faults := w.faults
		w.mu.Unlock()
		if w.durable || r.outlives() {
			r.result.Store = append(r.result.Store, faults...)
		}
	}
	looking, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	state, err := r.look(looking, r.lab.nodes[0])
	if err != nil {
		r.result.Store = append(r.result.Store, fmt.Sprintf("a newcomer can't join: %v", err))
		return
	}
	for _, w := range r.store {
		if !w.durable && !r.outlives() {
			continue
		}
		if err := w.check(state, promised[w]); err != nil {
			r.result.Store = append(r.result.Store, err.Error())
		}
	}
}

// outlives tells whether what is only in memory must be there afterwards: not when all nodes were killed.
func (r *run) outlives() bool {
	return r.scenario.fault.name != killAll().name && (!r.lab.cfg.Topology.Alone || r.result.Expired == 0)
}

// cpu is what all nodes have used.
func (l *Lab) cpu() (sum time.Duration) {
	for _, p := range l.nodes {
		sum += p.usage()
	}
	return sum
}

// waited is how long anything on this machine has waited for a processor; 0 where the kernel doesn't tell.
func waited() time.Duration {
	data, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0
	}
	var us int64
	_, total, _ := strings.Cut(string(data), "total=")
	if _, err := fmt.Sscan(total, &us); err != nil {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

// wait for d, or less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
