package trunk

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
)

// tap relays datagrams between two nodes, keeping a copy: a NAT, and who listens on the way.
type tap struct {
	conn *net.UDPConn
	to   netip.AddrPort
}

func newTap(t *testing.T, to netip.AddrPort) *tap {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &tap{conn, to}
}

func (p *tap) send(t *testing.T, b []byte) {
	t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(b, p.to); err != nil {
		t.Fatal(err)
	}
}

// stolen seals records as node "a" would towards "b", under the keys of their trunk.
func stolen(t *testing.T, a *testNode, typ record.Type, label uint32, ext uint64, payload []byte) []byte {
	t.Helper()
	c := a.table.Load().byNode["b"]
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	b, err := c.line.sealer.Seal(nil, typ, label, ext, payload, a.cfg.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.line.est.Sent(len(b), time.Duration(a.cfg.Now()))
	return b
}

// TestBadRecords: each is dropped with its reason, and media goes on as before.
func TestBadRecords(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, _ := n.node("b")
	n.join(a, b)
	p := newTap(t, b.LocalAddr())
	rtp := rtpPacket(1, 100)
	genuine := stolen(t, a, record.Media, 7, 1, rtp)
	p.send(t, genuine)
	eventually(t, "a genuine record is taken", func() bool { return len(b.all("media")) == 1 })
	change := func(f func(r []byte)) []byte {
		r := bytes.Clone(stolen(t, a, record.Media, 7, 2, rtp))
		f(r)
		return r
	}
	for _, c := range []struct {
		reason string
		bad    []byte
	}{
		{"replayed", genuine},
		{"truncated", genuine[:20]},
		{"oversize", make([]byte, 2048)}, // longer ones are the socket's to count
		{"unknown_type", bytes.Repeat([]byte{0x80}, 200)},
		{"unknown_type", bytes.Repeat([]byte{0}, 200)},
		{"unknown_connection", change(func(r []byte) { r[20] ^= 0xff })},
		{"wrong_key_phase", change(func(r []byte) { r[1] = 9 })},
		{"forged", change(func(r []byte) { r[30] ^= 1 })},
		{"forged", change(func(r []byte) { r[1] = 1 })},
		{"unknown_label", stolen(t, a, record.Media, 8, 1, rtp)},
		{"malformed", stolen(t, a, record.Probe, 0, 0, make([]byte, probeSize+1))},
		{"malformed", stolen(t, a, record.Echo, 0, 0, nil)},
		{"malformed", stolen(t, a, record.Report, 0, 0, make([]byte, 40))},
		{"malformed", stolen(t, a, record.Request, 0, 0, make([]byte, 13))},
		{"malformed", stolen(t, a, record.Gone, 0, 0, append(bytes.Repeat([]byte{1}, 10), 0, 0, 0, 0, 0, 0))},
	} {
		if c.reason == "oversize" {
			c.bad = append(bytes.Clone(genuine), make([]byte, 2048-len(genuine))...)
			c.bad = append(c.bad, 0)
		}
		before := b.Stats()
		for range 3 {
			p.send(t, c.bad)
		}
		eventually(t, c.reason, func() bool {
			now := b.Stats()
			if c.reason == "oversize" {
				return now.Socket.Drops["oversize"] >= before.Socket.Drops["oversize"]+3
			}
			return now.Drops[c.reason] > before.Drops[c.reason]
		})
	}
	got := len(b.all("media"))
	for ext := uint64(10); ext < 20; ext++ {
		a.Send("b", 7, ext, Base, rtpPacket(ext, 100))
	}
	eventually(t, "media goes on", func() bool { return len(b.all("media")) == got+10 })
	if downs := b.all("down"); len(downs) > 0 {
		t.Errorf("down: %+v", downs)
	}
}

// TestFloodIsLoggedOnceASecond also shows that a flood of garbage stops nothing.
func TestFloodIsLoggedOnceASecond(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, _ := n.node("b")
	n.join(a, b)
	p := newTap(t, b.LocalAddr())
	garbage := bytes.Repeat([]byte{0x41}, 300)
	began := time.Now()
	for i := range 20_000 {
		p.send(t, garbage)
		if i%100 == 0 {
			ext := uint64(i/100 + 1)
			a.Send("b", 7, ext, Base, rtpPacket(ext, 100))
		}
	}
	eventually(t, "media comes through a flood", func() bool { return len(b.all("media")) == 200 })
	eventually(t, "the flood is logged", func() bool { return strings.Contains(n.log.String(), "dropping records") })
	lines := strings.Count(n.log.String(), "dropping records")
	if limit := int(time.Since(began)/time.Second) + 2; lines > limit {
		t.Errorf("%d lines, more than %d", lines, limit)
	}
}

// TestRecordsOfAConnectionBefore: once a trunk is new, what was sealed for the old one is refused.
func TestRecordsOfAConnectionBefore(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, _ := n.node("b")
	n.join(a, b)
	old := stolen(t, a, record.Media, 7, 1, rtpPacket(1, 100))
	a.table.Load().byNode["b"].tls.NetConn().Close()
	eventually(t, "the trunk goes down and up again", func() bool { return len(b.all("down")) == 1 && len(b.all("up")) == 2 && len(a.all("up")) == 2 })
	before := b.Stats().Drops["unknown_connection"]
	newTap(t, b.LocalAddr()).send(t, old)
	eventually(t, "the old record is refused", func() bool { return b.Stats().Drops["unknown_connection"] > before })
	if len(b.all("media")) != 0 {
		t.Error("it was taken")
	}
}

// TestAddressChanges: records of a trunk may come from elsewhere from one moment to the next.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, _ := n.node("b")
	n.join(a, b)
	p := newTap(t, b.LocalAddr())
	buf := make([]byte, 2048)
	ext := uint64(0)
	eventually(t, "b sends to where the newest record came from", func() bool {
		ext++
		p.send(t, stolen(t, a, record.Media, 7, ext, rtpPacket(ext, 100)))
		_ = p.conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		_, _, err := p.conn.ReadFromUDPAddrPort(buf)
		return err == nil
	})
	eventually(t, "and back", func() bool { return b.Stats().Trunks[0].Addr == a.LocalAddr().String() })
}

func TestNodesComeAndGo(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, stop := n.node("b")
	c, _ := n.node("c")
	n.join(a, b, c)
	stop()
	eventually(t, "b is gone", func() bool { return len(a.all("down")) == 1 && len(c.all("down")) == 1 })
	if reason := a.all("down")[0].text; !strings.Contains(reason, reasonStopping) {
		t.Errorf("down because %q", reason)
	}
	if err := a.Message("b", nil); !errors.Is(err, ErrNoTrunk) {
		t.Errorf("a message to nobody: %v", err)
	}
	a.Send("b", 7, 1, Base, rtpPacket(1, 100))
	if a.Stats().Drops["no_trunk"] != 1 {
		t.Errorf("drops %v", a.Stats().Drops)
	}
	b, _ = n.node("b") // restarted, at another address
	n.join(a, b, c)
	if err := b.Message("c", []byte("back")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a message comes", func() bool { return len(c.all("message")) == 1 })
	a.SetPeers(map[string]netip.AddrPort{"c": c.LocalAddr()})
	eventually(t, "a trunk that is no longer wanted ends", func() bool { return len(a.all("down")) == 2 })
}

func TestMessagesHaveLimits(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, _ := n.node("b")
	n.join(a, b)
	if err := a.Message("b", make([]byte, MaxMessage+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	if err := a.Message("b", make([]byte, MaxMessage)); err != nil {
		t.Errorf("as long as may be: %v", err)
	}
	eventually(t, "it comes", func() bool { return len(b.all("message")) == 1 })
	b.handler.mu.Lock() // it is busy and takes no messages
	sent := 1
	for ; sent < 1000; sent++ {
		if err := a.Message("b", make([]byte, MaxMessage)); err != nil {
			if !errors.Is(err, ErrBusy) {
				t.Errorf("busy: %v", err)
			}
			break
		}
	}
	b.handler.mu.Unlock()
	if sent > 60 {
		t.Errorf("%d MiB of messages wait", sent)
	}
	eventually(t, "what was taken comes", func() bool { return len(b.all("message")) == sent })
}

// TestBadControlConnections end without harm to anybody else.
func TestBadControlConnections(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, _ := n.node("b")
	n.join(a, b)
	hi := hello{conn: 5, boot: 1, port: 9}.append(nil)
	old := bytes.Clone(hi)
	old[0] = version + 1
	for name, says := range map[string][]byte{
		"nothing":           nil,
		"garbage":           bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 10),
		"another version":   appendFrame(nil, frameHello, old),
		"a short hello":     appendFrame(nil, frameHello, hi[:5]),
		"an empty hello":    appendFrame(nil, frameHello, nil),
		"a long hello":      appendFrame(nil, frameHello, make([]byte, 100)),
		"no hello at first": appendFrame(nil, frameMessage, []byte("x")),
		"no records":        appendFrame(nil, frameHello, hi),
		"two hellos":        appendFrame(appendFrame(nil, frameHello, hi), frameHello, hi),
		"a huge frame":      append(appendFrame(nil, frameHello, hi), frameMessage, 0xff, 0xff, 0xff),
	} {
		cfg := n.auth.issue(t, "x")
		cfg.ServerName = "b"
		conn, err := tls.Dial("tcp", b.listener.Addr().String(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(says); err != nil {
			t.Fatal(err)
		}
		if says == nil {
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: the connection does not end: %v", name, err)
		}
		conn.Close()
	}
	if len(b.all("up"))+len(b.all("down")) != 1 {
		t.Errorf("b heard of %v %v", b.all("up"), b.all("down"))
	}
}

// TestBothDialAtOnce: one connection is left, the same at both ends.
func TestBothDialAtOnce(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, _ := n.node("b")
	dial := func(from *testNode, to string) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		conn, err := from.deps.Dial(ctx, to)
		if err != nil {
			t.Error(err)
			return
		}
		from.while(func(running context.Context) {
			from.wg.Go(func() { _ = from.serve(running, to, conn, true, netip.AddrPort{}) })
		})
	}
	var dials sync.WaitGroup
	for range 5 {
		dials.Go(func() { dial(a, "b") })
		dials.Go(func() { dial(b, "a") })
	}
	dials.Wait()
	settled := func() bool {
		x, y := a.Stats().Trunks, b.Stats().Trunks
		return len(x) == 1 && len(y) == 1 && x[0].Up && y[0].Up && x[0].Dialled && !y[0].Dialled
	}
	eventually(t, "one trunk is left", settled)
	n.join(a, b)
	a.Send("b", 7, 1, Base, rtpPacket(1, 100))
	b.Send("a", 7, 1, Base, rtpPacket(1, 100))
	eventually(t, "media passes", func() bool { return len(a.all("media")) == 1 && len(b.all("media")) == 1 })
}

// while runs f with the Set's lifetime, under its lock.
func (t *testNode) while(f func(context.Context)) {
	t.Set.mu.Lock()
	defer t.Set.mu.Unlock()
	f(t.running)
}

// TestRestartedNodeIsUpLast: a node that comes back while what it said before is still being taken is
// first down, then up: who is told the other way round would take it for gone for ever.
func TestRestartedNodeIsUpLast(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, stop := n.node("b")
	n.join(a, b)
	busy := make(chan struct{})
	free := sync.OnceFunc(func() { close(busy) })
	defer free()
	a.handler.mu.Lock()
	a.busy = busy
	a.handler.mu.Unlock()
	if err := b.Message("a", []byte("something")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a takes the message", func() bool { return len(a.all("message")) == 1 })
	stop()
	b, _ = n.node("b")
	b.SetPeers(map[string]netip.AddrPort{"a": a.LocalAddr()})
	eventually(t, "b is back", func() bool { return len(b.all("up")) == 1 })
	watch, tick := time.NewTimer(200*time.Millisecond), time.NewTicker(time.Millisecond)
	defer watch.Stop()
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-tick.C:
			if len(a.all("up")) > 1 {
				t.Fatal("it is up again before it was down")
			}
		case <-watch.C:
			over = true
		}
	}
	free()
	eventually(t, "a knows that it is back", func() bool { return len(a.all("up")) == 2 && len(a.all("down")) == 1 })
}
