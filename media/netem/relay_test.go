package netem

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// echo answers every datagram to its sender until the test ends.
func echo(tb testing.TB) netip.AddrPort {
	tb.Helper()
	c, err := listenUDP("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	tb.Cleanup(func() { c.Close(); <-done })
	return unmap(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

func relay(tb testing.TB, cfg RelayConfig) *Relay {
	tb.Helper()
	r, err := NewRelay(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return r
}

func dial(tb testing.TB, to netip.AddrPort) *net.UDPConn {
	tb.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestRelayDelaysBothWaysAndKeepsClientsApart(t *testing.T) {
	t.Parallel()
	r := relay(t, RelayConfig{Target: echo(t), Up: Params{Delay: 30 * ms}, Down: Params{Delay: 20 * ms}})
	a, b := dial(t, r.Addr()), dial(t, r.Addr())
	start := time.Now()
	for range 10 {
		if _, err := a.Write([]byte("from a")); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Write([]byte("from b")); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 100)
	for range 10 {
		for c, want := range map[*net.UDPConn]string{a: "from a", b: "from b"} {
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) != want {
				t.Fatalf("got %q, %v; want %q", buf[:n], err, want)
			}
		}
	}
	if d := time.Since(start); d < 50*ms || d > 2*time.Second {
		t.Errorf("round trip took %v, want 50 ms and a little", d)
	}
	if s := r.Stats(); s.Up.Delivered != 20 || s.Down.Delivered != 20 {
		t.Errorf("stats %+v", s)
	}
}

// TestRelayRate pushes more than the link takes and measures what arrives, by
// the receiver's clock.
func TestRelayRate(t *testing.T) {
	t.Parallel()
	r := relay(t, RelayConfig{Target: echo(t), Down: Params{Rate: 2e6, QueueDelay: 100 * ms}, Seed: 1})
	c := dial(t, r.Addr())
	stop := make(chan struct{})
	sent := make(chan struct{})
	go func() { // 1,000 packets of 1,222 B per second, about 10 Mbit/s
		defer close(sent)
		tick := time.NewTicker(ms)
		defer tick.Stop()
		b := make([]byte, 1222)
		for i := uint32(0); ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				binary.BigEndian.PutUint32(b, i)
				_, _ = c.Write(b)
			}
		}
	}()
	buf := make([]byte, 2000)
	read := func(n int) {
		for range n {
			if _, err := c.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	read(20) // let the queue fill first
	const packets = 300
	first := time.Now()
	read(packets)
	took := time.Since(first)
	close(stop)
	<-sent
	// A machine without time makes the link slower, never faster.
	if rate := packets * 1250 * 8 / took.Seconds(); rate < 0.2e6 || rate > 2.2e6 {
		t.Errorf("%.0f bit/s came through a link of 2 Mbit/s", rate)
	}
	s := r.Stats()
	if q := s.Down.MaxQueueDelay; q < 95*ms || q > 160*ms {
		t.Errorf("longest queue %v, want about 105 ms", q)
	}
	if s.Down.QueueFull == 0 {
		t.Error("an overloaded link dropped nothing")
	}
}

func TestRelayBlackHoleAndBack(t *testing.T) {
	t.Parallel()
	r := relay(t, RelayConfig{Target: echo(t)})
	c := dial(t, r.Addr())
	buf := make([]byte, 10)
	ask := func(s string) {
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	ask("1")
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	if err := r.SetUp(Params{BlackHole: true}); err != nil {
		t.Fatal(err)
	}
	ask("2")
	for deadline := time.Now().Add(10 * time.Second); r.Stats().Up.BlackHoled == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the datagram never reached the black hole")
		}
		runtime.Gosched()
	}
	if err := r.SetUp(Params{}); err != nil {
		t.Fatal(err)
	}
	ask("3")
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != "3" {
		t.Fatalf("got %q, %v; want what was sent after the hole", buf[:n], err)
	}
}

func TestRelayLimitsClients(t *testing.T) {
	t.Parallel()
	r := relay(t, RelayConfig{Target: echo(t), MaxClients: 1})
	a, b := dial(t, r.Addr()), dial(t, r.Addr())
	buf := make([]byte, 10)
	for i, c := range []*net.UDPConn{a, b} {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := c.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The first still works after the second was refused.
	deadline := time.Now().Add(10 * time.Second)
	for r.Stats().Refused == 0 && time.Now().Before(deadline) {
		if _, err := a.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	if r.Stats().Refused != 1 {
		t.Errorf("refused %d datagrams, want 1", r.Stats().Refused)
	}
	if _, err := NewRelay(RelayConfig{}); err == nil {
		t.Error("a relay without a target was accepted")
	}
}
