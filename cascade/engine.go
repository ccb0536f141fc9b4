package cascade

import (
	"github.com/amphi-sfu/amphi/media"
)

// Engine makes a Media of the media engine.
func Engine(e *media.Engine) Media { return engine{e} }

type engine struct{ *media.Engine }

func (e engine) Track(room, id string) (MediaTrack, bool) {
	r, ok := e.LookupRouter(room) // a room without media gets no router by being asked about
	if !ok {
		return nil, false
	}
	u := r.UpTrack(id)
	if u == nil {
		return nil, false
	}
	return upTrack{u}, true
}

func (e engine) AddRemote(room string, cfg media.RemoteConfig, o media.RemoteObserver) (Remote, error) {
	r := e.Router(room)
	if r == nil {
		return nil, media.ErrClosed
	}
	m, err := r.AddRemote(cfg, o)
	if err != nil { // a nil *media.Remote is not a nil Remote
		return nil, err
	}
	return m, nil
}

func (e engine) Watch(room string, f func()) {
	if r := e.Router(room); r != nil {
		r.OnTracks(f)
	}
}

type upTrack struct{ *media.UpTrack }

func (t upTrack) Encodings() []Encoding {
	list := t.UpTrack.Encodings()
	out := make([]Encoding, len(list))
	for i, e := range list {
		out[i] = e
	}
	return out
}
