package link

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster/identity"
)

// A node whose certificate is revoked loses its connections at once, and gets no other one; the others keep theirs.
func TestARevokedNodeIsShutOut(t *testing.T) {
	t.Parallel()
	a := authority(t)
	x, y, z := start(t, a, "x", Config{}, nil), start(t, a, "y", Config{}, nil), start(t, a, "z", Config{}, nil)
	nodes := []*node{x, y, z}
	introduce(nodes...)
	connected(t, x, y)
	connected(t, x, z)
	connected(t, y, z)
	was := x.conn("y")
	for _, n := range []*node{x, z} {
		r, err := identity.OpenRevocations("")
		if err != nil {
			t.Fatal(err)
		}
		n.cfg.Identity.Heed(r)
		r.Add(map[string]time.Time{"y": time.Now().Add(time.Minute)})
	}
	// z accepted y's connection, x made the one to y.
	if n, m := x.Reexamine(), z.Reexamine(); n != 1 || m != 1 {
		t.Errorf("%d and %d connections closed", n, m)
	}
	<-was.done
	eventually(t, "y is refused again and again", func() bool { return z.Stats().Refused[refusedRevoked] > 1 })
	if x.Connected("y") || z.Connected("y") || !x.Connected("z") || !z.Connected("x") {
		t.Error("the wrong node was shut out")
	}
	if _, err := x.Dial(context.Background(), "y", MessageProtocol); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("x calls y: %v", err)
	}
	if s := z.Stats(); s.Sockets > 2 {
		t.Errorf("%d connections at z", s.Sockets)
	}
}
