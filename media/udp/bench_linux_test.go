package udp

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpuNS is the CPU time of this process, user and system, in nanoseconds.
func cpuNS(tb testing.TB) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// sinks are sockets nobody reads, with the smallest buffer: the kernel drops
// when they are full, so that what is measured is sending.
func sinks(b *testing.B, n int) []netip.AddrPort {
	addrs := make([]netip.AddrPort, n)
	for i := range addrs {
		sock, addr := receiver(b, "udp4", "127.0.0.1:0")
		if err := sock.SetReadBuffer(1); err != nil {
			b.Fatal(err)
		}
		addrs[i] = addr
	}
	return addrs
}

// BenchmarkSend is one arrival batch fanned out: to each of 50 destinations a
// frame of 7 packets. One operation is one packet.
func BenchmarkSend(b *testing.B) {
	const dests, frame = 50, 7
	equal := [frame]int{1122, 1122, 1122, 1122, 1122, 1122, 1122}
	// Sizes as browsers packetise: the frame is split evenly, so that packets
	// differ by a byte, the first ones being the shorter.
	even := [frame]int{1121, 1121, 1121, 1121, 1122, 1122, 1122}
	for _, bc := range []struct {
		name  string
		cfg   Config
		sizes [frame]int
	}{
		{"plain", Config{Plain: true}, equal},
		{"sendmmsg", Config{MaxSegments: 1}, equal},
		{"gso", Config{}, equal},
		{"gso-browser-sizes", Config{}, even},
	} {
		b.Run(bc.name, func(b *testing.B) {
			bc.cfg.Addr = "127.0.0.1:0"
			s := listen(b, bc.cfg).NewSender()
			var queues []*Dest
			for _, a := range sinks(b, dests) {
				queues = append(queues, s.NewDest(a))
			}
			pkt := rtp(1, 1, 1200)
			b.ReportAllocs()
			start, n := cpuNS(b), 0
			for b.Loop() {
				if n%(dests*frame) == 0 {
					for _, q := range queues {
						for _, size := range bc.sizes {
							q.Write(pkt[:size])
						}
					}
					s.Flush()
				}
				n++
			}
			b.ReportMetric(float64(cpuNS(b)-start)/float64(n), "cpu-ns/pkt")
			st := s.conn.Stats()
			b.ReportMetric(float64(st.SendDatagrams)/float64(st.SendMessages), "pkts/msg")
		})
	}
}

// BenchmarkSendAudio is one tick of several speakers: to each of 50 listeners
// some small packets of differing sizes and SSRCs. One operation is one packet.
func BenchmarkSendAudio(b *testing.B) {
	const dests = 50
	for _, speakers := range []int{1, 2, 6} {
		for _, bc := range []struct {
			name string
			cfg  Config
		}{{"sendmmsg", Config{MaxSegments: 1}}, {"gso", Config{}}} {
			b.Run(bc.name+"-speakers-"+strconv.Itoa(speakers), func(b *testing.B) {
				bc.cfg.Addr = "127.0.0.1:0"
				s := listen(b, bc.cfg).NewSender()
				var queues []*Dest
				for _, a := range sinks(b, dests) {
					queues = append(queues, s.NewDest(a))
				}
				var pkts [][]byte
				for i := range speakers {
					pkts = append(pkts, rtp(uint32(i), 1, 100+(i*37)%50))
				}
				b.ReportAllocs()
				start, n := cpuNS(b), 0
				for b.Loop() {
					if n%(dests*speakers) == 0 {
						for _, q := range queues {
							for _, p := range pkts {
								q.Write(p)
							}
						}
						s.Flush()
					}
					n++
				}
				b.ReportMetric(float64(cpuNS(b)-start)/float64(n), "cpu-ns/pkt")
			})
		}
	}
}

// BenchmarkRead compares one read per datagram with recvmmsg and with GRO. The
// CPU of sending is in the figure, the same in all three. One operation is one
// packet.
func BenchmarkRead(b *testing.B) {
	for _, bc := range []struct {
		name    string
		in, out Config
	}{
		{"plain", Config{Plain: true}, Config{MaxSegments: 1}},
		{"recvmmsg", Config{}, Config{MaxSegments: 1}},
		{"gro", Config{}, Config{}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			bc.in.Addr, bc.out.Addr = "127.0.0.1:0", "127.0.0.1:0"
			in, out := listen(b, bc.in), listen(b, bc.out)
			s, r := out.NewSender(), in.NewReader()
			d := s.NewDest(in.LocalAddr())
			pkt := rtp(1, 1, 1122)
			const batch = 64
			b.ReportAllocs()
			var reading int64
			n := 0
			for b.Loop() {
				if n%batch == 0 {
					for range batch {
						d.Write(pkt)
					}
					s.Flush()
					start := time.Now()
					for got := 0; got < batch; {
						dgs, err := r.ReadBatch()
						if err != nil {
							b.Fatal(err)
						}
						got += len(dgs)
					}
					reading += int64(time.Since(start))
				}
				n++
			}
			b.ReportMetric(float64(reading)/float64(n), "read-ns/pkt")
		})
	}
}
