package hls

import (
	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

// Source finds the tracks of a room on this node. Called often, from several
// goroutines; must not block.
type Source interface {
	Track(room, id string) (t Track, ok bool)
}

// Track is a published track: its encodings, low to high. The list grows as
// simulcast layers appear.
type Track interface {
	Encodings() []Encoding
	// Want says at which size by, any comparable value, uses the picture, so that an
	// encoding for it is sent; 0,0: not any more.
	Want(by any, width, height int)
}

// Encoding is one RTP stream of a track. *media.Encoding is one. Values are
// comparable, and the same stream is the same value.
type Encoding interface {
	Attach(s packet.Sink)
	// Detach returns when s is not called any more.
	Detach(s packet.Sink)
	RequestKeyframe()
	// Size is that of the newest keyframe, zero before the first.
	Size() (width, height int)
	// Codec is that of the newest packet, the zero value before the first.
	Codec() codec.Codec
}

// Engine makes a Source of the media engine.
func Engine(e *media.Engine) Source { return engine{e} }

type engine struct{ e *media.Engine }

func (s engine) Track(room, id string) (Track, bool) {
	r, ok := s.e.LookupRouter(room) // a room without media gets no router by being asked about
	if !ok {
		return nil, false
	}
	u := r.UpTrack(id)
	if u == nil {
		return nil, false
	}
	return upTrack{u}, true
}

type upTrack struct{ u *media.UpTrack }

func (t upTrack) Want(by any, width, height int) { t.u.Want(by, width, height) }

func (t upTrack) Encodings() []Encoding {
	list := t.u.Encodings()
	out := make([]Encoding, len(list))
	for i, e := range list {
		out[i] = e
	}
	return out
}
