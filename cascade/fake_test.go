package cascade

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

// fakeMedia is the media engine of a node in virtual time.
type fakeMedia struct {
	start time.Time
	calls chan func() // what the engine's own goroutine does
	pool  packet.Pool

	mu     sync.Mutex // guards the fields below and all tracks
	tracks map[string]*fakeTrack
	watch  []func()
}

func newFakeMedia() *fakeMedia {
	return &fakeMedia{start: time.Now(), calls: make(chan func(), 1000), tracks: map[string]*fakeTrack{}}
}

// run is the goroutine of observers.
func (f *fakeMedia) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case call := <-f.calls:
			call()
		}
	}
}

func (f *fakeMedia) post(call func()) {
	select {
	case f.calls <- call:
	default:
		panic("the engine's queue is full")
	}
}

func (f *fakeMedia) Now() int64 { return int64(time.Since(f.start)) + 1 }
func (f *fakeMedia) Flush()     {}

func (f *fakeMedia) Track(_, id string) (MediaTrack, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.tracks[id]
	return t, ok
}

func (f *fakeMedia) Watch(_ string, call func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = append(f.watch, call)
}

// changedLocked tells who watches.
func (f *fakeMedia) changedLocked() {
	for _, call := range f.watch {
		f.post(call)
	}
}

func (f *fakeMedia) track(id string) *fakeTrack {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tracks[id]
}

func (f *fakeMedia) AddRemote(_ string, cfg media.RemoteConfig, o media.RemoteObserver) (Remote, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tracks[cfg.ID] != nil {
		return nil, media.ErrTrackExists
	}
	t := &fakeTrack{f: f, id: cfg.ID, kind: cfg.Kind, observer: o, wants: map[any]int{}, viewers: -1, told: -1}
	f.tracks[cfg.ID] = t
	f.changedLocked()
	return t, nil
}

// publish makes a track of this node's own.
func (f *fakeMedia) publish(id string, kind codec.Kind, encodings int) *fakeTrack {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.tracks[id]; old != nil {
		old.closed = true
		for _, e := range old.encodings {
			e.rest()
		}
	}
	t := &fakeTrack{f: f, id: id, kind: kind, wants: map[any]int{}, viewers: -1, told: -1}
	for i := range encodings {
		e := t.encodingLocked(i)
		e.width = 320 << i
		e.codec = codec.ByPayloadType(96)
	}
	f.tracks[id] = t
	f.changedLocked()
	return t
}

// fakeTrack is an UpTrack, and a Remote if its publisher is elsewhere.
type fakeTrack struct {
	f         *fakeMedia
	id        string
	kind      codec.Kind
	observer  media.RemoteObserver // nil: the publisher is here
	encodings []*fakeEncoding
	wants     map[any]int
	quiet     atomic.Bool
	large     atomic.Bool
	viewers   int // what viewers here want
	told      int
	closed    bool
	infos     []media.EncodingInfo
	restarts  int
	reports   []packet.SenderReport
}

func (t *fakeTrack) Encodings() []Encoding {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	var out []Encoding
	for _, e := range t.encodings {
		out = append(out, e)
	}
	return out
}

func (t *fakeTrack) Quiet() bool { return t.quiet.Load() }

func (t *fakeTrack) Large() bool { return t.large.Load() }

func (t *fakeTrack) encodingLocked(i int) *fakeEncoding {
	for len(t.encodings) <= i {
		t.encodings = append(t.encodings, &fakeEncoding{t: t, index: len(t.encodings), packets: map[uint64]*packet.Packet{}})
	}
	return t.encodings[i]
}

func (t *fakeTrack) WantLayer(by any, n int) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if n < 0 {
		delete(t.wants, by)
	} else {
		t.wants[by] = n
	}
	t.interestLocked()
}

// show says what viewers here want; less counts after 2 s.
func (t *fakeTrack) show(n int) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if n >= t.viewers {
		t.viewers = n
		t.interestLocked()
		return
	}
	time.AfterFunc(2*time.Second, func() {
		t.f.mu.Lock()
		defer t.f.mu.Unlock()
		t.viewers = n
		t.interestLocked()
	})
}

func (t *fakeTrack) interestLocked() {
	n := t.viewers
	for _, w := range t.wants {
		n = max(n, w)
	}
	if n == t.told {
		return
	}
	t.told = n
	for i, e := range t.encodings {
		if i > n {
			e.rest()
		}
	}
	if t.observer != nil {
		t.f.post(func() { t.observer.Interest(n) })
	}
}

func (t *fakeTrack) interest() int {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return t.told
}

func (t *fakeTrack) Write(i int, ext uint64, b []byte, arrival int64) bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	p := t.f.pool.Get()
	defer p.Release()
	if t.closed || p.ParseRelayed(b, ext) != nil {
		return false
	}
	p.ArrivalNS = arrival
	p.Keyframe = len(p.Payload) > 0 && p.Payload[0] == 'K'
	e := t.encodingLocked(i)
	if e.codec.Name == 0 {
		e.codec = codec.ByPayloadType(p.PayloadType)
		t.f.changedLocked()
	}
	return e.writeLocked(p)
}

func (t *fakeTrack) WriteReport(_ int, sr packet.SenderReport) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	t.reports = append(t.reports, sr)
}

func (t *fakeTrack) Describe(infos []media.EncodingInfo) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	before := len(t.encodings)
	t.infos = infos
	for i, info := range infos {
		t.encodingLocked(i).width = info.Width
		t.encodings[i].codec = info.Codec
	}
	if len(t.encodings) != before {
		t.f.changedLocked()
	}
}

func (t *fakeTrack) Restart(string) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	t.restarts++
	for _, e := range t.encodings {
		e.clear()
		e.generation++
	}
}

func (t *fakeTrack) Close() {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	t.closed = true
	for _, e := range t.encodings {
		e.rest()
	}
	if t.f.tracks[t.id] == t {
		delete(t.f.tracks, t.id)
		t.f.changedLocked()
	}
}

// arrived is a packet as it came to a node first.
type arrived struct {
	ext        uint64
	at, sent   time.Duration // by clocks that began together
	generation int
	key        bool
	rtp        string
}

// fakeEncoding is one stream. Guarded by the engine's mutex.
type fakeEncoding struct {
	t          *fakeTrack
	index      int
	width      int
	codec      codec.Codec
	sinks      []packet.Sink
	asked      time.Time
	wanted     bool // a keyframe, of a publisher here
	requests   int
	duplicates int
	generation int
	log        []arrived

	ring     sync.Mutex // guards the fields below; taken last
	packets  map[uint64]*packet.Packet
	highest  uint64
	keyframe uint64
}

const fakeRing = 512

func (e *fakeEncoding) writeLocked(p *packet.Packet) bool {
	if !e.put(p) {
		e.duplicates++
		return false
	}
	sent := time.Duration(0)
	if len(p.Payload) >= 17 {
		sent = time.Duration(binary.BigEndian.Uint64(p.Payload[9:]))
	}
	e.log = append(e.log, arrived{p.ExtSeq, time.Duration(e.t.f.Now()), sent, e.generation, p.Keyframe, string(p.AppendRelayed(nil))})
	for _, s := range e.sinks {
		s.WriteRTP(p)
	}
	return true
}

func (e *fakeEncoding) put(p *packet.Packet) bool {
	e.ring.Lock()
	defer e.ring.Unlock()
	if e.packets[p.ExtSeq] != nil || p.ExtSeq+fakeRing <= e.highest {
		return false
	}
	p.Retain()
	e.packets[p.ExtSeq] = p
	e.highest = max(e.highest, p.ExtSeq)
	if p.Keyframe {
		e.keyframe = max(e.keyframe, p.ExtSeq)
	}
	if old := e.packets[e.highest-fakeRing]; e.highest > fakeRing && old != nil {
		old.Release()
		delete(e.packets, e.highest-fakeRing)
	}
	return true
}

// rest forgets what was sent before nobody wanted it.
func (e *fakeEncoding) rest() {
	e.ring.Lock()
	defer e.ring.Unlock()
	for _, p := range e.packets {
		p.Release()
	}
	clear(e.packets)
	e.keyframe = 0
}

// clear also begins anew.
func (e *fakeEncoding) clear() {
	e.rest()
	e.ring.Lock()
	defer e.ring.Unlock()
	e.highest = 0
}

func (e *fakeEncoding) Attach(s packet.Sink) {
	e.t.f.mu.Lock()
	defer e.t.f.mu.Unlock()
	e.sinks = append(e.sinks, s)
}

func (e *fakeEncoding) Detach(s packet.Sink) {
	e.t.f.mu.Lock()
	defer e.t.f.mu.Unlock()
	e.sinks = slices.DeleteFunc(e.sinks, func(x packet.Sink) bool { return x == s })
}

func (e *fakeEncoding) RequestKeyframe() {
	e.t.f.mu.Lock()
	defer e.t.f.mu.Unlock()
	if time.Since(e.asked) < 200*time.Millisecond || e.t.closed {
		return
	}
	e.asked = time.Now()
	e.requests++
	e.wanted = true
	if o := e.t.observer; o != nil {
		e.t.f.post(func() { o.RequestKeyframe(e.index) })
	}
}

func (e *fakeEncoding) Packet(ext uint64) *packet.Packet {
	e.ring.Lock()
	defer e.ring.Unlock()
	p := e.packets[ext]
	if p != nil {
		p.Retain()
	}
	return p
}

func (e *fakeEncoding) Highest() uint64 {
	e.ring.Lock()
	defer e.ring.Unlock()
	return e.highest
}

func (e *fakeEncoding) StartFrom() (uint64, bool) {
	e.ring.Lock()
	defer e.ring.Unlock()
	return e.keyframe, e.keyframe != 0 && e.highest-e.keyframe < 96
}

func (e *fakeEncoding) Spatial() int { return e.index }
func (e *fakeEncoding) RID() string  { return string("abcd"[e.index]) }
func (e *fakeEncoding) Codec() codec.Codec {
	e.t.f.mu.Lock()
	defer e.t.f.mu.Unlock()
	return e.codec
}

func (e *fakeEncoding) Size() (int, int) { return e.width, e.width * 9 / 16 }

// history is what has arrived at a node of one encoding.
func (f *fakeMedia) history(id string, encoding int) []arrived {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tracks[id]
	if t == nil || len(t.encodings) <= encoding {
		return nil
	}
	return slices.Clone(t.encodings[encoding].log)
}

// release gives back all packets.
func (f *fakeMedia) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range slices.Collect(maps.Values(f.tracks)) {
		for _, e := range t.encodings {
			e.clear()
		}
	}
}
