package signal

import (
	"slices"
	"sync"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/outbox"
	"github.com/amphi-sfu/amphi/signal/room"
)

// StageView is who publishes what in a room now. It never changes and may be kept.
type StageView struct {
	Room      string
	SessionID string
	// Peers that publish, by time of joining.
	Peers []*amphiv1.Peer
	// Streams that were asked for.
	Streams []*amphiv1.Stream
	// Speakers, loudest first.
	Speakers []*amphiv1.Speaker
	Template *amphiv1.Template
}

// stages keeps the newest view of each room's stage and tells those who watch.
type stages struct {
	mu       sync.Mutex // guards the fields below
	watchers []func(string, *StageView)
	views    map[string]*StageView
}

// Watch has f called with a room's stage on every change, and with nil when the room has closed on this node; at
// once for the rooms that are open. Calls for one room come one at a time and in order; f must not block. A view is
// that of this node: it holds the whole room's stage, but only the speakers whose tracks are on this node.
func (s *Server) Watch(f func(room string, v *StageView)) {
	s.stages.mu.Lock()
	s.stages.watchers = append(s.stages.watchers, f)
	s.stages.mu.Unlock()
	for _, name := range s.replicas.Names() {
		r, err := s.replicas.Open(name)
		if err != nil {
			return
		}
		// In the room's own turn, so that no older view comes after a newer one.
		_ = r.Do(func(*room.Replica) {
			if v := s.Stage(name); v != nil {
				f(name, v)
			}
		})
		r.Release()
	}
}

// Follow keeps a room open on this node until release is called, so that its stage can be watched and its tracks come here.
func (s *Server) Follow(room string) (release func(), err error) {
	r, err := s.replicas.Open(key(room))
	if err != nil {
		return nil, err
	}
	return r.Release, nil
}

// Stage is the newest view of a room's stage; nil where this node does not follow the room.
func (s *Server) Stage(room string) *StageView {
	s.stages.mu.Lock()
	defer s.stages.mu.Unlock()
	return s.stages.views[key(room)]
}

// update makes the view anew and tells the watchers, on the room's goroutine.
func (st *stages) update(e *edge) {
	v := &StageView{Room: e.room.Name(), SessionID: e.rep.SessionID(), Streams: e.rep.Streams(), Template: e.rep.Template(),
		Speakers: e.spoken(nil)}
	if e.rep.Ended() {
		v.Streams, v.Speakers = nil, nil
	} else {
		v.Peers = e.onStage()
	}
	st.tell(v.Room, v)
}

func (st *stages) drop(room string) { st.tell(room, nil) }

func (st *stages) tell(room string, v *StageView) {
	st.mu.Lock()
	if st.views == nil {
		st.views = map[string]*StageView{}
	}
	if v == nil {
		delete(st.views, room)
	} else {
		st.views[room] = v
	}
	watchers := st.watchers
	st.mu.Unlock()
	for _, f := range watchers {
		f(room, v)
	}
}

// spoken lists who speaks; with a filter, only on the tracks that pass it.
func (e *edge) spoken(pass func(trackID string, by *amphiv1.Peer) bool) []*amphiv1.Speaker {
	var out []*amphiv1.Speaker
	for _, s := range e.speakers {
		by, track := e.rep.Track(s.TrackID)
		if by == nil || track.GetMuted() || pass != nil && !pass(s.TrackID, by) {
			continue
		}
		out = append(out, &amphiv1.Speaker{PeerId: by.GetId(), TrackId: s.TrackID, Level: s.Level})
	}
	return out
}

// speaking takes what the media says about who speaks and tells it to those who may hear them.
func (e *edge) speaking(now []Speaking) {
	if e.rep == nil || slices.Equal(now, e.speakers) {
		return
	}
	e.speakers = now
	frames := map[string]*outbox.Frame{}
	for id, p := range e.peers {
		e.resubscribe(p)
		if p.conn == nil {
			continue
		}
		// Who hears whom follows from the role, but for one's own voice.
		role := e.rep.Peer(id).GetRole()
		own := len(e.rep.Peer(id).GetTracks()) > 0
		f, ok := frames[role]
		if own || !ok {
			f = e.speakersFor(id)
			if !own {
				frames[role] = f
			}
		}
		if f != nil {
			p.conn.Push(f)
		}
	}
	e.server.stages.update(e)
}

// speakersFor is the message with the speakers that a peer may hear, itself included; nil for a peer that hears
// nobody over WebRTC and does not speak.
func (e *edge) speakersFor(id string) *outbox.Frame {
	self := e.rep.Peer(id)
	hears := e.rep.RoleOf(id).GetSubscribe().GetDelivery() == amphiv1.Delivery_DELIVERY_WEBRTC
	if !hears && len(self.GetTracks()) == 0 {
		return nil
	}
	list := e.spoken(func(track string, by *amphiv1.Peer) bool {
		return by.GetId() == id || e.rep.MaySubscribe(id, track)
	})
	m := &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Speakers{Speakers: &amphiv1.Speakers{Speakers: list}}}
	return outbox.NewFrame(m)
}
