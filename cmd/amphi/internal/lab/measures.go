package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/record"
	"github.com/amphi-sfu/amphi/media/netem"
)

const (
	// window is how long a steady state is measured.
	window = 10 * time.Second
	// busyPackets per frame of four publishers, with their audio, are some 5,000 packets/s.
	busyPackets, busyPublishers = 40, 4
)

// ends are two nodes of one region and one of another, the first three kinds of way that a track takes.
func (l *Lab) ends() (home, beside, away *process, err error) {
	home = l.nodes[0]
	for _, p := range l.nodes[1:] {
		switch {
		case p.Region == home.Region && beside == nil:
			beside = p
		case p.Region != home.Region && away == nil:
			away = p
		}
	}
	if beside == nil || away == nil {
		return nil, nil, nil, fmt.Errorf("%w: it needs two regions, and two nodes in the first", errNoSuchRole)
	}
	return home, beside, away, nil
}

// crowd is one publisher on the first node and many viewers on the last.
func crowd(viewers int) func(*Lab) ([]seat, error) {
	return func(l *Lab) ([]seat, error) {
		seats := []seat{{node: l.nodes[0].ID, publish: true, audioOnly: viewers > 20}}
		for range viewers {
			seats = append(seats, seat{node: l.nodes[len(l.nodes)-1].ID})
		}
		return seats, nil
	}
}

// busy is 5,000 packets/s from one node, with a viewer there and one beside it.
func busy(l *Lab) ([]seat, error) {
	home, beside, _, err := l.ends()
	if err != nil {
		return nil, err
	}
	seats := []seat{{node: home.ID}, {node: beside.ID}}
	for range busyPublishers {
		seats = append(seats, seat{node: home.ID, publish: true, packets: busyPackets})
	}
	return seats, nil
}

// layered is one publisher in three layers, watched from another region.
func layered(l *Lab) ([]seat, error) {
	home, _, away, err := l.ends()
	if err != nil {
		return nil, err
	}
	return []seat{{node: home.ID, publish: true, simulcast: true}, {node: away.ID}}, nil
}

// fiveAway is five videos watched from another region.
func fiveAway(l *Lab) ([]seat, error) {
	home, _, away, err := l.ends()
	if err != nil {
		return nil, err
	}
	seats := []seat{{node: away.ID}}
	for range 5 {
		seats = append(seats, seat{node: home.ID, publish: true, simulcast: true})
	}
	return seats, nil
}

// delays of all tracks that a viewer gets, sorted.
func (r *run) delays(viewer *actor, from, to time.Time, audio, video bool) []time.Duration {
	var all []time.Duration
	for _, t := range r.tracks(viewer) {
		if t.Audio && audio || !t.Audio && video {
			all = append(all, viewer.Media.Delays(t, from, to)...)
		}
	}
	slices.Sort(all)
	return all
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// measureHop compares a viewer at the publishers' node with one at the node beside it.
func measureHop(ctx context.Context, r *run) error {
	from := time.Now()
	wait(ctx, window)
	to := time.Now()
	here, there := r.delays(r.cast[0], from, to, true, true), r.delays(r.cast[1], from, to, true, true)
	if len(here) == 0 || len(there) == 0 {
		return fmt.Errorf("%d and %d packets came", len(here), len(there))
	}
	propagation := r.lab.cfg.Topology.Local.params().Delay
	added := func(q float64) float64 { return milliseconds(quantile(there, q) - quantile(here, q) - propagation) }
	r.result.figure("packets/s", float64(len(there))/to.Sub(from).Seconds())
	r.result.check("C1", "ms per hop p50", added(0.5), 0.25)
	r.result.check("C1", "ms per hop p99", added(0.99), 2)
	r.result.figure("ms p50", added(0.5))
	r.result.figure("ms p99", added(0.99))
	return nil
}

// carried is how many bytes each ordered pair of regions has carried between nodes so far.
func (l *Lab) carried() (map[[2]string]uint64, error) {
	st, err := l.net.wire.Stats()
	if err != nil {
		return nil, err
	}
	out := map[[2]string]uint64{}
	for _, link := range st.Links {
		from, to := l.node(link.From), l.node(link.To)
		if from != nil && to != nil && from.Region != to.Region {
			out[[2]string{from.Region, to.Region}] += link.DeliveredBytes
		}
	}
	return out, nil
}

// published is how many bytes the publishers of a region have sent to their nodes so far.
func (l *Lab) published(region string) (uint64, error) {
	st, err := l.net.wire.Stats()
	if err != nil {
		return 0, err
	}
	sum := uint64(0)
	for _, link := range st.Links {
		if link.From == clientsOf(region) {
			sum += link.DeliveredBytes
		}
	}
	return sum, nil
}

// measureCopies compares what crosses between regions with what is published: with one copy it is as much,
// whatever the number of nodes and viewers there.
func measureCopies(ctx context.Context, r *run) error {
	if len(r.lab.cfg.Topology.regions()) < 2 {
		return fmt.Errorf("%w: there is one region", errNoSuchRole)
	}
	before, err := r.lab.carried()
	if err != nil {
		return err
	}
	sent := map[string]uint64{}
	for _, region := range r.lab.cfg.Topology.regions() {
		if sent[region], err = r.lab.published(region); err != nil {
			return err
		}
	}
	wait(ctx, window)
	after, err := r.lab.carried()
	if err != nil {
		return err
	}
	publishes := func(region string) bool {
		return slices.ContainsFunc(r.publishers(), func(a *actor) bool { return a.region == region })
	}
	// What regions without publishers send is not media.
	background := uint64(0)
	for pair, bytes := range after {
		if !publishes(pair[0]) {
			background = max(background, bytes-before[pair])
		}
	}
	worst := 0.0
	for pair, bytes := range after {
		if !publishes(pair[0]) {
			continue
		}
		published, err := r.lab.published(pair[0])
		if err != nil {
			return err
		}
		worst = max(worst, float64(bytes-before[pair]-background)/float64(published-sent[pair[0]]))
	}
	r.result.figure("copies", worst)
	r.result.figure("kbit/s besides", float64(background)*8/1000/window.Seconds())
	r.result.check("C2", "bytes per published byte", worst, 1.05)
	return nil
}

// measureLayerUp lets a viewer in another region ask for less and for more.
func measureLayerUp(ctx context.Context, r *run) error {
	publisher, viewer := r.cast[0], r.cast[1]
	n, _ := publisher.Publisher()
	track := record.Track{Publisher: n}
	rtt := time.Duration(2 * r.lab.cfg.Topology.between(publisher.region, viewer.region).RTT * float64(time.Millisecond))
	const turns = 5
	var ups []time.Duration
	for range turns {
		if err := viewer.Want(ctx, 0); err != nil {
			return err
		}
		asked := time.Now()
		wait(ctx, 4*time.Second)
		r.result.check("C2", "s until an unwanted layer is gone", max(0, viewer.Media.LastOfLayer(track, 1).Sub(asked).Seconds()), 3)
		asked = time.Now()
		if err := viewer.Want(ctx, 2); err != nil {
			return err
		}
		err := r.lab.await(ctx, 10*time.Second, func(context.Context) error {
			at, ok := viewer.Media.FirstOfLayer(track, 2, asked)
			if !ok {
				return fmt.Errorf("the top layer did not come")
			}
			ups = append(ups, at.Sub(asked))
			return nil
		})
		if err != nil {
			return err
		}
	}
	s := spread(ups)
	r.result.figure("ms p50", milliseconds(s.P50))
	r.result.figure("ms max", milliseconds(s.Max))
	r.result.checkTime("C3", "layer up", s.P95, rtt+100*time.Millisecond)
	return nil
}

// measureRepair loses packets between all regions.
func measureRepair(ctx context.Context, r *run) error {
	err := r.lab.net.Break(faultName, func(from, to string, p netem.Params) netem.Params {
		a, b := r.lab.node(from), r.lab.node(to)
		if a != nil && b != nil && a.Region != b.Region {
			p.Loss = 0.02
		}
		return p
	})
	if err != nil {
		return err
	}
	from := time.Now()
	wait(ctx, window)
	to := time.Now()
	if err := r.lab.net.Mend(faultName); err != nil {
		return err
	}
	wait(ctx, repair)
	packets, missing := 0, 0
	worst := 0.0 // in round trips
	for _, viewer := range r.cast {
		for _, t := range r.tracks(viewer) {
			publisher := r.publisher(t.Publisher)
			if publisher.region == viewer.region {
				continue
			}
			w := viewer.Media.Window(t, from, to)
			packets, missing = packets+w.Packets, missing+w.Missing
			rtt := r.lab.cfg.Topology.between(publisher.region, viewer.region).RTT
			d := viewer.Media.Delays(t, from, to)
			// Of 100 packets two were repaired: the slower half of them, less what all take.
			added := quantile(d, 0.99) - quantile(d, 0.5)
			worst = max(worst, milliseconds(added)/rtt)
		}
	}
	if packets == 0 {
		return fmt.Errorf("%w: no track crosses between regions", errNoSuchRole)
	}
	r.result.Packets, r.result.Missing = packets, missing
	r.result.figure("missing %", 100*float64(missing)/float64(packets))
	r.result.figure("delay p99 less p50 in RTT", worst)
	r.result.check("C4", "packets missing, percent", 100*float64(missing)/float64(packets), 0.05)
	r.result.check("C4", "RTTs added", worst, 1.5)
	return nil
}

// measureShedding gives five videos in three layers 2 Mbit/s, which do not carry them.
func measureShedding(ctx context.Context, r *run) error {
	home, away := r.lab.node(r.cast[1].home), r.lab.node(r.cast[0].home)
	viewer := r.cast[0]
	calm := quantile(r.delays(viewer, time.Now().Add(-2*time.Second), time.Now(), true, false), 0.5)
	err := r.lab.net.Break(faultName, func(from, to string, p netem.Params) netem.Params {
		a, b := r.lab.node(from), r.lab.node(to)
		if a != nil && b != nil && a.Region == home.Region && b.Region == away.Region {
			p.Rate = 2e6
		}
		return p
	})
	if err != nil {
		return err
	}
	began := time.Now()
	wait(ctx, window)
	ended := time.Now()
	if err := r.lab.net.Mend(faultName); err != nil {
		return err
	}
	missing := 0
	for _, t := range r.tracks(viewer) {
		if t.Audio {
			missing += viewer.Media.Window(t, began.Add(time.Second), ended.Add(-repair)).Missing
		}
	}
	queue := quantile(r.delays(viewer, began.Add(time.Second), ended, true, false), 0.95) - calm
	r.result.figure("audio delay p95 less normal ms", milliseconds(queue))
	r.result.check("C14", "audio packets missing after 1 s", float64(missing), 0)
	// The queue's share of the delay can't be told from the repair of lost packets here.
	r.result.checkTime("C14", "audio delay added p95", queue, 30*time.Millisecond)
	err = r.lab.await(ctx, 15*time.Second, func(context.Context) error {
		for _, t := range r.tracks(viewer) {
			if !t.Audio && viewer.Media.LastOfLayer(t, 1).Before(ended) {
				return fmt.Errorf("the upper layers of publisher %d did not come back", t.Publisher)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.result.checkTime("C14", "layers restored", time.Since(ended), 5*time.Second)
	return nil
}

// measureMembership loses 2 % and then 10 % everywhere between nodes, and nobody may be counted dead.
func measureMembership(each time.Duration) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		if r.lab.cfg.Topology.Alone {
			return fmt.Errorf("%w: there is one node", errNoSuchRole)
		}
		lose := func(share float64, hold time.Duration) (*watch, error) {
			err := r.lab.net.Break(faultName, func(from, to string, p netem.Params) netem.Params {
				if r.lab.node(from) != nil && r.lab.node(to) != nil {
					p.Loss = share
				}
				return p
			})
			if err != nil {
				return nil, err
			}
			w := r.beginWatch(ctx)
			wait(ctx, hold)
			w.end()
			return w, r.lab.net.Mend(faultName)
		}
		two, err := lose(0.02, each)
		if err != nil {
			return err
		}
		ten, err := lose(0.10, each/4)
		if err != nil {
			return err
		}
		r.result.figure("minutes at 2 %", each.Minutes())
		r.result.check("C13", "false deaths at 2 %", float64(two.deaths), 0)
		r.result.check("C13", "trunks lost at 10 %", float64(ten.downs), 0)
		if two.answers == 0 || ten.answers == 0 {
			return fmt.Errorf("no node said how many it sees")
		}
		return nil
	}
}
