package lab

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/media/netem"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

// fault is one kind of trouble.
type fault struct {
	name string
	// hold is how long it lasts, from being applied to being mended.
	hold  time.Duration
	apply func(ctx context.Context, s *stage, target *process) error
	mend  func(ctx context.Context, s *stage, target *process) error
	// cutsOff: the target can't serve its clients meanwhile, who go elsewhere.
	cutsOff bool
	// between: it hits what passes between two hosts, whatever the target; nil is what goes to or from the target.
	between func(s *stage, viewer, publisher *actor) bool
}

// errNotOffered is why a scenario is left out: the node has no such thing.
var errNotOffered = errors.New("the node does not offer it")

const faultName = "scenario"

func kill() fault {
	return fault{
		name: "kill -9", hold: 4 * time.Second, cutsOff: true,
		apply: func(_ context.Context, _ *stage, p *process) error {
			p.kill()
			return nil
		},
		mend: func(_ context.Context, _ *stage, p *process) error { return p.start() },
	}
}

func pauseFor(d time.Duration) fault {
	return fault{
		name: fmt.Sprintf("SIGSTOP %v", d), hold: d, cutsOff: true,
		apply: func(_ context.Context, _ *stage, p *process) error { return p.signal(syscall.SIGSTOP) },
		mend:  func(_ context.Context, _ *stage, p *process) error { return p.signal(syscall.SIGCONT) },
	}
}

// onNetwork is a fault of the network around the target.
func onNetwork(name string, hold time.Duration, make func(s *stage, p *process) Fault) fault {
	return fault{
		name: name, hold: hold,
		apply: func(_ context.Context, s *stage, p *process) error { return s.lab.net.Break(faultName, make(s, p)) },
		mend:  func(_ context.Context, s *stage, _ *process) error { return s.lab.net.Mend(faultName) },
	}
}

func hole(name string, in, out bool) fault {
	f := onNetwork("black hole "+name, 5*time.Second, func(_ *stage, p *process) Fault {
		switch {
		case !out:
			return touching(p.ID, nil, blackHole, nil)
		case !in:
			return touching(p.ID, nil, nil, blackHole)
		}
		return touching(p.ID, nil, blackHole, blackHole)
	})
	f.cutsOff = true
	return f
}

// otherNodes are what trunks lead to.
func (s *stage) otherNodes(p *process) func(string) bool {
	return func(other string) bool { return other != p.ID && s.lab.node(other) != nil }
}

func lossy(percent float64, hold time.Duration) fault {
	return onNetwork(fmt.Sprintf("%g %% loss", percent), hold, func(s *stage, p *process) Fault {
		f := losing(percent / 100)
		return touching(p.ID, s.otherNodes(p), f, f)
	})
}

func distant(rtt, hold time.Duration) fault {
	return onNetwork(fmt.Sprintf("RTT +%v", rtt), hold, func(s *stage, p *process) Fault {
		f := slower(rtt)
		return touching(p.ID, s.otherNodes(p), f, f)
	})
}

func narrow(bitsPerSecond int64, hold time.Duration) fault {
	return onNetwork(fmt.Sprintf("trunks at %g Mbit/s", float64(bitsPerSecond)/1e6), hold, func(s *stage, p *process) Fault {
		f := capped(bitsPerSecond)
		return touching(p.ID, s.otherNodes(p), f, f)
	})
}

// flapping breaks all links of the target every other half period.
func flapping(period, hold time.Duration) fault {
	var stop context.CancelFunc
	var done chan error
	return fault{
		name: fmt.Sprintf("flap every %v", period), hold: hold, cutsOff: true,
		apply: func(ctx context.Context, s *stage, p *process) error {
			var running context.Context
			running, stop = context.WithCancel(ctx)
			done = make(chan error, 1)
			go func() { done <- s.lab.net.flap(running, faultName, touching(p.ID, nil, blackHole, blackHole), period) }()
			return nil
		},
		mend: func(context.Context, *stage, *process) error {
			stop()
			return <-done
		},
	}
}

// clockStep needs a node that takes its clock's offset from a file.
func clockStep(by, hold time.Duration) fault {
	return fault{
		name: fmt.Sprintf("clock step %v", by), hold: hold,
		apply: func(ctx context.Context, s *stage, p *process) error {
			if err := p.stepClock(by); err != nil {
				return err
			}
			err := s.lab.await(ctx, 2*time.Second, func(ctx context.Context) error {
				st, err := s.lab.status(ctx, p)
				if err != nil {
					return err
				}
				if off := time.Until(time.UnixMilli(st.GetTimeMs())); (off - by).Abs() > by.Abs()/2 {
					return fmt.Errorf("%w: the clock did not move", errNotOffered)
				}
				return nil
			})
			if err != nil {
				return errors.Join(err, p.stepClock(0))
			}
			return nil
		},
		mend: func(_ context.Context, _ *stage, p *process) error { return p.stepClock(0) },
	}
}

func diskFull(hold time.Duration) fault {
	return fault{
		name: "disk full", hold: hold,
		apply: func(_ context.Context, _ *stage, p *process) error { return p.fillDisk() },
		mend: func(_ context.Context, s *stage, p *process) error {
			err := p.emptyDisk()
			if s.lab.cfg.Topology.Alone { // it asks for that in its log
				err = errors.Join(err, p.stop(stopTimeout))
			}
			if !p.running() { // it may end rather than go on with a disk that it can't write to
				err = errors.Join(err, p.start())
			}
			return err
		},
	}
}

// noQuorum cuts all voters off from each other, and from nobody else: everybody runs, and nothing can be decided.
func noQuorum(hold time.Duration) fault {
	f := onNetwork("no quorum", hold, func(s *stage, _ *process) Fault {
		votes := func(id string) bool {
			p := s.lab.node(id)
			return p != nil && contains(p.Roles, "voter")
		}
		return func(from, to string, p netem.Params) netem.Params {
			if votes(from) && votes(to) {
				p.BlackHole = true
			}
			return p
		}
	})
	f.between = func(*stage, *actor, *actor) bool { return false }
	return f
}

// regionCut cuts the last region off, its clients with it.
func regionCut(hold time.Duration) fault {
	cut := func(s *stage) string {
		regions := s.lab.cfg.Topology.regions()
		return regions[len(regions)-1]
	}
	f := onNetwork("region cut", hold, func(s *stage, _ *process) Fault {
		inside := map[string]bool{}
		for _, h := range s.lab.net.hosts {
			inside[h.name] = h.region == cut(s)
		}
		return func(from, to string, p netem.Params) netem.Params {
			if inside[from] != inside[to] {
				p.BlackHole = true
			}
			return p
		}
	})
	f.between = func(s *stage, viewer, publisher *actor) bool {
		return (viewer.region == cut(s)) != (publisher.region == cut(s))
	}
	return f
}

// rollingRestart ends each node as an operator does, and starts it again.
func rollingRestart() fault {
	return fault{
		name: "rolling restart", between: func(*stage, *actor, *actor) bool { return true },
		apply: func(ctx context.Context, s *stage, _ *process) error {
			for _, p := range s.lab.nodes {
				if err := p.stop(drainTimeout); err != nil {
					return err
				}
				if err := p.start(); err != nil {
					return err
				}
				if err := s.lab.await(ctx, startTimeout, s.lab.whole); err != nil {
					return fmt.Errorf("after the restart of %s: %w", p.ID, err)
				}
			}
			return nil
		},
		mend: func(context.Context, *stage, *process) error { return nil },
	}
}

// killAll kills every node at once: what is durable must be there afterwards.
func killAll() fault {
	return fault{
		name: "kill -9 of all", between: func(*stage, *actor, *actor) bool { return true }, cutsOff: true, hold: time.Second,
		apply: func(_ context.Context, s *stage, _ *process) error {
			var wg sync.WaitGroup
			for _, p := range s.lab.nodes {
				wg.Go(p.kill)
			}
			wg.Wait()
			return nil
		},
		mend: func(ctx context.Context, s *stage, _ *process) error { return s.lab.Start(ctx) },
	}
}

// drainTimeout is the target's, and some to spare.
const drainTimeout = 40 * time.Second

// drain moves everything away from the target, which then ends by itself.
func drain() fault {
	return fault{
		name: "drain",
		apply: func(ctx context.Context, s *stage, p *process) error {
			nodes, err := manage(s.lab, p, amphiv1connect.NewNodeServiceClient)
			if err != nil {
				return err
			}
			_, err = nodes.DrainNode(ctx, connect.NewRequest(&amphiv1.DrainNodeRequest{Id: p.ID, DeadlineS: 30}))
			if connect.CodeOf(err) == connect.CodeUnimplemented {
				return fmt.Errorf("%w: %w", errNotOffered, err)
			}
			if err != nil {
				return fmt.Errorf("draining %s: %w", p.ID, err)
			}
			wait := time.NewTimer(drainTimeout)
			defer wait.Stop()
			select {
			case <-p.ended():
				return nil
			case <-ctx.Done():
				return ctx.Err()
			case <-wait.C:
				return fmt.Errorf("%s still runs %v after the drain began", p.ID, drainTimeout)
			}
		},
		mend: func(_ context.Context, _ *stage, p *process) error {
			if p.running() {
				return nil
			}
			return p.start()
		},
	}
}
