package room

import (
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"google.golang.org/protobuf/proto"
)

// Bounds of the tail: what is older is forgotten.
const (
	tailEvents = 4096
	tailBytes  = 4 << 20
)

// tail is the last events, without gaps, for clients and replicas that missed some.
type tail struct {
	// base is the number of the event before the first one kept.
	base  uint64
	kept  []tailEvent
	bytes int
}

type tailEvent struct {
	ev       *pb.Event
	audience Audience
	size     int
}

func newTail(base uint64) tail { return tail{base: base} }

func (t *tail) add(ev *pb.Event, a Audience) {
	e := tailEvent{ev: ev, audience: a, size: proto.Size(ev)}
	t.kept = append(t.kept, e)
	t.bytes += e.size
	drop := 0
	for len(t.kept)-drop > tailEvents || t.bytes > tailBytes && drop < len(t.kept)-1 {
		t.bytes -= t.kept[drop].size
		drop++
	}
	clear(t.kept[:drop])
	t.kept = t.kept[drop:]
	t.base += uint64(drop)
	if m := ev.GetChatModerated().GetAction(); m.GetHide() != 0 {
		t.hide(m.GetHide())
	}
}

// hide makes sure that a message that a moderator took back is not shown to those who come back.
func (t *tail) hide(seq uint64) {
	if i, ok := t.index(seq); ok && t.kept[i].ev.GetMessage() != nil {
		t.kept[i].audience = Audience{}
	}
}

func (t *tail) index(seq uint64) (int, bool) {
	if seq <= t.base || seq > t.base+uint64(len(t.kept)) {
		return 0, false
	}
	return int(seq - t.base - 1), true
}

func (t *tail) audience(seq uint64) (Audience, bool) {
	i, ok := t.index(seq)
	if !ok {
		return Audience{}, false
	}
	return t.kept[i].audience, true
}

func (t *tail) since(seq uint64) ([]*pb.Event, bool) {
	last := t.base + uint64(len(t.kept))
	if seq < t.base || seq > last {
		return nil, false
	}
	var evs []*pb.Event
	for _, e := range t.kept[seq-t.base:] {
		evs = append(evs, e.ev)
	}
	return evs, true
}
