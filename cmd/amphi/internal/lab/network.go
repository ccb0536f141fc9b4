package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/wire"
	"github.com/amphi-sfu/amphi/media/netem"
	"github.com/amphi-sfu/amphi/media/netem/tun"
)

// network is the namespaces and the switch between them, with what is broken now.
type network struct {
	topology Topology
	hosts    []host
	spaces   map[string]*tun.Namespace
	prefix   string
	wire     *wire.Process

	mu     sync.Mutex // guards the fields below
	faults map[string]Fault
	order  []string
	now    map[[2]string]netem.Params
}

// Fault changes what a direction between two hosts is like.
type Fault func(from, to string, p netem.Params) netem.Params

// newNetwork makes namespaces that begin with prefix and starts the switch with cmd.
func newNetwork(t Topology, seed uint64, prefix string, cmd *exec.Cmd) (*network, error) {
	n := &network{
		topology: t, hosts: t.hosts(), spaces: map[string]*tun.Namespace{}, prefix: prefix,
		faults: map[string]Fault{}, now: map[[2]string]netem.Params{},
	}
	cfg := wire.Config{Seed: seed}
	for _, h := range n.hosts {
		ns, err := tun.NewNamed(prefix + h.name)
		if err != nil {
			return nil, errors.Join(err, n.close())
		}
		n.spaces[h.name] = ns
		cfg.Ports = append(cfg.Ports, wire.ConfigPort{Name: h.name, Namespace: prefix + h.name, Addr: netip.PrefixFrom(h.addr, 16)})
	}
	var err error
	cmd.Stderr = os.Stderr
	if n.wire, err = wire.Start(cmd, cfg); err != nil {
		return nil, errors.Join(err, n.close())
	}
	if err := n.apply(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *network) close() error {
	var errs []error
	if n.wire != nil {
		errs = append(errs, n.wire.Close())
	}
	for name, ns := range n.spaces {
		errs = append(errs, ns.Close(), tun.RemoveNamed(n.prefix+name))
	}
	return errors.Join(errs...)
}

// Break adds a fault under a name, or replaces the one of that name.
func (n *network) Break(name string, f Fault) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.faults[name] == nil {
		n.order = append(n.order, name)
	}
	n.faults[name] = f
	return n.apply()
}

// Mend takes a fault away.
func (n *network) Mend(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.faults, name)
	for i, o := range n.order {
		if o == name {
			n.order = append(n.order[:i:i], n.order[i+1:]...)
			break
		}
	}
	return n.apply()
}

// apply tells the switch what has changed. It is called with mu held, or before others know n.
func (n *network) apply() error {
	var set []wire.Link
	for _, from := range n.hosts {
		for _, to := range n.hosts {
			if from.name == to.name {
				continue
			}
			p := n.topology.way(from, to).params()
			for _, name := range n.order {
				p = n.faults[name](from.name, to.name, p)
			}
			key := [2]string{from.name, to.name}
			if before, known := n.now[key]; known && before == p {
				continue
			}
			n.now[key] = p
			set = append(set, wire.Link{From: from.name, To: to.name, Params: p})
		}
	}
	if len(set) == 0 {
		return nil
	}
	return n.wire.Set(set...)
}

// touching is a fault of everything to and from a host, the way to one of the others alone if with is set.
func touching(host string, with func(other string) bool, in, out func(netem.Params) netem.Params) Fault {
	return func(from, to string, p netem.Params) netem.Params {
		switch {
		case to == host && in != nil && (with == nil || with(from)):
			return in(p)
		case from == host && out != nil && (with == nil || with(to)):
			return out(p)
		}
		return p
	}
}

func blackHole(p netem.Params) netem.Params {
	p.BlackHole = true
	return p
}

// losing adds random loss, slower adds to the round trip, capped sets a bottleneck.
func losing(share float64) func(netem.Params) netem.Params {
	return func(p netem.Params) netem.Params {
		p.Loss = 1 - (1-p.Loss)*(1-share)
		return p
	}
}

func slower(rtt time.Duration) func(netem.Params) netem.Params {
	return func(p netem.Params) netem.Params {
		p.Delay += rtt / 2
		return p
	}
}

func capped(bitsPerSecond int64) func(netem.Params) netem.Params {
	return func(p netem.Params) netem.Params {
		p.Rate = bitsPerSecond
		return p
	}
}

// flap breaks and mends at a period until ctx ends; then it is mended.
func (n *network) flap(ctx context.Context, name string, f Fault, period time.Duration) error {
	tick := time.NewTicker(period / 2)
	defer tick.Stop()
	for broken := false; ; broken = !broken {
		var err error
		if broken {
			err = n.Mend(name)
		} else {
			err = n.Break(name, f)
		}
		if err != nil {
			return fmt.Errorf("flapping: %w", err)
		}
		select {
		case <-ctx.Done():
			return n.Mend(name)
		case <-tick.C:
		}
	}
}
