package lab

import (
	"context"
	"sync"
	"time"
)

// watchEvery is how often nodes are asked what they think of the others.
const watchEvery = 200 * time.Millisecond

// watch asks every node again and again how many others it counts as alive, and since when its trunks are up.
type watch struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex           // guards the fields below
	fewer   map[string]time.Time // when a node first counted fewer than all
	deaths  int                  // times that a node's count fell
	trunks  map[[2]string]int64  // since when each is up, 0: it is not; Unix milliseconds
	downs   int                  // times that a trunk that was up was lost
	answers int
	others  int
}

// beginWatch watches all nodes but the target, until end.
func (r *run) beginWatch(ctx context.Context) *watch {
	ctx, stop := context.WithCancel(ctx)
	w := &watch{stop: stop, fewer: map[string]time.Time{}, trunks: map[[2]string]int64{}}
	if r.lab.cfg.Topology.Alone {
		return w
	}
	for _, p := range r.lab.nodes {
		if p == r.target {
			continue
		}
		w.others++
		w.wg.Go(func() { w.follow(ctx, r.lab, p) })
	}
	return w
}

func (w *watch) end() {
	w.stop()
	w.wg.Wait()
}

func (w *watch) follow(ctx context.Context, l *Lab, p *process) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	alive := len(l.nodes)
	for {
		if s, err := l.status(ctx, p); err == nil {
			now := int(s.GetCluster().GetAlive())
			w.mu.Lock()
			w.answers++
			if now < alive {
				w.deaths += alive - now
			}
			if now < len(l.nodes) && w.fewer[p.ID].IsZero() {
				w.fewer[p.ID] = time.Now()
			}
			for _, t := range s.GetTrunks() {
				w.trunk([2]string{p.ID, t.GetNode()}, t.GetState() == "up", t.GetUpSinceMs())
			}
			w.mu.Unlock()
			alive = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// trunk notes the state of a trunk. It is called with mu held.
func (w *watch) trunk(key [2]string, up bool, since int64) {
	const sooner = 1000 // than that it can't have come up again, in milliseconds
	before := w.trunks[key]
	switch {
	case !up:
		since = 0
		if before != 0 {
			w.downs++
		}
	case before != 0 && since-before > sooner: // lost and back between two looks
		w.downs++
	}
	w.trunks[key] = since
}

// known is how long after a moment all others had counted a node dead; 0 if they have not.
func (w *watch) known(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.fewer) < w.others || w.others == 0 {
		return 0
	}
	last := time.Duration(0)
	for _, at := range w.fewer {
		last = max(last, at.Sub(since))
	}
	return last
}
