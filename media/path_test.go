package media

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/control"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/seal"
)

const pathFormat = "VP8/90000"

// pathFixture is the way of a packet from decryption to the send call, without clients: an
// engine that is not run, whose worker the test drives.
type pathFixture struct {
	e   *Engine
	enc *Encoding
	src *vp8Source
	raw [][]byte // one frame
}

func newPath(t testing.TB, subscribers int) *pathFixture {
	t.Helper()
	e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	addr := netip.MustParseAddrPort(sink.LocalAddr().String())
	r := e.Router("room")
	u, err := r.addTrack("cam", codec.Video, "cam", "origin")
	if err != nil {
		t.Fatal(err)
	}
	f := &pathFixture{e: e, enc: u.encoding(0, "", nobody{})}
	vp8, ok := codec.Match("VP8", 90000, "")
	if !ok {
		t.Fatal("no VP8")
	}
	formats := []negotiate.Format{{PayloadType: 96, Codec: vp8, RTPMap: pathFormat, RTX: 97, Feedback: negotiate.Feedback{NACK: true, TransportCC: true}}}
	for i := range subscribers {
		ep, err := r.NewEndpoint(EndpointConfig{ID: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		section := negotiate.Section{Mid: "0", Kind: codec.Video, Direction: negotiate.RecvOnly, Formats: formats}
		section.Extensions.TransportCC = 3
		ep.applySlots([]role{{section: &section, slot: true}})
		subscribeAll(ep, "cam")
		sealer, err := seal.New(srtp.ProtectionProfileAeadAes128Gcm, make([]byte, 16), make([]byte, 12))
		if err != nil {
			t.Fatal(err)
		}
		ep.out.w.post(func() {
			ep.out.bw.estimator = nil // unlimited
			ep.out.setKeys(sealer)
			ep.out.setPath(&path{addr: addr})
		})
	}
	f.src = newVP8Source(func(p *rtp.Packet) error {
		raw, err := p.Marshal()
		f.raw = append(f.raw, raw)
		return err
	})
	f.src.perFrame, f.src.size = loadPackets, loadSize
	e.workers[0].process()
	f.frame(t)
	e.workers[0].post(func() {
		for o := range e.workers[0].endpoints {
			o.tick(f.e.now())
		}
	})
	e.workers[0].process()
	return f
}

type nobody struct{}

func (nobody) requestKeyframe(*Encoding) {}

// frame takes the next frame through the engine.
func (f *pathFixture) frame(t testing.TB) {
	f.raw = f.raw[:0]
	f.src.frame(t)
	f.write()
	f.e.workers[0].process()
}

// write takes the packets of the frame as if they had just been decrypted.
func (f *pathFixture) write() {
	for _, raw := range f.raw {
		f.writeOne(raw)
	}
}

// writeOne takes one of the packets.
func (f *pathFixture) writeOne(raw []byte) {
	h, err := packet.ParseHeader(raw)
	if err != nil {
		return
	}
	p := f.e.pool.Get()
	defer p.Release()
	p.Payload, _ = h.Body(p.Buffer()[:copy(p.Buffer(), raw)])
	p.Timestamp, p.Marker, p.ArrivalNS, p.SSRC = h.Timestamp, h.Marker, f.e.now(), h.SSRC
	f.enc.write(p, h.SequenceNumber, codec.ByPayloadType(96), false)
}

// advance makes the frame in raw the next one, without allocating.
func (f *pathFixture) advance() {
	for _, raw := range f.raw {
		s := uint16(raw[2])<<8 | uint16(raw[3])
		s += uint16(len(f.raw))
		raw[2], raw[3] = byte(s>>8), byte(s)
		raw[6] += 0x10
	}
}

// raceDetector says that the test was built with -race, under which pools lose packets.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

func TestForwardingAllocatesNothing(t *testing.T) {
	f := newPath(t, 20)
	f.frame(t)
	for range 2 * videoRing / loadPackets { // until the ring gives back as many packets as it takes
		f.advance()
		f.write()
		f.e.workers[0].process()
	}
	sent := f.e.Stats().Socket.SendDatagrams
	const rounds = 200
	allocs := testing.AllocsPerRun(rounds, func() {
		f.advance()
		f.write()
		f.e.workers[0].process()
	})
	got := f.e.Stats().Socket.SendDatagrams - sent
	if want := uint64((rounds + 1) * loadPackets * 20); got != want {
		t.Fatalf("%d packets left, want %d", got, want)
	}
	if allocs != 0 && !raceDetector() {
		t.Fatalf("%v allocations for %d packets", allocs, loadPackets*20)
	}
}

func BenchmarkForward(b *testing.B) {
	for _, c := range []struct {
		name     string
		n, rooms int
	}{{"1", 1, 0}, {"20", 20, 0}, {"100", 100, 0}, {"200", 200, 0}, {"1000", 1000, 0}, {"100-idle-rooms", 100, 1000}} {
		b.Run(c.name, func(b *testing.B) {
			n := c.n
			f := newPath(b, n)
			for i := range c.rooms {
				if _, err := f.e.Router(fmt.Sprintf("idle-%d", i)).NewEndpoint(EndpointConfig{ID: "alone"}); err != nil {
					b.Fatal(err)
				}
			}
			f.e.workers[0].process()
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				f.advance()
				f.write()
				f.e.workers[0].process()
			}
			after := cpuTime(b)
			spent := after[0] + after[1] - before[0] - before[1]
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*loadPackets*n), "cpu-ns/packet")
		})
	}
}

func FuzzRTCP(f *testing.F) {
	for _, p := range []rtcp.Packet{
		&rtcp.SenderReport{SSRC: 1, NTPTime: 2, RTPTime: 3, Reports: []rtcp.ReceptionReport{{SSRC: 4}}},
		&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 4, LastSenderReport: 5, Delay: 6}}},
		&rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: 2, Nacks: []rtcp.NackPair{{PacketID: 7, LostPackets: 0xffff}}},
		&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: 2},
		&rtcp.FullIntraRequest{SenderSSRC: 1, MediaSSRC: 2, FIR: []rtcp.FIREntry{{SSRC: 2}}},
		&rtcp.TransportLayerCC{Header: rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5}, PacketStatusCount: 1,
			PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: 1, RunLength: 1}}, RecvDeltas: []*rtcp.RecvDelta{{Type: 1}}},
	} {
		raw, err := p.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	path := newPath(f, 1)
	var o *outbound
	for o = range path.e.workers[0].endpoints {
		o.bw.enable()
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if control.Check(b) != nil {
			return
		}
		// The SSRC that feedback is about is ours, so that it is acted upon.
		for rest := b; len(rest) > 0; {
			var p control.Packet
			p, rest, _ = control.Next(rest)
			switch p.Kind() {
			case control.NACK, control.PLI:
				binary.BigEndian.PutUint32(p[8:], o.tracks[0].wire.ssrc)
			case control.ReceiverReport:
				if p.Reports() > 0 {
					binary.BigEndian.PutUint32(p[8:], o.tracks[0].wire.ssrc)
				}
			}
		}
		o.control(b, path.e.now())
		o.w.sender.Flush()
	})
}
