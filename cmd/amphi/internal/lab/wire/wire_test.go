package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/media/netem"
	"github.com/amphi-sfu/amphi/media/netem/tun"
)

// asSwitch makes the test's binary the process that Start runs.
const asSwitch = "AMPHI_TEST_SWITCH"

func TestMain(m *testing.M) {
	if os.Getenv(asSwitch) != "" {
		if err := Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

const ms = time.Millisecond

// bench is three namespaces a, b, c with a switch between them.
type bench struct {
	*Process
	ns map[string]*tun.Namespace
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
	b := &bench{ns: map[string]*tun.Namespace{}}
	cfg := Config{Seed: 7}
	for i, name := range []string{"a", "b", "c"} {
		full := fmt.Sprintf("amphi-wire-%d-%s-%s", os.Getpid(), tb.Name(), name)
		ns, err := tun.NewNamed(full)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := errors.Join(ns.Close(), tun.RemoveNamed(full)); err != nil {
				tb.Error(err)
			}
		})
		b.ns[name] = ns
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 66, 0, byte(i + 1)}), 16)
		cfg.Ports = append(cfg.Ports, ConfigPort{Name: name, Namespace: full, Addr: addr})
	}
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asSwitch+"=1")
	cmd.Stderr = os.Stderr
	if b.Process, err = Start(cmd, cfg); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return b
}

func (b *bench) listen(tb testing.TB, name string) *net.UDPConn {
	tb.Helper()
	var c *net.UDPConn
	err := b.ns[name].Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: addrOf(name), Port: 5000})
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	if err := errors.Join(c.SetDeadline(time.Now().Add(20*time.Second)), c.SetReadBuffer(8<<20)); err != nil {
		tb.Fatal(err)
	}
	return c
}

func addrOf(name string) net.IP { return net.IPv4(10, 66, 0, name[0]-'a'+1) }

// roundTrip is the least of some, the other side answering what it gets.
func roundTrip(t *testing.T, from *net.UDPConn, to string, times int) time.Duration {
	t.Helper()
	least := time.Hour
	buf := make([]byte, 100)
	for range times {
		began := time.Now()
		if _, err := from.WriteTo([]byte("ping"), &net.UDPAddr{IP: addrOf(to), Port: 5000}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := from.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
		least = min(least, time.Since(began))
	}
	return least
}

func echo(c *net.UDPConn) {
	buf := make([]byte, 2000)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

func TestEachPairHasItsLink(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ca, cb, cc := b.listen(t, "a"), b.listen(t, "b"), b.listen(t, "c")
	go echo(cb)
	go echo(cc)
	err := b.Set(
		Link{From: "a", To: "b", Params: netem.Params{Delay: 30 * ms}}, Link{From: "b", To: "a", Params: netem.Params{Delay: 10 * ms}},
		Link{From: "a", To: "c", Params: netem.Params{Delay: 5 * ms}})
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]time.Duration{"b": 40 * ms, "c": 5 * ms} {
		if got := roundTrip(t, ca, to, 20); got < want || got > want+15*ms {
			t.Errorf("round trip to %s %v, want %v and a little", to, got, want)
		}
	}
	if err := b.Set(Link{From: "b", To: "a", Params: netem.Params{BlackHole: true}}); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.WriteTo([]byte("ping"), &net.UDPAddr{IP: addrOf("b"), Port: 5000}); err != nil {
		t.Fatal(err)
	}
	if err := ca.SetReadDeadline(time.Now().Add(300 * ms)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ca.ReadFrom(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("something came through a one-way cut: %v", err)
	}
	st, err := b.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range st.Links {
		if l.From == "a" && l.To == "b" && l.Delivered != 21 {
			t.Errorf("a to b delivered %d of 21", l.Delivered)
		}
		if l.From == "b" && l.To == "a" && l.BlackHoled != 1 {
			t.Errorf("b to a swallowed %d, want 1", l.BlackHoled)
		}
	}
	if err := b.Set(Link{From: "a", To: "nobody"}); err == nil {
		t.Error("a link to nobody was accepted")
	}
}

// flood sends n packets at a rate and counts what comes.
func flood(t testing.TB, from, to *net.UDPConn, dest string, n, perSecond int) int {
	t.Helper()
	var wg sync.WaitGroup
	got := 0
	wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			k, _, err := to.ReadFrom(buf)
			if err != nil || k == 1 {
				return
			}
			got++
		}
	})
	began := time.Now()
	payload := make([]byte, 1000)
	for i := 0; i < n; {
		allowed := int(time.Since(began).Seconds()*float64(perSecond)) + 1
		for ; i < min(n, allowed); i++ {
			if _, err := from.WriteTo(payload, &net.UDPAddr{IP: addrOf(dest), Port: 5000}); err != nil {
				t.Fatal(err)
			}
		}
		pause := time.NewTimer(ms)
		<-pause.C
	}
	if err := to.SetReadDeadline(time.Now().Add(700 * ms)); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	return got
}

func TestLossAndRate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ca, cb, cc := b.listen(t, "a"), b.listen(t, "b"), b.listen(t, "c")
	err := b.Set(Link{From: "a", To: "b", Params: netem.Params{Loss: 0.1}},
		Link{From: "a", To: "c", Params: netem.Params{Rate: 2e6, QueueDelay: 50 * ms}})
	if err != nil {
		t.Fatal(err)
	}
	if got := flood(t, ca, cb, "b", 4000, 4000); got < 3500 || got > 3700 {
		t.Errorf("%d of 4000 packets came at 10 %% loss", got)
	}
	// 1,028-byte packets for a second over 2 Mbit/s, and what the queue held.
	if got := flood(t, ca, cc, "c", 1000, 1000); got < 220 || got > 275 {
		t.Errorf("%d packets came in a second over 2 Mbit/s, want about 255", got)
	}
}

// TestCarriesTheLabsLoad floods with 30,000 packets/s: none may be lost, and the switch may use one core at most.
func TestCarriesTheLabsLoad(t *testing.T) {
	b := newBench(t)
	ca, cb := b.listen(t, "a"), b.listen(t, "b")
	if err := b.Set(Link{From: "a", To: "b", Params: netem.Params{Delay: 20 * ms}}); err != nil {
		t.Fatal(err)
	}
	before, err := b.Stats()
	if err != nil {
		t.Fatal(err)
	}
	const n = 90_000
	got := flood(t, ca, cb, "b", n, 30_000)
	st, err := b.Stats()
	if err != nil {
		t.Fatal(err)
	}
	each := (st.CPU - before.CPU) / time.Duration(n)
	carried := int(st.Packets - before.Packets)
	t.Logf("%d of %d came, %d were carried, %v of CPU each, late %v / %v / %v (p50, p99, max)", got, n, carried, each, st.LateP50, st.LateP99, st.LateMax)
	// The receiver's own socket may overflow on a busy machine.
	if carried < n*999/1000 || got < n/2 {
		t.Errorf("%d of %d packets were carried, %d came", carried, n, got)
	}
	if !raceDetector() && each > time.Second/30_000 {
		t.Errorf("%v of CPU per packet is too much for 30,000 a second", each)
	}
}

// raceDetector tells whether everything is many times slower than it would be.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	at := func(name, addr string) Port { return Port{Name: name, Addr: netip.MustParseAddr(addr)} }
	for _, ports := range [][]Port{
		{at("a", "10.0.0.1")}, {at("a", "10.0.0.1"), at("a", "10.0.0.2")}, {at("a", "10.0.0.1"), at("b", "10.0.0.1")},
		{at("a", "10.0.0.1"), at("b", "fd00::1")},
	} {
		if _, err := New(1, ports); err == nil {
			t.Errorf("%v was accepted", ports)
		}
	}
}
