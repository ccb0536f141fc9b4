package media

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// TestFramesLeaveInOneRun: packets of one frame that differ by a byte or a few get one size by
// padding, so that they are one message to the kernel, and what a client makes of them is the same.
func TestFramesLeaveInOneRun(t *testing.T) {
	f := newPath(t, 1)
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	w := f.e.workers[0]
	var o *outbound
	for o = range w.endpoints {
		o.setPath(&path{addr: netip.MustParseAddrPort(sock.LocalAddr().String())})
	}
	keys, err := srtp.CreateContext(make([]byte, 16), make([]byte, 12), srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		shorter  []int // by so many bytes
		once     bool
		messages uint64
	}{
		{"as browsers cut", []int{1, 1, 1, 1, 0, 0, 0}, true, 1},
		{"as others do", []int{0, 1, 0, 1, 0, 1, 1}, true, 1},
		{"the last is short", []int{3, 0, 8, 0, 0, 0, 500}, true, 1},
		{"too far apart", []int{padMost + 1, 0, 0, 0, 0, 0, 0}, true, 2},
		{"sent again as they were", []int{1, 1, 1, 1, 0, 0, 0}, false, 2},
	} {
		f.advance()
		var want [][]byte
		raw := f.raw
		f.raw = nil
		for i, b := range raw {
			b = b[:len(b)-c.shorter[i]]
			f.raw = append(f.raw, b)
			want = append(want, b[len(b)-400:])
		}
		rtxPT := o.tracks[0].wire.rtxPT
		if !c.once {
			o.tracks[0].wire.rtxPT = 0
		}
		before := f.e.Stats().Socket.SendMessages
		f.write()
		w.process()
		if got := f.e.Stats().Socket.SendMessages - before; got != c.messages {
			t.Errorf("%s: %d messages, want %d", c.name, got, c.messages)
		}
		f.raw = raw
		o.tracks[0].wire.rtxPT = rtxPT
		for i := range want {
			var pkt rtp.Packet
			if err := pkt.Unmarshal(open(t, sock, keys)); err != nil {
				t.Fatal(err)
			}
			if !bytes.HasSuffix(pkt.Payload, want[i]) {
				t.Errorf("%s: packet %d has another payload", c.name, i)
			}
			if padded := pkt.PaddingSize > 0; padded && (!c.once || i == len(want)-1) {
				t.Errorf("%s: packet %d has padding", c.name, i)
			}
		}
	}
}

// open reads one packet and decrypts it.
func open(t *testing.T, sock *net.UDPConn, keys *srtp.Context) []byte {
	t.Helper()
	buf := make([]byte, 2000)
	if err := sock.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := sock.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := keys.DecryptRTP(nil, buf[:n], nil)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// BenchmarkLevel is what a packet costs, send call included, of frames cut into packets that
// differ by a byte, with and without padding.
func BenchmarkLevel(b *testing.B) {
	const subscribers = 100
	for _, padded := range []bool{false, true} {
		b.Run(map[bool]string{false: "as-it-came", true: "padded"}[padded], func(b *testing.B) {
			f := newPath(b, subscribers)
			for i := range loadPackets / 2 {
				f.raw[i] = f.raw[i][:len(f.raw[i])-1]
			}
			if !padded {
				for o := range f.e.workers[0].endpoints {
					o.tracks[0].wire.rtxPT = 0
				}
			}
			before := cpuTime(b)
			for b.Loop() {
				f.advance()
				f.write()
				f.e.workers[0].process()
			}
			after := cpuTime(b)
			spent := after[0] + after[1] - before[0] - before[1]
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*loadPackets*subscribers), "cpu-ns/packet")
		})
	}
}
