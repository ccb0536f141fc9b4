package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(tb testing.TB, cfg Config) *Conn {
	tb.Helper()
	c, err := Listen(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// receiver is a plain socket of the standard library with a big buffer.
func receiver(tb testing.TB, network, addr string) (*net.UDPConn, netip.AddrPort) {
	tb.Helper()
	ua, err := net.ResolveUDPAddr(network, addr)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := net.ListenUDP(network, ua)
	if err != nil {
		tb.Skipf("no %s here: %v", network, err)
	}
	tb.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(4 << 20); err != nil {
		tb.Fatal(err)
	}
	return c, unmap(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

func receive(tb testing.TB, c *net.UDPConn, n int) [][]byte {
	tb.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	var got [][]byte
	buf := make([]byte, 65536)
	for len(got) < n {
		k, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			tb.Fatalf("after %d of %d datagrams: %v", len(got), n, err)
		}
		got = append(got, bytes.Clone(buf[:k]))
	}
	return got
}

// rtp makes a packet with SSRC and sequence where RTP has them.
func rtp(ssrc uint32, seq uint16, size int) []byte {
	b := make([]byte, size)
	b[0] = 0x80
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return b
}

func TestSenderDeliversEverythingInOrderPerStream(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name string
		cfg  Config
	}{
		{"gso", Config{Addr: "127.0.0.1:0"}},
		{"dual stack", Config{Addr: ":0"}},
		{"plain", Config{Addr: "127.0.0.1:0", Plain: true}},
		{"no segments", Config{Addr: "127.0.0.1:0", MaxSegments: 1}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			s := listen(t, mode.cfg).NewSender()
			rng := rand.New(rand.NewPCG(1, 2))
			const dests, streams, packets = 5, 3, 60
			socks := make([]*net.UDPConn, dests)
			queues := make([]*Dest, dests)
			for i := range dests {
				var addr netip.AddrPort
				socks[i], addr = receiver(t, "udp4", "127.0.0.1:0")
				queues[i] = s.NewDest(addr)
			}
			var seqs [dests][streams]uint16
			for range packets {
				for i, q := range queues {
					ssrc := rng.IntN(streams)
					sizes := [...]int{1100, 1100, 1100, 700, 1101, 40}
					q.Write(rtp(uint32(ssrc), seqs[i][ssrc], sizes[rng.IntN(len(sizes))]))
					seqs[i][ssrc]++
				}
				if rng.IntN(8) == 0 {
					s.Flush()
				}
			}
			s.Flush()
			for i, sock := range socks {
				var next [streams]uint16
				for _, b := range receive(t, sock, packets) {
					ssrc, seq := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(b[2:])
					if seq != next[ssrc] {
						t.Fatalf("destination %d stream %d: sequence %d, want %d", i, ssrc, seq, next[ssrc])
					}
					next[ssrc]++
				}
				if next != seqs[i] {
					t.Fatalf("destination %d: got %v packets per stream, want %v", i, next, seqs[i])
				}
			}
			st := s.conn.Stats()
			if st.SendDatagrams != dests*packets {
				t.Errorf("SendDatagrams %d, want %d", st.SendDatagrams, dests*packets)
			}
			single := mode.cfg.Plain || mode.cfg.MaxSegments == 1
			if !s.conn.noGSO.Load() && !single && st.SendMessages >= st.SendDatagrams*9/10 {
				t.Errorf("%d messages for %d datagrams: no runs were built", st.SendMessages, st.SendDatagrams)
			}
			if single && st.SendMessages != st.SendDatagrams {
				t.Errorf("%d messages for %d datagrams, want one each", st.SendMessages, st.SendDatagrams)
			}
		})
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	type pkt struct {
		ssrc uint32
		n    int
	}
	for _, tc := range []struct {
		name string
		in   []pkt
		want [][]int
	}{
		{"equal", []pkt{{1, 100}, {1, 100}, {1, 100}}, [][]int{{100, 100, 100}}},
		{"shorter ends", []pkt{{1, 100}, {1, 90}, {1, 90}}, [][]int{{100, 90}, {90}}},
		{"longer begins", []pkt{{1, 90}, {1, 100}, {1, 100}}, [][]int{{90}, {100, 100}}},
		{"two streams pair", []pkt{{1, 90}, {2, 100}}, [][]int{{100, 90}}},
		{"sound before a frame", []pkt{{1, 90}, {2, 100}, {2, 100}, {2, 100}, {2, 70}}, [][]int{{100, 100, 100, 90}, {70}}},
		{"sound before a frame, then more sound", []pkt{{1, 90}, {2, 100}, {2, 100}, {1, 100}, {2, 100}}, [][]int{{100, 100, 90}, {100, 100}}},
		{"pair then more", []pkt{{1, 90}, {2, 100}, {3, 80}, {4, 85}}, [][]int{{100, 90}, {85, 80}}},
		{"cap", []pkt{{1, 50}, {1, 50}, {1, 50}, {1, 50}, {1, 50}}, [][]int{{50, 50, 50, 50}, {50}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := listen(t, Config{Addr: "127.0.0.1:0", MaxSegments: 4}).NewSender()
			s.conn.noGSO.Store(false)
			d := s.NewDest(netip.MustParseAddrPort("127.0.0.1:9"))
			for i, p := range tc.in {
				d.Write(rtp(p.ssrc, uint16(i), p.n))
			}
			var got [][]int
			for d.head != none {
				var sizes []int
				for _, i := range s.nextRun(d).pkts {
					sizes = append(sizes, int(s.pkts[i].n))
				}
				got = append(got, sizes)
			}
			if len(got) != len(tc.want) {
				t.Fatalf("runs %v, want %v", got, tc.want)
			}
			for i := range got {
				if len(got[i]) != len(tc.want[i]) {
					t.Fatalf("runs %v, want %v", got, tc.want)
				}
				for j := range got[i] {
					if got[i][j] != tc.want[i][j] {
						t.Fatalf("runs %v, want %v", got, tc.want)
					}
				}
			}
		})
	}
}

func TestReaderSplitsWhatGROJoined(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			in, err := Listen(Config{Addr: addr})
			if err != nil {
				t.Skipf("no such address here: %v", err)
			}
			t.Cleanup(func() { in.Close() })
			out := listen(t, Config{Addr: addr})
			s := out.NewSender()
			d := s.NewDest(in.LocalAddr())
			const n = 300
			for i := range n {
				size := 1000
				if i%7 == 6 {
					size = 333
				}
				d.Write(rtp(7, uint16(i), size))
			}
			s.Flush()
			r := in.NewReader()
			for next := uint16(0); next < n; {
				batch, err := r.ReadBatch()
				if err != nil {
					t.Fatal(err)
				}
				for _, dg := range batch {
					if seq := binary.BigEndian.Uint16(dg.Data[2:]); seq != next {
						t.Fatalf("sequence %d, want %d", seq, next)
					}
					if dg.From != out.LocalAddr() {
						t.Fatalf("from %v, want %v", dg.From, out.LocalAddr())
					}
					want := 1000
					if next%7 == 6 {
						want = 333
					}
					if len(dg.Data) != want {
						t.Fatalf("datagram %d has %d bytes, want %d", next, len(dg.Data), want)
					}
					next++
				}
			}
			if st := in.Stats(); st.ReadDatagrams != n {
				t.Errorf("ReadDatagrams %d, want %d", st.ReadDatagrams, n)
			} else if in.gro && !out.noGSO.Load() && st.ReadMessages >= n {
				t.Errorf("%d messages for %d datagrams: GRO is on but did nothing", st.ReadMessages, n)
			}
		})
	}
}

func TestReaderMapsAddresses(t *testing.T) {
	t.Parallel()
	in := listen(t, Config{Addr: ":0"})
	_, port4 := receiver(t, "udp4", "127.0.0.1:0")
	sock, _ := receiver(t, "udp4", "127.0.0.1:0")
	_ = port4
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), in.LocalAddr().Port())
	if _, err := sock.WriteToUDPAddrPort([]byte("x"), to); err != nil {
		t.Fatal(err)
	}
	batch, err := in.NewReader().ReadBatch()
	if err != nil {
		t.Fatal(err)
	}
	from := batch[0].From
	if !from.Addr().Is4() || from != unmap(sock.LocalAddr().(*net.UDPAddr).AddrPort()) {
		t.Fatalf("from %v, want %v as IPv4", from, sock.LocalAddr())
	}
	// And the answer to that address arrives.
	s := in.NewSender()
	s.NewDest(from).Write([]byte("answer"))
	s.Flush()
	if got := receive(t, sock, 1)[0]; string(got) != "answer" {
		t.Fatalf("got %q", got)
	}
}

func TestOversizeIsDroppedAndCounted(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		in := listen(t, Config{Addr: "127.0.0.1:0", MaxDatagram: 100, Plain: plain})
		sock, _ := receiver(t, "udp4", "127.0.0.1:0")
		for _, n := range []int{101, 5000, 100} {
			if _, err := sock.WriteToUDPAddrPort(bytes.Repeat([]byte{0x80}, n), in.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		batch, err := in.NewReader().ReadBatch()
		if err != nil || len(batch) != 1 || len(batch[0].Data) != 100 {
			t.Fatalf("got %d datagrams, err %v", len(batch), err)
		}
		if n := in.Stats().Drops[DropOversize]; n != 2 {
			t.Fatalf("%d oversize drops, want 2", n)
		}
	}
}

func TestEmptyDatagram(t *testing.T) {
	t.Parallel()
	in := listen(t, Config{Addr: "127.0.0.1:0"})
	sock, _ := receiver(t, "udp4", "127.0.0.1:0")
	for _, b := range [][]byte{{}, []byte("x")} {
		if _, err := sock.WriteToUDPAddrPort(b, in.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	r := in.NewReader()
	var got []int
	for len(got) < 2 {
		batch, err := r.ReadBatch()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch {
			got = append(got, len(d.Data))
		}
	}
	if got[0] != 0 || got[1] != 1 {
		t.Fatalf("lengths %v, want [0 1]", got)
	}
}

func TestCloseEndsRead(t *testing.T) {
	t.Parallel()
	in := listen(t, Config{Addr: "127.0.0.1:0"})
	done := make(chan error, 1)
	go func() {
		_, err := in.NewReader().ReadBatch()
		done <- err
	}()
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v, want net.ErrClosed", err)
	}
	if err := in.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	s := in.NewSender()
	s.NewDest(netip.MustParseAddrPort("127.0.0.1:9")).Write([]byte("late"))
	s.Flush()
	if n := in.Stats().Drops[DropClosed]; n != 1 {
		t.Fatalf("%d drops after Close, want 1", n)
	}
}

func TestUnreachableIsDroppedAndOthersArrive(t *testing.T) {
	t.Parallel()
	out := listen(t, Config{Addr: "127.0.0.1:0"})
	sock, addr := receiver(t, "udp4", "127.0.0.1:0")
	s := out.NewSender()
	good := s.NewDest(addr)
	for _, bad := range []string{"[2001:db8::1]:9", "192.0.2.1:9", "0.0.0.0:0"} {
		s.NewDest(netip.MustParseAddrPort(bad)).Write([]byte("lost"))
		good.Write([]byte("kept"))
	}
	s.Flush()
	receive(t, sock, 3)
	var dropped uint64
	for _, n := range out.Stats().Drops {
		dropped += n
	}
	if dropped != 3 {
		t.Fatalf("drops %v, want 3 in all", out.Stats().Drops)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{Addr: "not an address"},
		{Addr: "127.0.0.1:0", MaxDatagram: 70000},
		{Addr: "127.0.0.1:0", MaxSegments: 65},
		{Addr: "127.0.0.1:0", ReadBuffer: -1},
	} {
		if c, err := Listen(cfg); err == nil {
			c.Close()
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
