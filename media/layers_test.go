package media

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/media/alloc"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/descriptor/descriptortest"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/seal"
)

// layeredPath is the way of layered packets through one DownTrack to a client, that decrypts
// them. The engine is not run; the test drives the worker.
type layeredPath struct {
	e        *Engine
	track    *UpTrack
	sources  []*layeredSource
	dt       *DownTrack
	keys     *srtp.Context
	sink     *net.UDPConn
	received uint64
	now      int64
	asked    map[int8]bool
}

const descriptorID = 12

// layeredSource makes the packets of one encoding.
type layeredSource struct {
	enc     *Encoding
	stream  *descriptortest.Stream
	inspect codec.Inspector
	seq     uint64
	ts      uint32
}

// receive takes what has been sent since the last call.
func (f *layeredPath) receive(t failer) []*rtp.Packet {
	f.e.workers[0].sender.Flush()
	var got []*rtp.Packet
	buf := make([]byte, packet.MaxSize)
	for f.received < f.dt.counts.packets {
		if err := f.sink.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatalf("%v", err)
		}
		n, err := f.sink.Read(buf)
		if err != nil {
			t.Fatalf("after %d of %d packets: %v", f.received, f.dt.counts.packets, err)
		}
		if binary.BigEndian.Uint32(buf[8:]) != f.dt.wire.ssrc {
			continue // left by a check that failed
		}
		f.received++
		plain, err := f.keys.DecryptRTP(nil, buf[:n], nil)
		if err != nil {
			t.Fatalf("decrypting: %v", err)
		}
		p := &rtp.Packet{}
		if err := p.Unmarshal(plain); err != nil {
			t.Fatalf("reading: %v", err)
		}
		got = append(got, p)
	}
	return got
}

func (f *layeredPath) requestKeyframe(enc *Encoding) { f.asked[enc.index] = true }

// newLayeredEngine makes an engine that does not run, and a socket for what it sends.
func newLayeredEngine(t *testing.T) (*Engine, *net.UDPConn) {
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
	return e, sink
}

// newLayered makes a path for encodings of such modes.
func newLayered(t failer, e *Engine, sink *net.UDPConn, room string, modes []descriptortest.Mode) *layeredPath {
	f := &layeredPath{e: e, sink: sink, asked: map[int8]bool{}, now: 1}
	r := e.Router(room)
	must := func(err error) {
		if err != nil {
			t.Fatalf("%v", err)
		}
	}
	var err error
	f.track, err = r.addTrack("cam", codec.Video, "cam", "origin")
	must(err)
	for i, m := range modes {
		f.sources = append(f.sources, &layeredSource{
			enc: f.track.encoding(i, fmt.Sprint(i), f), stream: descriptortest.New(m, uint16(65500+i*100), uint8(i)), seq: uint64(65520 + i*9000),
			ts: -uint32(20000 * (i + 1)),
		})
	}
	ep, err := r.NewEndpoint(EndpointConfig{ID: "viewer"})
	must(err)
	av1, _ := codec.Match("AV1", 90000, "")
	section := negotiate.Section{Mid: "0", Kind: codec.Video, Direction: negotiate.RecvOnly, Formats: []negotiate.Format{
		{PayloadType: 45, Codec: av1, RTPMap: "AV1/90000", RTX: 46, Feedback: negotiate.Feedback{NACK: true}},
	}}
	section.Extensions.Descriptor = descriptorID
	ep.applySlots([]role{{section: &section, slot: true}})
	key, salt := make([]byte, 16), make([]byte, 12)
	sealer, err := seal.New(srtp.ProtectionProfileAeadAes128Gcm, key, salt)
	must(err)
	f.keys, err = srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes128Gcm)
	must(err)
	e.workers[0].process()
	f.dt = ep.out.tracks[0]
	f.dt.track = f.track
	ep.out.sealer, ep.out.dest = sealer, e.workers[0].sender.NewDest(netip.MustParseAddrPort(sink.LocalAddr().String()))
	return f
}

// aim makes the DownTrack want a layer; neither allocator nor worker run.
func (f *layeredPath) aim(l layer.Layer) {
	f.dt.share = alloc.Track{Target: l}
	f.dt.follow(f.now)
	f.e.workers[0].settle()
}

// picture makes the next picture of a source; lose says which packets never come.
func (f *layeredPath) picture(s *layeredSource, key bool, split func() int, lose func() bool) {
	f.now += 33e6
	s.ts += 3000
	frames := s.stream.Picture(key)
	av1, _ := codec.Match("AV1", 90000, "")
	for i, fr := range frames {
		n := split()
		for k := range n {
			s.seq++
			if !key && lose() {
				continue
			}
			p := f.e.pool.Get()
			raw := fr.Descriptor(k == 0, k == n-1, k == 0 && key && i == 0, false)
			p.Descriptor = p.Buffer()[1000 : 1000+copy(p.Buffer()[1000:], raw)]
			p.Payload = p.Buffer()[:copy(p.Buffer(), "payload")]
			p.Timestamp, p.ArrivalNS, p.Marker = s.ts, f.now, i == len(frames)-1 && k == n-1
			p.ExtSeq, p.PayloadType = s.seq, av1.PayloadType
			if s.inspect.Inspect(av1, p) == nil {
				s.enc.ring.Put(p)
				f.dt.write(s.enc, p, 0)
			}
			p.Release()
		}
	}
	f.e.workers[0].settle()
	f.dt.follow(f.now)
}

// failer is what tests of both kinds have.
type failer interface {
	Fatalf(format string, args ...any)
}

// receiver is a reference decoder's view of what arrives.
type receiver struct {
	state   descriptor.State
	frames  map[uint64]descriptor.Frame
	last    *rtp.Packet
	highest uint64
	ended   bool // the last packet ended a picture
	shown   int
}

// check reads what has come since the last call.
func (v *receiver) check(t failer, packets []*rtp.Packet, lossless bool) {
	if v.frames == nil {
		v.frames, v.ended = map[uint64]descriptor.Frame{}, true
	}
	for _, p := range packets {
		if v.last != nil {
			if p.SequenceNumber != v.last.SequenceNumber+1 && lossless {
				t.Fatalf("packet %d follows %d", p.SequenceNumber, v.last.SequenceNumber)
			}
			if d := int32(p.Timestamp - v.last.Timestamp); d < 0 || d == 0 && v.ended {
				t.Fatalf("timestamp %d follows %d, ended %v", p.Timestamp, v.last.Timestamp, v.ended)
			} else if d > 0 && !v.ended && lossless {
				t.Fatalf("timestamp %d follows %d, whose picture has no end", p.Timestamp, v.last.Timestamp)
			}
		}
		v.last, v.ended = p, p.Marker
		var f descriptor.Frame
		if err := v.state.Parse(p.GetExtension(descriptorID), &f); err != nil {
			t.Fatalf("packet %d: %v", p.SequenceNumber, err)
		}
		if f.Number < v.highest {
			t.Fatalf("frame %d after %d", f.Number, v.highest)
		}
		if f.Number == v.highest {
			continue
		}
		v.highest = f.Number
		if f.First && (f.Active == 0 || f.Active&f.Present == 0) { // only the first packet says which are
			t.Fatalf("frame %d is for targets %b of the active %b", f.Number, f.Present, f.Active)
		}
		for _, d := range f.Diffs[:f.Count] {
			if _, ok := v.frames[f.Number-uint64(d)]; !ok && lossless {
				t.Fatalf("frame %d (S%d T%d) needs %d, which did not come", f.Number, f.Spatial, f.Temporal, f.Number-uint64(d))
			}
		}
		v.frames[f.Number] = f
		v.shown++
	}
}

// TestLayersReachDecoder: whatever modes, encodings, targets, pauses and losses, what a client gets
// is a stream that a decoder takes: no gap, no number twice, nothing needed missing, time going
// on, pictures that end, and descriptors that say so.
func TestLayersReachDecoder(t *testing.T) {
	t.Parallel()
	e, sink := newLayeredEngine(t)
	room := 0
	rapid.Check(t, func(t *rapid.T) {
		modes := make([]descriptortest.Mode, rapid.IntRange(1, 3).Draw(t, "encodings"))
		for i := range modes {
			modes[i] = rapid.SampledFrom(descriptortest.Modes()).Draw(t, "mode")
		}
		room++
		f := newLayered(t, e, sink, fmt.Sprint(room), modes)
		lossless := rapid.Bool().Draw(t, "lossless")
		v := &receiver{}
		split := func() int { return rapid.IntRange(1, 3).Draw(t, "packets") }
		lose := func() bool { return !lossless && rapid.IntRange(0, 19).Draw(t, "lost") == 0 }
		for i := range rapid.IntRange(3, 60).Draw(t, "pictures") {
			if i == 0 || rapid.IntRange(0, 7).Draw(t, "retarget") == 0 {
				f.aim(layer.Layer{Spatial: int8(rapid.IntRange(-1, 3).Draw(t, "spatial")), Temporal: int8(rapid.IntRange(0, 3).Draw(t, "temporal"))})
			}
			for n, s := range f.sources {
				key := i == 0 || f.asked[int8(n)] && rapid.Bool().Draw(t, "answered")
				if key {
					f.asked[int8(n)] = false
				}
				f.picture(s, key, split, lose)
			}
			v.check(t, f.receive(t), lossless)
		}
		if n := f.e.drops[dropReuse].Load(); n != 0 {
			t.Fatalf("%d numbers used twice", n)
		}
	})
}

// TestEveryLayerOfEveryMode: each layer of each mode arrives as it is, down to what the descriptor
// says of the layers that are not sent.
func TestEveryLayerOfEveryMode(t *testing.T) {
	t.Parallel()
	e, sink := newLayeredEngine(t)
	for _, m := range descriptortest.Modes() {
		for n := range m.Spatial * m.Temporal {
			s, tm := n/m.Temporal, n%m.Temporal
			name := fmt.Sprintf("%v-S%dT%d", m, s, tm)
			f := newLayered(t, e, sink, name, []descriptortest.Mode{m})
			f.aim(layer.Layer{Spatial: int8(s), Temporal: int8(tm)})
			v := &receiver{}
			for i := range 13 {
				f.picture(f.sources[0], i == 0, func() int { return 2 }, func() bool { return false })
			}
			got := f.receive(t)
			v.check(t, got, true)
			st := v.state.Structure()
			if len(got) == 0 || st == nil {
				t.Fatalf("%s: nothing came", name)
			}
			if want := st.Contains[n]; v.state.Active() != want {
				t.Errorf("%s: active %b, want %b", name, v.state.Active(), want)
			}
			for _, fr := range v.frames {
				if int(fr.Spatial) > s || int(fr.Temporal) > tm {
					t.Errorf("%s: a frame of S%d T%d", name, fr.Spatial, fr.Temporal)
				}
			}
		}
	}
}

// TestDescribedAllocatesNothing: neither does what has a descriptor that is rewritten.
func TestDescribedAllocatesNothing(t *testing.T) {
	e, sink := newLayeredEngine(t)
	f := newLayered(t, e, sink, "room", []descriptortest.Mode{{Spatial: 1, Temporal: 2}})
	f.aim(layer.Layer{Spatial: 0, Temporal: 0})
	for i := range 4 {
		f.picture(f.sources[0], i == 0, func() int { return 1 }, func() bool { return false })
	}
	f.receive(t)
	s := f.sources[0]
	av1, _ := codec.Match("AV1", 90000, "")
	p := e.pool.Get()
	defer p.Release()
	p.Payload, p.PayloadType = p.Buffer()[:copy(p.Buffer(), "payload")], av1.PayloadType
	raws := [][]byte{s.stream.Picture(false)[0].Descriptor(true, true, false, false), s.stream.Picture(false)[0].Descriptor(true, true, false, false)}
	number := binary.BigEndian.Uint16(raws[0][1:])
	before := f.dt.counts.packets
	const rounds = 100
	allocs := testing.AllocsPerRun(rounds, func() {
		for _, raw := range raws {
			binary.BigEndian.PutUint16(raw[1:], number)
			number, s.seq, s.ts = number+1, s.seq+1, s.ts+3000
			p.Descriptor, p.ExtSeq, p.Timestamp = raw, s.seq, s.ts
			if err := s.inspect.Inspect(av1, p); err != nil {
				t.Fatal(err)
			}
			f.dt.write(s.enc, p, 0)
		}
		e.workers[0].sender.Flush()
	})
	if allocs != 0 && !raceDetector() {
		t.Fatalf("%v allocations", allocs)
	}
	if got := f.dt.counts.packets - before; got != rounds+1 {
		t.Fatalf("%d packets are sent, want %d", got, rounds+1)
	}
}
