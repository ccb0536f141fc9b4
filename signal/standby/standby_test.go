package standby

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
	"github.com/amphi-sfu/amphi/signal/room"
)

// desk is a keeper with an owner that the test plays.
type desk struct {
	placed  *amphiv1.Placement
	keeper  *Keeper
	acks    []string
	changed func(string)
	failure error // of the directory
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	d := &desk{placed: &amphiv1.Placement{Node: "o", Standby: "s", Epoch: 3}}
	var err error
	if d.keeper, err = New(Config{Node: "s"}, d, d); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) Owner(string) (*amphiv1.Placement, error) { return d.placed, d.failure }
func (d *desk) Leased() bool                             { return true }
func (d *desk) Watch(f func(string))                     { d.changed = f }

func (d *desk) Send(node, _ string, msg []byte) error {
	m, err := exchange.Decode(msg)
	if err != nil {
		return err
	}
	line := fmt.Sprint(node, " ", m.GetStandbyAck().GetNumber())
	if m.GetStandbyAck().GetWantWhole() {
		line += " wants all"
	}
	d.acks = append(d.acks, line)
	return nil
}

// deliver answers how the update was acknowledged, or why not.
func (d *desk) deliver(from string, epoch uint64, u *amphiv1.StandbyUpdate) string {
	before := len(d.acks)
	err := d.keeper.Deliver(from, &amphiv1.RoomMessage{Room: "hall", Epoch: epoch, Body: &amphiv1.RoomMessage_StandbyUpdate{StandbyUpdate: u}})
	switch {
	case err != nil:
		return "refused"
	case len(d.acks) == before:
		return "nothing"
	}
	return d.acks[len(d.acks)-1]
}

// script is a session's updates: the whole, then each command's events.
func script(t testing.TB) (*room.State, []*amphiv1.StandbyUpdate) {
	t.Helper()
	now := time.UnixMilli(1_000_000)
	st := room.New(room.Config{Room: "hall", SessionID: "se_1", Now: now, Template: &amphiv1.Template{
		Roles: []*amphiv1.Role{{Name: "one", Permissions: &amphiv1.Permissions{SendBroadcast: true}}}}})
	list := []*amphiv1.StandbyUpdate{{Number: 1, Whole: true, State: st.Snapshot(), Epochs: []*amphiv1.EpochStart{{Epoch: 3}}}}
	res, events := st.Apply(now, room.Actor{Node: "a"}, &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Role: "one"}}})
	peer := res.GetJoin().GetPeer().GetId()
	list = append(list, &amphiv1.StandbyUpdate{Number: 2, Events: events, Seats: []*amphiv1.StandbySeat{{PeerId: peer, Node: "a", Connected: true}},
		Answers: []*amphiv1.StandbyAnswer{{Node: "a", Response: &amphiv1.RoomResponse{Id: 7, Seq: 2, Result: res}}}})
	for i := range 3 {
		_, events = st.Apply(now, room.Actor{PeerID: peer, Node: "a"}, &amphiv1.Command{Body: &amphiv1.Command_Send{Send: &amphiv1.SendMessage{Text: fmt.Sprint(i)}}})
		list = append(list, &amphiv1.StandbyUpdate{Number: uint64(3 + i), Events: events})
	}
	return st, list
}

func TestCopyIsWhatTheOwnerKnew(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	st, updates := script(t)
	for i, u := range updates {
		if got, want := d.deliver("o", 3, u), fmt.Sprint("o ", i+1); got != want {
			t.Errorf("update %d: %s", i+1, got)
		}
	}
	if !d.keeper.Holds("hall", 4) || d.keeper.Holds("hall", 3) {
		t.Error("which owners' copies are there is not known")
	}
	c := d.keeper.Seal("hall", 4)
	if diff := cmp.Diff(st.Snapshot(), c.State, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(c.Tail) != 5 || len(c.Answers) != 1 || len(c.Seats) != 1 || c.Epoch != 3 || len(c.Epochs) != 1 {
		t.Errorf("%+v", c)
	}
	// The owner before is not followed any more.
	if got := d.deliver("o", 3, &amphiv1.StandbyUpdate{Number: 6}); got != "refused" {
		t.Errorf("after the seal: %s", got)
	}
	if d.keeper.Seal("hall", 4) != nil {
		t.Error("the copy was handed out twice")
	}
	if s := d.keeper.Stats(); s.Updates != 5 || s.Wholes != 1 || s.Dropped["stale_epoch"] != 1 || s.Rooms != 0 {
		t.Errorf("%+v", s)
	}
}

func TestMissingAndRepeatedUpdates(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	_, updates := script(t)
	for i, step := range []struct {
		u    *amphiv1.StandbyUpdate
		want string
	}{
		{updates[1], "o 0 wants all"},
		{updates[0], "o 1"},
		{updates[2], "o 1 wants all"},
		{updates[1], "o 2"},
		{updates[1], "o 2"},
		{updates[2], "o 3"},
		// Events that do not follow.
		{&amphiv1.StandbyUpdate{Number: 4, Events: updates[4].GetEvents()}, "o 0 wants all"},
		{updates[3], "o 0 wants all"},
		{&amphiv1.StandbyUpdate{Number: 9, Whole: true}, "o 9"},
		{updates[3], "o 9"},
		// There is no session to add to.
		{&amphiv1.StandbyUpdate{Number: 10, Events: updates[3].GetEvents()}, "o 0 wants all"},
	} {
		if got := d.deliver("o", 3, step.u); got != step.want {
			t.Errorf("step %d: %s, not %s", i, got, step.want)
		}
	}
}

func TestOnlyTheOwnerIsFollowed(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	_, updates := script(t)
	if got := d.deliver("x", 3, updates[0]); got != "refused" {
		t.Errorf("of another node: %s", got)
	}
	if got := d.deliver("o", 2, updates[0]); got != "refused" {
		t.Errorf("of an older epoch: %s", got)
	}
	// The owner knows sooner than this node that it is one.
	if got := d.deliver("n", 4, updates[0]); got != "n 1" {
		t.Errorf("of a newer epoch: %s", got)
	}
	d.placed = &amphiv1.Placement{Node: "n", Standby: "other", Epoch: 4}
	if got := d.deliver("n", 4, updates[1]); got != "refused" {
		t.Errorf("not the standby any more: %s", got)
	}
	// What it had would miss what is decided from now on.
	d.keeper.sweep()
	if d.keeper.Holds("hall", 5) {
		t.Error("the copy of a room that has another standby was kept")
	}
	// The next owner is this node, with nothing: it asks others.
	if c := d.keeper.Seal("hall", 5); c != nil {
		t.Errorf("%+v", c)
	}
}

// A deleted room's copy is let go of; one of a room that the directory does not know yet, or says nothing about, is not.
func TestDeletedRoomIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		_, updates := script(t)
		for _, u := range updates {
			d.deliver("o", 3, u)
		}
		rooms := func(want int, after time.Duration, failure error) {
			t.Helper()
			d.failure = failure
			<-time.After(after)
			d.keeper.sweep()
			if got := len(d.keeper.rooms); got != want {
				t.Errorf("%d rooms, want %d", got, want)
			}
		}
		missing := proto.Errorf(proto.NotFound, "no such room")
		rooms(1, time.Second, missing)
		rooms(1, sweepEvery-1, missing)
		rooms(1, time.Second, nil)
		rooms(1, time.Second, missing)
		rooms(1, time.Hour, proto.Errorf(proto.Unavailable, "not now"))
		rooms(1, time.Second, missing)
		rooms(0, sweepEvery, missing)
		d.keeper.Seal("hall", 4) // nor does a seal stay
		rooms(1, time.Second, missing)
		rooms(0, sweepEvery, missing)
	})
}

// FuzzDeliver shows that no update, however odd, breaks the keeper.
func FuzzDeliver(f *testing.F) {
	_, updates := script(f)
	for _, u := range updates {
		b, err := exchange.Encode(&amphiv1.RoomMessage{Room: "hall", Epoch: 3, Body: &amphiv1.RoomMessage_StandbyUpdate{StandbyUpdate: u}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := exchange.Decode(b)
		if err != nil {
			return
		}
		d := newDesk(t)
		for _, u := range updates[:3] {
			d.deliver("o", 3, u)
		}
		// Refusals are as good as acknowledgements here.
		_ = d.keeper.Deliver("o", m)
		d.keeper.Seal(m.GetRoom(), m.GetEpoch()+1)
		d.keeper.sweep()
	})
}
