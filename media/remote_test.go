package media

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/reception"
)

// bridge carries a track of one engine to another, as cascade does.
type bridge struct {
	from      *UpTrack
	to        *Remote
	mu        sync.Mutex // guards the fields below
	interest  []int
	keyframes int
	pipes     []*pipe
}

// pipe carries one encoding.
type pipe struct {
	b     *bridge
	index int
	sent  atomic.Int64
	// What follows is guarded by the encoding's mutex. last is the highest number that was sent.
	buf  []byte
	last uint64
}

// WriteRTP sends what came while the pipe was not attached first, as cascade does.
func (p *pipe) WriteRTP(pkt *packet.Packet) {
	for ext := p.last + 1; p.last != 0 && ext < pkt.ExtSeq; ext++ {
		if missed := p.b.from.Encodings()[p.index].Packet(ext); missed != nil {
			p.write(missed)
			missed.Release()
		}
	}
	p.last = max(p.last, pkt.ExtSeq)
	p.write(pkt)
}

func (p *pipe) write(pkt *packet.Packet) {
	p.sent.Add(1)
	p.buf = pkt.AppendRelayed(p.buf[:0])
	e := p.b.to.track.router.e
	p.b.to.Write(p.index, pkt.ExtSeq, p.buf, e.Now())
	e.Flush()
}

func (p *pipe) WritePadding(pkt *packet.Packet) { p.WriteRTP(pkt) }

func (p *pipe) WriteSenderReport(sr packet.SenderReport) { p.b.to.WriteReport(p.index, sr) }

func newBridge(t testing.TB, from *UpTrack, to *Router) *bridge {
	t.Helper()
	b := &bridge{from: from}
	for i := range maxEncodings {
		b.pipes = append(b.pipes, &pipe{b: b, index: i})
	}
	var err error
	if b.to, err = to.AddRemote(RemoteConfig{ID: from.ID(), Source: from.Source(), Origin: from.Origin(), Kind: from.Kind(), Home: "a"}, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bridge) Interest(n int) {
	b.mu.Lock()
	b.interest = append(b.interest, n)
	b.mu.Unlock()
	b.from.WantLayer(b, n)
	for _, enc := range b.from.Encodings() {
		if enc.Spatial() <= n {
			enc.Attach(b.pipes[enc.Spatial()])
		} else {
			enc.Detach(b.pipes[enc.Spatial()])
		}
	}
}

func (b *bridge) RequestKeyframe(i int) {
	b.mu.Lock()
	b.keyframes++
	b.mu.Unlock()
	b.from.Encodings()[i].RequestKeyframe()
}

func (b *bridge) wanted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.interest) == 0 {
		return -1
	}
	return b.interest[len(b.interest)-1]
}

func TestRemoteTrackIsLikeAnyOther(t *testing.T) {
	t.Parallel()
	home, edge := startEngine(t, Config{}), startEngine(t, Config{})
	p, sources := publishSimulcast(t, home.Router("room"), "cam")
	sendWanted(t, p, "cam", sources)
	eventually(t, "all is there at first", func() bool { return len(home.Router("room").UpTrack("cam").Encodings()) == 3 })
	cam := home.Router("room").UpTrack("cam")
	eventually(t, "sizes are known", func() bool { w, _ := cam.Encodings()[2].Size(); return w == 1280 })
	b := newBridge(t, cam, edge.Router("room"))
	var infos []EncodingInfo
	for _, enc := range cam.Encodings() {
		w, h := enc.Size()
		infos = append(infos, EncodingInfo{RID: enc.RID(), Codec: enc.Codec(), Width: w, Height: h})
	}
	b.to.Describe(infos)
	eventually(t, "without viewers nothing is sent", func() bool { return p.observer.interested("cam") == -1 })

	c := newClient(t, edge.Router("room"), "viewer", clientOptions{plain: true})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	c.connected()
	rec := c.section("0")
	show := func(w, h int) {
		c.ep.Subscribe([]Subscription{{TrackID: "cam", MaxWidth: w, MaxHeight: h, MaxSpatial: -1}})
	}
	show(320, 180)
	eventually(t, "the small picture comes", func() bool { return rec.count() > 20 && currentSpatial(c, 0)() })
	if b.pipes[1].sent.Load()+b.pipes[2].sent.Load() != 0 || b.wanted() != 0 {
		t.Errorf("encodings came that nobody wants: up to %d", b.wanted())
	}
	show(1280, 720)
	within(t, time.Second, "the large one comes", currentSpatial(c, 2))
	if !b.to.UpTrack().Large() || cam.Large() {
		t.Error("it is not shown large, or at home")
	}
	show(0, 0)
	within(t, 3*time.Second, "hidden, all stops", func() bool { return p.observer.interested("cam") == -1 })
	if w := home.Router("room").UpTrack("cam").Stats().Wanted; w != -1 {
		t.Errorf("the home still has %d sent", w)
	}
	show(320, 180)
	eventually(t, "it is not shown large", func() bool { return !b.to.UpTrack().Large() })
	before := rec.count()
	within(t, time.Second, "it is back", func() bool { return rec.count() > before })
	eventually(t, "nothing is missing", func() bool { return complete(rec.all()) })
	continuous(t, rec.all())
	checkVP8(t, rec.all())
	b.to.Close()
	eventually(t, "it ends", func() bool { return edge.Router("room").UpTrack("cam") == nil && len(edge.remotes.list()) == 0 })
}

// complete says that no sequence number between others is missing; one that was lost is on its way.
func complete(packets []*rtp.Packet) bool {
	seen, low, high := map[int16]bool{}, int16(0), int16(0)
	for _, p := range packets {
		d := int16(p.SequenceNumber - packets[0].SequenceNumber)
		seen[d] = true
		low, high = min(low, d), max(high, d)
	}
	return len(seen) == int(high-low)+1
}

// vp8Feed makes packets of a home, and writes them to a remote track.
type vp8Feed struct {
	src  *vp8Source
	sent [][]byte
	exts []uint64
}

func newVP8Feed(ext uint64) *vp8Feed {
	f := &vp8Feed{}
	f.src = newVP8Source(func(p *rtp.Packet) error {
		q := packet.Packet{
			ExtSeq: ext, Timestamp: p.Timestamp, SSRC: p.SSRC, PayloadType: 96, Marker: p.Marker,
			AudioLevel: packet.NoAudioLevel, Payload: p.Payload,
		}
		f.sent, f.exts = append(f.sent, q.AppendRelayed(nil)), append(f.exts, ext)
		ext++
		return nil
	})
	return f
}

// write gives a frame to the track and says how many packets were taken.
func (f *vp8Feed) write(t testing.TB, m *Remote) (n int) {
	f.sent, f.exts = nil, nil
	f.src.frame(t)
	return f.again(m)
}

func (f *vp8Feed) again(m *Remote) (n int) {
	e := m.track.router.e
	for i, b := range f.sent {
		if m.Write(0, f.exts[i], b, e.Now()) {
			n++
		}
	}
	e.Flush()
	return n
}

func addRemote(t testing.TB, e *Engine, kind codec.Kind) *Remote {
	t.Helper()
	m, err := e.Router("room").AddRemote(RemoteConfig{ID: "cam", Source: "camera", Origin: "publisher", Kind: kind, Home: "a"}, &bridge{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRemoteRestartsAtAKeyframe(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	m, err := e.Router("room").AddRemote(RemoteConfig{ID: "cam", Kind: codec.Video, Home: "a"}, nothing{})
	if err != nil {
		t.Fatal(err)
	}
	first := newVP8Feed(1 << 40)
	c := newClient(t, e.Router("room"), "viewer", clientOptions{plain: true})
	c.recvOnly(0, 1)
	subscribeAll(c.ep, "cam")
	c.negotiate(nil)
	c.connected()
	rec := c.section("0")
	var feed atomic.Pointer[vp8Feed]
	feed.Store(first)
	turn := make(chan func(), 1)
	every(t, 20*time.Millisecond, func() {
		select {
		case f := <-turn:
			f()
		default:
			feed.Load().write(t, m)
		}
	})
	eventually(t, "video comes", func() bool { return rec.count() > 30 })
	var at uint32
	turn <- func() {
		m.Restart("b")
		next := newVP8Feed(70_000) // numbers below, another clock
		next.src.ts, next.src.picture, next.src.seq = 77, 5, 70_000&0xffff
		next.src.keyframe.Store(false)
		next.write(t, m) // what is not a keyframe is of no use
		next.write(t, m)
		next.src.keyframe.Store(true)
		at = next.src.ts
		feed.Store(next)
	}
	before := rec.count()
	eventually(t, "the next generation comes", func() bool { return rec.count() > before+60 })
	continuous(t, rec.all())
	checkVP8(t, rec.all())
	enc := m.track.at(0)
	if h := enc.ring.Highest(); h>>generationShift != 1 || at == 0 || enc.Highest() != h&wireSeqs || enc.Packet(enc.Highest()-1) == nil {
		t.Errorf("number %d of generation %d", enc.Highest(), h>>generationShift)
	}
}

// nothing ignores what is wanted.
type nothing struct{}

func (nothing) Interest(int)        {}
func (nothing) RequestKeyframe(int) {}

func TestRemoteRefuses(t *testing.T) {
	t.Parallel()
	e, err := New(Config{UDPAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m := addRemote(t, e, codec.Video)
	f := newVP8Feed(1000)
	if n := f.write(t, m); n != 3 {
		t.Fatalf("%d packets of 3 taken", n)
	}
	if n := f.again(m); n != 0 {
		t.Errorf("%d duplicates taken", n)
	}
	good := f.sent[0]
	opus := packet.Packet{ExtSeq: 1003, PayloadType: 111, AudioLevel: 3, Payload: []byte{1}}
	strange := packet.Packet{ExtSeq: 1003, PayloadType: 1, AudioLevel: packet.NoAudioLevel, Payload: []byte{1}}
	for name, w := range map[string]struct {
		encoding int
		ext      uint64
		b        []byte
	}{
		"below the first encoding": {-1, 1000, good}, "a million layers": {1_000_000, 1000, good},
		"a number beyond the wire's": {0, 1<<48 | 1000, good}, "another number": {0, 1001, good},
		"nothing": {0, 1003, nil}, "audio": {0, 1003, opus.AppendRelayed(nil)}, "no codec of ours": {0, 1003, strange.AppendRelayed(nil)},
		"more than a packet": {0, 1003, make([]byte, 2000)}, "long ago": {0, 400, slices.Concat([]byte{0x80, 96, 400 >> 8, 400 & 255}, good[4:])},
	} {
		if m.Write(w.encoding, w.ext, w.b, e.Now()) {
			t.Errorf("%s: taken", name)
		}
	}
	m.WriteReport(7, packet.SenderReport{NTP: 1})
	m.WriteReport(0, packet.SenderReport{})
	if _, err := e.Router("room").AddRemote(RemoteConfig{ID: "cam", Kind: codec.Video}, nothing{}); err == nil {
		t.Error("two tracks of one id")
	}
	if n := f.write(t, m); n != 3 {
		t.Errorf("afterwards %d packets of 3 are taken", n)
	}
	m.Close()
	if n := f.write(t, m); n != 0 {
		t.Errorf("%d packets taken of a track that is closed", n)
	}
	if n := e.pool.Live(); n != 0 {
		t.Errorf("%d packets are kept", n)
	}
}

func TestReportsOfAHomeShareItsClock(t *testing.T) {
	t.Parallel()
	e, err := New(Config{UDPAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m := addRemote(t, e, codec.Video)
	newVP8Feed(1000).write(t, m)
	other, err := e.Router("room").AddRemote(RemoteConfig{ID: "screen", Kind: codec.Video, Home: "a"}, nothing{})
	if err != nil {
		t.Fatal(err)
	}
	newVP8Feed(5000).write(t, other)
	// The home's clock is a day ahead.
	at := reception.NTP(time.Now().Add(24 * time.Hour))
	m.WriteReport(0, packet.SenderReport{NTP: at, RTP: 1 << 31})
	other.WriteReport(0, packet.SenderReport{NTP: at + 1<<31, RTP: 1 << 31}) // half a second later
	a, b := m.track.at(0).SenderReport(), other.track.at(0).SenderReport()
	if b.NTP-a.NTP != 1<<31 {
		t.Errorf("half a second became %v", time.Duration(reception.Between(b.NTP, a.NTP)))
	}
	if off := reception.Between(a.NTP, reception.NTP(time.Now())); off > 0 || off < -int64(deadline) {
		t.Errorf("the report is %v off", time.Duration(off))
	}
}

func TestPublisherTakesItsTrackBack(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	m := addRemote(t, e, codec.Video)
	u, err := r.addTrack("cam", codec.Video, "camera", "publisher")
	if err != nil || r.UpTrack("cam") != u || !m.track.closed.Load() {
		t.Fatalf("the track is %v: %v", r.UpTrack("cam"), err)
	}
	if _, err := r.AddRemote(RemoteConfig{ID: "cam", Kind: codec.Video}, nothing{}); err == nil {
		t.Error("another node's takes the place of a publisher")
	}
	m.Close()
	if r.UpTrack("cam") != u {
		t.Error("the old one's end is the new one's")
	}
}

func TestWantedByAnotherNode(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	b := &bridge{}
	m, err := e.Router("room").AddRemote(RemoteConfig{ID: "cam", Kind: codec.Video}, &interestOnly{b})
	if err != nil {
		t.Fatal(err)
	}
	u := m.UpTrack()
	u.WantLayer("x", 1_000_000)
	within(t, 100*time.Millisecond, "at once", func() bool { return b.wanted() == 3 })
	u.WantLayer("y", 1)
	u.WantLayer("x", -1)
	within(t, 200*time.Millisecond, "the other's is left at once", func() bool { return b.wanted() == 1 })
	u.WantLayer("y", -1)
	within(t, 200*time.Millisecond, "nothing", func() bool { return b.wanted() == -1 })
}

// interestOnly notes interest.
type interestOnly struct{ b *bridge }

func (o *interestOnly) Interest(n int) {
	o.b.mu.Lock()
	defer o.b.mu.Unlock()
	o.b.interest = append(o.b.interest, n)
}

func (o *interestOnly) RequestKeyframe(int) {}

func TestRemoteWriteAllocatesNothing(t *testing.T) {
	e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m := addRemote(t, e, codec.Video)
	f := newVP8Feed(1000)
	for range 2 * videoRing / 3 {
		f.write(t, m)
	}
	ext := f.exts[0]
	b := f.sent[1]
	if n := testing.AllocsPerRun(500, func() {
		ext += 3
		b[2], b[3] = byte(ext>>8), byte(ext)
		if !m.Write(0, ext, b, e.Now()) {
			t.Fatal("not taken")
		}
	}); n != 0 && !raceDetector() {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkReceiveRemote is beside BenchmarkReceive, which takes a client's packet of 1 KB.
func BenchmarkReceiveRemote(b *testing.B) {
	e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	m := addRemote(b, e, codec.Video)
	f := newVP8Feed(1000)
	f.src.size = 1012
	f.write(b, m)
	ext, raw := f.exts[2], f.sent[1]
	b.ReportAllocs()
	for b.Loop() {
		ext++
		raw[2], raw[3] = byte(ext>>8), byte(ext)
		if !m.Write(0, ext, raw, e.now()) {
			b.Fatal("not taken")
		}
	}
}

// relaySink counts what a relay gets.
type relaySink struct {
	testSink
	padding atomic.Int64
}

func (s *relaySink) WritePadding(*packet.Packet) { s.padding.Add(1) }

func TestRelaysGetPaddingAndWantNothing(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	b := &bridge{}
	m, err := e.Router("room").AddRemote(RemoteConfig{ID: "cam", Kind: codec.Video, Home: "a"}, &interestOnly{b})
	if err != nil {
		t.Fatal(err)
	}
	f := newVP8Feed(1000)
	f.write(t, m)
	plain, relay := &testSink{}, &relaySink{}
	defer plain.release()
	defer relay.release()
	enc := m.UpTrack().Encodings()[0]
	enc.Attach(relay)
	padding := packet.Packet{ExtSeq: 1003, Timestamp: f.src.ts, PayloadType: 96, AudioLevel: packet.NoAudioLevel}
	if !m.Write(0, 1003, padding.AppendRelayed(nil), e.Now()) {
		t.Fatal("padding is not taken")
	}
	if n, _ := relay.counts(); n != 0 || relay.padding.Load() != 1 {
		t.Errorf("the relay has %d packets and %d of padding", n, relay.padding.Load())
	}
	m.UpTrack().WantLayer("x", 0)
	eventually(t, "another node's want is told", func() bool { return b.wanted() == 0 })
	m.UpTrack().WantLayer("x", -1)
	eventually(t, "a relay alone wants nothing", func() bool { return b.wanted() == -1 })
	enc.Attach(plain)
	eventually(t, "a sink wants the encoding", func() bool { return b.wanted() == 0 })
	padding.ExtSeq++
	m.Write(0, padding.ExtSeq, padding.AppendRelayed(nil), e.Now())
	if n, _ := plain.counts(); n != 0 || relay.padding.Load() != 2 {
		t.Errorf("a sink has %d packets of padding", n)
	}
}
