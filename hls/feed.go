package hls

import (
	"slices"
	"sync"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

// feed brings one track to one input of the compositor: of several encodings the one
// that fits the tile. It changes over at a keyframe, so that the picture never breaks.
// All methods but those that say otherwise belong to the program's loop.
type feed struct {
	in    wire.AddInput
	track string
	to    compose.Composer
	video bool

	// What the loop remembers between steps.
	lower    int              // steps for which a lower encoding would have done
	silent   int              // steps without a packet of the current encoding
	waiting  int              // steps for which the next one has had no keyframe
	seen     uint64           // packets at the last step
	failed   map[Encoding]int // steps for which one that gave no keyframe is left alone
	attached []*tap
	of       Track // whose encodings they are; nil before the first step
	w, h     int   // of the tile

	mu      sync.Mutex // guards the fields below; taken inside an encoding's lock, never around it
	current *tap       // whose packets go on
	next    *tap       // who takes over at its next keyframe
	packets uint64     // that went on
}

// tap is the sink of one encoding.
type tap struct {
	f     *feed
	enc   Encoding
	heard bool // a packet has come; guarded by the feed's mu
}

// WriteRTP implements packet.Sink; any goroutine.
func (t *tap) WriteRTP(p *packet.Packet) {
	f := t.f
	f.mu.Lock()
	defer f.mu.Unlock()
	t.heard = true
	if f.next == t && (p.Keyframe || !f.video) {
		f.current, f.next = t, nil
	}
	if f.current == t {
		f.packets++
		// Inside the lock, so that no packet of the old encoding comes after the new one's.
		f.to.WriteRTP(f.in.ID, p)
	}
}

// WriteSenderReport implements packet.Sink; any goroutine.
func (t *tap) WriteSenderReport(sr packet.SenderReport) {
	f := t.f
	f.mu.Lock()
	defer f.mu.Unlock()
	// The next one's, too: the compositor then knows its clock from the first picture on.
	if f.current == t || f.next == t {
		f.to.WriteSenderReport(f.in.ID, sr)
	}
}

// Steps are the program loop's, stepEvery apart.
const (
	lowerAfter  = 10 // 2 s
	silentAfter = 8  // 1.6 s; screens may send one picture a second
	unheardFor  = 6  // 1.2 s without any packet
	giveUpAfter = 15 // 3 s without a keyframe
	failedFor   = 40 // 8 s
)

// enough is how much an encoding may be scaled up and still be the right one.
const enough = 1.18

// step chooses an encoding for a tile of w×h pixels (audio: 0×0) and brings about what
// is missing for it.
func (f *feed) step(t Track, w, h int) {
	f.of, f.w, f.h = t, w, h
	t.Want(f, w, h) // a track that took the place of one that is gone knows nothing of it
	list := t.Encodings()
	f.mu.Lock()
	current, next, packets := f.current, f.next, f.packets
	f.mu.Unlock()
	f.detachBut(current, next)
	for e, n := range f.failed {
		if f.failed[e] = n - 1; n <= 1 {
			delete(f.failed, e)
		}
	}
	f.silent++
	if packets != f.seen {
		f.seen, f.silent = packets, 0
	}
	if next != nil {
		f.wait(next)
		return
	}
	want := f.choose(list, current, w, h)
	if want == nil || current != nil && want == current.enc {
		f.lower = 0
		return
	}
	if current != nil && f.silent < silentAfter && slices.Index(list, want) < slices.Index(list, current.enc) {
		// Going down saves work and is in no hurry.
		if f.lower++; f.lower < lowerAfter {
			return
		}
	}
	f.lower, f.waiting = 0, 0
	n := &tap{f: f, enc: want}
	f.mu.Lock()
	f.next = n
	f.mu.Unlock()
	f.attached = append(f.attached, n)
	want.Attach(n)
	want.RequestKeyframe()
}

// wait asks again for the keyframe of the next encoding if that is being sent at all, and
// gives up in the end.
func (f *feed) wait(next *tap) {
	f.mu.Lock()
	heard := next.heard
	f.mu.Unlock()
	f.waiting++
	if f.waiting < unheardFor || heard && f.waiting < giveUpAfter {
		if heard && f.waiting%4 == 0 {
			next.enc.RequestKeyframe()
		}
		return
	}
	f.waiting = 0
	f.failed[next.enc] = failedFor
	f.mu.Lock()
	if f.next == next {
		f.next = nil
	}
	f.mu.Unlock()
}

// choose finds the smallest encoding that fills the tile, else the largest; one whose
// size is not known only when there is no other. One that is silent or gave no keyframe is
// passed over as long as there is another.
func (f *feed) choose(list []Encoding, current *tap, w, h int) Encoding {
	var best, unknown, passed Encoding
	for _, e := range list {
		if f.failed[e] > 0 || current != nil && current.enc == e && f.silent >= silentAfter {
			passed = e
			continue
		}
		ew, eh := e.Size()
		if ew == 0 || eh == 0 {
			unknown = e
			continue
		}
		best = e
		if float64(w) <= enough*float64(ew) && float64(h) <= enough*float64(eh) {
			break
		}
	}
	switch {
	case best != nil:
		return best
	case current != nil && f.silent < silentAfter:
		return current.enc // it works, whatever its size
	case unknown != nil:
		return unknown
	default:
		return passed
	}
}

// detachBut lets go of encodings that are no longer needed.
func (f *feed) detachBut(keep ...*tap) {
	f.attached = slices.DeleteFunc(f.attached, func(t *tap) bool {
		if slices.Contains(keep, t) {
			return false
		}
		t.enc.Detach(t)
		return true
	})
}

// close lets go of everything.
func (f *feed) close() {
	f.mu.Lock()
	f.current, f.next = nil, nil
	f.mu.Unlock()
	if f.of != nil {
		f.of.Want(f, 0, 0)
	}
	f.detachBut()
}

// requestKeyframe passes a request of the compositor on; any goroutine.
func (f *feed) requestKeyframe() {
	f.mu.Lock()
	t := f.current
	f.mu.Unlock()
	if t != nil {
		t.enc.RequestKeyframe()
	}
}

// formats are all payload types that may come, so that a change of codec needs no word.
func formats(kind codec.Kind) []wire.Format {
	names := map[codec.Name]wire.Codec{codec.Opus: wire.Opus, codec.VP8: wire.VP8, codec.H264: wire.H264, codec.VP9: wire.VP9, codec.AV1: wire.AV1}
	var out []wire.Format
	for _, c := range codec.Supported() {
		if name, ok := names[c.Name]; ok && c.Kind() == kind {
			out = append(out, wire.Format{PayloadType: c.PayloadType, Codec: name, ClockRate: c.ClockRate})
		}
	}
	return out
}
