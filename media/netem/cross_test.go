package netem

import (
	"testing"
	"time"
)

// crossWorld runs downloads over one link, with acknowledgements that take 20 ms.
func crossWorld(t *testing.T, p Params, length time.Duration, flows ...*Cross) (shares []float64) {
	t.Helper()
	type data struct {
		flow int
		n    uint64
	}
	down, err := New[data](p, 1)
	if err != nil {
		t.Fatal(err)
	}
	up, err := New[data](Params{Delay: 20 * time.Millisecond}, 2)
	if err != nil {
		t.Fatal(err)
	}
	shares = make([]float64, len(flows))
	for now := time.Duration(0); now < length; now += time.Millisecond {
		for {
			d, ok := down.Receive(now)
			if !ok {
				break
			}
			if now > length/2 {
				shares[d.flow] += 1200 * 8 / (length / 2).Seconds() / float64(p.Rate)
			}
			up.Send(now, 40, d)
		}
		for {
			d, ok := up.Receive(now)
			if !ok {
				break
			}
			flows[d.flow].Ack(d.n, now)
		}
		for i, f := range flows {
			for {
				n, ok := f.Send(now)
				if !ok {
					break
				}
				down.Send(now, 1200, data{i, n})
			}
		}
	}
	return shares
}

func TestCrossFillsALinkAndShares(t *testing.T) {
	t.Parallel()
	p := Params{Rate: 4e6, Delay: 25 * time.Millisecond, QueueDelay: 200 * time.Millisecond}
	for name, g := range map[string]Growth{"Reno": Reno, "CUBIC": Cubic} {
		alone := NewCross(g)
		if s := crossWorld(t, p, time.Minute, alone); s[0] < 0.95 || alone.Stats().Reductions == 0 || alone.Stats().Timeout > 0 {
			t.Errorf("%s alone uses %.2f of the link: %+v", name, s[0], alone.Stats())
		}
		s := crossWorld(t, p, 2*time.Minute, NewCross(g), NewCross(g))
		if s[0]+s[1] < 0.95 || min(s[0], s[1]) < 0.3 {
			t.Errorf("%s: two flows have %.2f and %.2f of the link", name, s[0], s[1])
		}
	}
}

// TestCrossSurvivesAnOutage: a link that carries nothing for a while is used again after it.
func TestCrossSurvivesAnOutage(t *testing.T) {
	t.Parallel()
	c := NewCross(Reno)
	for now := time.Duration(0); now < 20*time.Second; now += 10 * time.Millisecond {
		if n, ok := c.Send(now); ok && (now < 5*time.Second || now > 10*time.Second) {
			c.Ack(n, now+time.Millisecond)
		}
	}
	if s := c.Stats(); s.Timeout == 0 || s.Acked < 500 {
		t.Errorf("%+v", s)
	}
	c.Ack(1<<40, 0) // of a packet never sent: nothing happens
}
