package media

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/meter"
)

// ErrTrackExists is returned for a track id that another track of the room has.
var ErrTrackExists = errors.New("track id is in use")

// Router is the UpTracks and endpoints of one room on this node. Its methods are
// safe for concurrent use.
type Router struct {
	e    *Engine
	room string

	mu        sync.Mutex // guards the fields below; taken before an UpTrack's, after an Endpoint's
	tracks    map[string]*UpTrack
	endpoints map[*Endpoint]struct{}
	onTracks  []func()
	speakers  speakerWatch
	listeners atomic.Int32 // slots and sinks that take audio of the room
	beats     meter.Beats  // of its microphones
	closed    bool
}

func newRouter(e *Engine, room string) *Router {
	return &Router{e: e, room: room, tracks: map[string]*UpTrack{}, endpoints: map[*Endpoint]struct{}{}}
}

// Room is the name the router was made for.
func (r *Router) Room() string { return r.room }

// Close closes the endpoints and tracks of the room.
func (r *Router) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	endpoints := slices.Collect(maps.Keys(r.endpoints))
	r.mu.Unlock()
	r.e.removeRouter(r)
	var wg sync.WaitGroup
	for _, ep := range endpoints {
		wg.Go(func() { ep.Close() })
	}
	wg.Wait()
	for _, u := range r.UpTracks() {
		u.close()
	}
	return nil
}

// UpTrack returns a track by its id, nil when there is none.
func (r *Router) UpTrack(id string) *UpTrack {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tracks[id]
}

// UpTracks returns all tracks, by id.
func (r *Router) UpTracks() []*UpTrack {
	r.mu.Lock()
	defer r.mu.Unlock()
	tracks := slices.Collect(maps.Values(r.tracks))
	slices.SortFunc(tracks, func(a, b *UpTrack) int { return compareStrings(a.id, b.id) })
	return tracks
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// OnTracks adds a function that is called after UpTracks came or went, and after a
// new encoding of one appeared, on a goroutine of the engine; it must not block.
func (r *Router) OnTracks(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onTracks = append(r.onTracks, f)
}

// addTrack makes an UpTrack. origin groups the tracks of one publisher. A publisher that comes to this
// node takes the place of what came of its track from another one.
func (r *Router) addTrack(id string, kind codec.Kind, source, origin string) (*UpTrack, error) {
	u, old, err := r.replaceTrack(newUpTrack(r, id, kind, source, origin))
	if err != nil {
		return nil, fmt.Errorf("adding track %q: %w", id, err)
	}
	if old != nil {
		old.close()
	}
	r.tracksChanged()
	return u, nil
}

// replaceTrack makes a track the one with its id, unless there is one that has to stay.
func (r *Router) replaceTrack(u *UpTrack) (added, old *UpTrack, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, ErrClosed
	}
	if old = r.tracks[u.id]; old != nil && (u.remote || !old.remote) {
		return nil, nil, ErrTrackExists
	}
	r.tracks[u.id] = u
	return u, old, nil
}

func (r *Router) removeTrack(u *UpTrack) {
	r.mu.Lock()
	if r.tracks[u.id] == u {
		delete(r.tracks, u.id)
	}
	r.mu.Unlock()
	r.tracksChanged()
}

// tracksChanged lets subscriptions that wait for a track find it.
func (r *Router) tracksChanged() {
	r.mu.Lock()
	endpoints := slices.Collect(maps.Keys(r.endpoints))
	calls := slices.Clone(r.onTracks)
	r.mu.Unlock()
	r.e.notify.post(func() {
		for _, ep := range endpoints {
			ep.reconcile()
		}
		for _, f := range calls {
			f()
		}
	})
}

func (r *Router) addEndpoint(ep *Endpoint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.endpoints[ep] = struct{}{}
	return nil
}

func (r *Router) removeEndpoint(ep *Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.endpoints, ep)
}
