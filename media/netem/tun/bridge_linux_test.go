package tun

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/media/netem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// lab makes two namespaces and a bridge that runs until the test ends.
func lab(tb testing.TB, cfg Config) (a, b *Namespace, br *Bridge) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
	var err error
	if a, err = NewNamespace(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close() })
	if b, err = NewNamespace(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Close() })
	if br, err = NewBridge(cfg, a, b); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- br.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return a, b, br
}

func listenIn(tb testing.TB, n *Namespace, addr string) *net.UDPConn {
	tb.Helper()
	var c *net.UDPConn
	err := n.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	if err := c.SetReadBuffer(4 << 20); err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestDelayBothWays(t *testing.T) {
	t.Parallel()
	a, b, br := lab(t, Config{AtoB: netem.Params{Delay: 30 * ms}, BtoA: netem.Params{Delay: 20 * ms}})
	ca, cb := listenIn(t, a, "10.77.0.1:1000"), listenIn(t, b, "10.77.0.2:2000")
	buf := make([]byte, 100)
	least := time.Hour
	for range 10 {
		start := time.Now()
		if _, err := ca.WriteToUDPAddrPort([]byte("ping"), netip.MustParseAddrPort("10.77.0.2:2000")); err != nil {
			t.Fatal(err)
		}
		n, from, err := cb.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != "ping" || from.Addr() != netip.MustParseAddr("10.77.0.1") {
			t.Fatalf("got %q from %v, %v", buf[:n], from, err)
		}
		if _, err := cb.WriteToUDPAddrPort([]byte("pong"), from); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ca.ReadFromUDPAddrPort(buf); err != nil {
			t.Fatal(err)
		}
		least = min(least, time.Since(start))
	}
	if least < 50*ms || least > 80*ms {
		t.Errorf("least round trip %v, want 50 ms and a little", least)
	}
	if ab, ba := br.Stats(); ab.Delivered < 10 || ba.Delivered < 10 {
		t.Errorf("stats %+v, %+v", ab, ba)
	}
}

// TestTCPRate shows that any protocol passes, and at the link's rate.
func TestTCPRate(t *testing.T) {
	t.Parallel()
	a, b, _ := lab(t, Config{AtoB: netem.Params{Rate: 4e6, QueueDelay: 100 * ms, Delay: 5 * ms}, BtoA: netem.Params{Delay: 5 * ms}})
	var ln net.Listener
	err := b.Do(func() (err error) {
		ln, err = net.Listen("tcp4", "10.77.0.2:3000")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	const size = 600_000
	sent := make(chan error, 1)
	go func() {
		sent <- a.Do(func() error {
			c, err := net.Dial("tcp4", "10.77.0.2:3000")
			if err != nil {
				return err
			}
			_, err = c.Write(make([]byte, size))
			return errors.Join(err, c.Close())
		})
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	n, err := io.Copy(io.Discard, c)
	took := time.Since(start).Seconds()
	c.Close()
	if err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if rate := size * 8 / took; rate < 2.5e6 || rate > 4.2e6 {
		t.Errorf("TCP got %.1f Mbit/s on a link of 4", rate/1e6)
	}
}

func TestLossAndBlackHole(t *testing.T) {
	t.Parallel()
	a, b, br := lab(t, Config{AtoB: netem.Params{Loss: 0.2}, Seed: 11})
	ca, cb := listenIn(t, a, "10.77.0.1:1000"), listenIn(t, b, "10.77.0.2:2000")
	to := netip.MustParseAddrPort("10.77.0.2:2000")
	const n = 2000
	for i := range n {
		if _, err := ca.WriteToUDPAddrPort(make([]byte, 100), to); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 { // do not outrun the tun device's own queue
			for {
				if ab, _ := br.Stats(); ab.Sent >= uint64(i) {
					break
				}
				runtime.Gosched()
			}
		}
	}
	// A last packet over a perfect link says that all before it have come.
	if err := br.SetAtoB(netem.Params{}); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.WriteToUDPAddrPort([]byte("end"), to); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 200)
	got := 0
	for {
		k, _, err := cb.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		if k == 3 {
			break
		}
		got++
	}
	if got < n*74/100 || got > n*86/100 {
		t.Errorf("%d of %d packets came at 20 %% loss", got, n)
	}
	if err := br.SetAtoB(netem.Params{BlackHole: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.WriteToUDPAddrPort([]byte("gone"), to); err != nil {
		t.Fatal(err)
	}
	if err := cb.SetReadDeadline(time.Now().Add(200 * ms)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := cb.ReadFromUDPAddrPort(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("something came out of a black hole: %v", err)
	}
}

func TestNamespaceIsReachableByPath(t *testing.T) {
	t.Parallel()
	a, _, _ := lab(t, Config{})
	again, err := OpenNamespace(a.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	err = again.Do(func() error {
		_, err := net.InterfaceByName("amphi0")
		return err
	})
	if err != nil {
		t.Errorf("the device is not seen through the path: %v", err)
	}
	if _, err := net.InterfaceByName("amphi0"); err == nil {
		t.Error("the device is seen outside its namespace")
	}
	if _, err := OpenNamespace("/nonexistent"); err == nil {
		t.Error("a missing namespace was opened")
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{MTU: 100}, {AddrA: netip.MustParsePrefix("fd00::1/64")}, {AtoB: netem.Params{Loss: 2}}} {
		if _, err := NewBridge(cfg, nil, nil); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
