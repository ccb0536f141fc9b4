package media

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/layer"
)

// UpTrack is a track arriving at this node. Its methods are safe for concurrent use.
type UpTrack struct {
	router *Router
	id     string
	kind   codec.Kind
	source string
	origin string
	muted  atomic.Bool
	closed atomic.Bool
	// quiet: a microphone that is not one of the loudest; only sinks get its packets.
	quiet  atomic.Bool
	remote bool // its publisher is at another node
	demand demand

	mu sync.Mutex // guards the field below
	// encodings has a place for every simulcast stream announced, low to high;
	// those that have not been heard of are nil.
	encodings [maxEncodings]*Encoding
}

func newUpTrack(r *Router, id string, kind codec.Kind, source, origin string) *UpTrack {
	u := &UpTrack{router: r, id: id, kind: kind, source: source, origin: origin}
	u.demand.init(r.e.now())
	return u
}

// ID is the track's id in its room.
func (u *UpTrack) ID() string { return u.id }

// Kind is audio or video.
func (u *UpTrack) Kind() codec.Kind { return u.kind }

// Source says what the track shows: mic, camera, screen, screen-audio, or the app's own word.
func (u *UpTrack) Source() string { return u.source }

// Origin is the id of the endpoint that publishes the track.
func (u *UpTrack) Origin() string { return u.origin }

// SetMuted makes the node drop what the publisher sends on this track.
func (u *UpTrack) SetMuted(muted bool) {
	if u.muted.Swap(muted) == muted {
		return
	}
	if muted {
		u.router.forgetSpeaker(u)
		u.interrupt()
		return
	}
	for _, enc := range u.Encodings() {
		enc.RequestKeyframe()
	}
}

// interrupt makes subscribers begin again with a keyframe, as what comes next cannot be
// decoded against what they have.
func (u *UpTrack) interrupt() {
	for _, enc := range u.Encodings() {
		enc.ring.Clear()
	}
	for _, w := range u.router.e.workers {
		w.post(func() {
			for o := range w.endpoints {
				for _, dt := range o.tracks {
					if dt.track == u {
						dt.sel.Reset()
					}
				}
			}
		})
	}
}

// Muted says whether SetMuted was called with true last.
func (u *UpTrack) Muted() bool { return u.muted.Load() }

// Encodings returns what has been heard of, low to high. It grows as simulcast
// layers appear.
func (u *UpTrack) Encodings() []*Encoding {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(u.encodings[:]), func(e *Encoding) bool { return e == nil })
}

// encoding returns the encoding at an index, making it on first use.
func (u *UpTrack) encoding(index int, rid string, up upstream) *Encoding {
	u.mu.Lock()
	if u.closed.Load() {
		u.mu.Unlock()
		return nil
	}
	enc := u.encodings[index]
	if enc != nil {
		u.mu.Unlock()
		return enc
	}
	enc = newEncoding(u, index, rid, up)
	u.encodings[index] = enc
	u.mu.Unlock()
	u.router.tracksChanged()
	return enc
}

// onlyLocked returns the encoding of a track that has no other: its spatial layers are the
// track's.
func (u *UpTrack) onlyLocked() *Encoding {
	if u.encodings[0] == nil {
		return nil
	}
	for _, e := range u.encodings[1:] {
		if e != nil {
			return nil
		}
	}
	return u.encodings[0]
}

// resolve finds the encoding that has a layer of the track, and which layer of it that is.
func (u *UpTrack) resolve(l layer.Layer) (*Encoding, layer.Layer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if only := u.onlyLocked(); only != nil && l.Spatial >= 0 {
		return only, l
	}
	if l.Spatial < 0 || l.Spatial >= maxEncodings {
		return nil, layer.None()
	}
	return u.encodings[l.Spatial], layer.Layer{Spatial: layer.Top, Temporal: l.Temporal}
}

// named is the reverse of resolve.
func (u *UpTrack) named(encoding int8, l layer.Layer) layer.Layer {
	u.mu.Lock()
	defer u.mu.Unlock()
	if encoding >= 0 && u.onlyLocked() == nil {
		l.Spatial = encoding
	}
	return l
}

// at returns the encoding at an index, nil when there is none.
func (u *UpTrack) at(index int8) *Encoding {
	if index < 0 || index >= maxEncodings {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.encodings[index]
}

// layersChanged makes the subscribers choose again: an encoding came, or its size is known.
func (u *UpTrack) layersChanged() {
	for _, w := range u.router.e.workers {
		w.post(func() {
			for o := range w.endpoints {
				if o.carries(u) {
					o.allocate(w.now)
				}
			}
		})
	}
}

// best returns the encoding to forward when index is wanted: the nearest one at or below
// that is being sent, else the lowest one that is.
func (u *UpTrack) best(index int8, now int64) *Encoding {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := min(index, maxEncodings-1); i >= 0; i-- {
		if e := u.encodings[i]; e != nil && e.live(now) {
			return e
		}
	}
	for i := max(index+1, 0); i < maxEncodings; i++ {
		if e := u.encodings[i]; e != nil && e.live(now) {
			return e
		}
	}
	return nil
}

// close ends the track: sinks get nothing more, subscribers let go of it.
func (u *UpTrack) close() {
	if u.closed.Swap(true) {
		return
	}
	for _, enc := range u.Encodings() {
		enc.close()
	}
	u.router.forgetSpeaker(u)
	u.router.removeTrack(u)
}
