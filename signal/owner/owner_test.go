package owner

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRequestIsExecutedOnce(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		peer := d.join("a")
		id := d.id()
		first := d.request("a", peer, id, say("once"))
		again := d.request("a", peer, id, say("once"))
		if first.GetResult().GetSend().GetId() == 0 || first.GetSeq() != again.GetSeq() || d.owner.Stats().Repeated != 1 {
			t.Errorf("%v, again %v", first, again)
		}
		// Long after, its answer is forgotten, but it is not executed again either.
		d.pass(40*time.Second, "a")
		d.request("a", peer, d.id(), say("another"))
		late := d.request("a", peer, id, say("once"))
		if late.GetResult().GetError().GetCode() != string(proto.Timeout) {
			t.Errorf("much later: %v", late)
		}
	})
}

func TestResponseComesAfterItsEvents(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		d.attach("b", 0)
		peer := d.join("a")
		d.nodes.take("b")
		err := d.deliver("a", &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Request{Request: &amphiv1.RoomRequest{Id: d.id(), PeerId: peer, Command: say("x")}}})
		if err != nil {
			t.Fatal(err)
		}
		got := d.nodes.take("a")
		if len(got) != 2 || got[0].GetEvents() == nil || got[1].GetResponse().GetSeq() != got[0].GetEvents().GetEvents()[0].GetSeq() {
			t.Errorf("a got %v", got)
		}
		if other := d.nodes.take("b"); len(other) != 1 || other[0].GetEvents().GetEvents()[0].GetMessage().GetText() != "x" {
			t.Errorf("b got %v", other)
		}
	})
}

func TestAttachIsAnsweredWithWhatIsMissing(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		if got := d.nodes.take("a"); len(got) != 1 || got[0].GetState().GetRoom() != "Hall" {
			t.Fatalf("first %v", got)
		}
		peer := d.join("a")
		for range 5 {
			d.request("a", peer, d.id(), say("x"))
		}
		d.nodes.take("a")
		d.attach("a", 4)
		if got := d.nodes.take("a"); len(got) != 1 || len(got[0].GetEvents().GetEvents()) != 3 || got[0].GetEvents().GetEvents()[0].GetSeq() != 5 {
			t.Errorf("with 4 events: %v", got)
		}
		d.attach("a", 7)
		if got := d.nodes.take("a"); len(got) != 1 || got[0].GetEvents() == nil || len(got[0].GetEvents().GetEvents()) != 0 {
			t.Errorf("with all events: %v", got)
		}
		d.attach("b", 7)
		if got := d.nodes.take("b"); len(got) != 1 || got[0].GetState().GetSeq() != 7 || len(got[0].GetAnswers()) != 6 {
			t.Errorf("an unknown node: %v", got)
		}
		for range 3 * tailLen {
			d.request("a", peer, d.id(), say("x"))
		}
		d.nodes.take("a")
		d.attach("a", 7)
		if got := d.nodes.take("a"); len(got) != 1 || got[0].GetState() == nil {
			t.Errorf("far behind: %d messages", len(got))
		}
	})
}

func TestSilentNodeLosesItsPeersAndGetsThemBack(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		d.attach("b", 0)
		d.join("a")
		short, long := d.join("b"), d.join("b")
		// Shorter than the peers' patience: nobody notices.
		d.pass(10*time.Second, "a")
		d.attach("b", 1<<60)
		d.pass(20*time.Second, "a", "b")
		if got := left(d.nodes.take("a")); len(got) != 0 {
			t.Errorf("after a short silence: %v", got)
		}
		d.request("b", "", d.id(), connection(short, false))
		d.pass(23*time.Second, "a")
		if got := left(d.nodes.take("a")); len(got) != 2 {
			t.Errorf("after a long silence: %v", got)
		}
		// Only the one that the node had not lost itself comes back by itself.
		d.attach("b", 1<<60)
		joined := []string{}
		for _, m := range d.nodes.take("a") {
			for _, ev := range m.GetEvents().GetEvents() {
				if p := ev.GetPeerJoined(); p != nil {
					joined = append(joined, p.GetPeer().GetId())
				}
			}
		}
		if len(joined) != 1 || joined[0] != long {
			t.Errorf("back are %v, not %s", joined, long)
		}
		d.pass(60*time.Second, "a", "b")
		if got := left(d.nodes.take("a")); len(got) != 1 || got[0] != short+" LEAVE_REASON_EXPIRED" {
			t.Errorf("in the end: %v", got)
		}
	})
}

func TestPeerMovesToAnotherNode(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		d.attach("b", 0)
		peer := d.join("a")
		d.nodes.take("a")
		if r := d.request("b", "", d.id(), connection(peer, true)); r.GetResult().GetError() != nil {
			t.Fatal(r)
		}
		moved := false
		for _, m := range d.nodes.take("a") {
			moved = moved || m.GetPeerMoved().GetPeerId() == peer
		}
		if !moved {
			t.Error("the first node was not told")
		}
		// What the first node says of the connection it had is of no account.
		d.request("a", "", d.id(), connection(peer, false))
		d.pass(30*time.Second, "a", "b")
		if got := left(d.nodes.take("b")); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

// TestAnEndedSessionStartsNoStream: what the standby had not acknowledged when a session ended is said after that.
func TestAnEndedSessionStartsNoStream(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		peer := d.join("a")
		d.dir.standby = "mirror"
		ask := func(cmd *amphiv1.Command) {
			m := &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Request{Request: &amphiv1.RoomRequest{Id: d.id(), PeerId: peer, Command: cmd}}}
			if err := d.deliver("a", m); err != nil {
				t.Fatal(err)
			}
		}
		ask(&amphiv1.Command{Body: &amphiv1.Command_ControlStream{ControlStream: &amphiv1.ControlStream{Action: amphiv1.ControlStream_ACTION_START}}})
		ask(&amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: &amphiv1.EndRoom{}}})
		var last uint64
		for _, m := range d.nodes.take("mirror") {
			last = max(last, m.GetStandbyUpdate().GetNumber())
		}
		if err := d.deliver("mirror", &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_StandbyAck{StandbyAck: &amphiv1.StandbyAck{Number: last}}}); err != nil {
			t.Fatal(err)
		}
		answered := 0
		for _, m := range d.nodes.take("a") {
			if m.GetResponse().GetResult() != nil {
				answered++
			}
		}
		if got := strings.Join(d.wishes.list, "; "); last == 0 || answered != 2 || got != "hall  STREAM_STATE_UNSPECIFIED" {
			t.Errorf("update %d, %d answers; wishes: %s", last, answered, got)
		}
	})
}

// TestAnEndedSessionIsNotTakenOver: the room had been deleted and made anew, and its first peer was told that the session has ended.
func TestAnEndedSessionIsNotTakenOver(t *testing.T) {
	run(t, func(d *desk) {
		d.dir.epoch, d.shelf.running = 8, true // or nobody would be waited for
		attach := &amphiv1.Attach{HaveSeq: 6, SessionId: "se_before", HaveEpoch: 7}
		if err := d.deliver("a", &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Attach{Attach: attach}}); err != nil {
			t.Fatal(err)
		}
		const joins = 7
		join := &amphiv1.RoomRequest{Id: joins, Command: &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Role: "one"}}}}
		if err := d.deliver("a", &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Request{Request: join}}); err != nil {
			t.Fatal(err)
		}
		<-time.After(gather * 3 / 2)
		synctest.Wait()
		if !slices.ContainsFunc(d.nodes.take("a"), func(m *amphiv1.RoomMessage) bool { return m.GetStateWanted() != nil }) {
			t.Fatal("the replica was not asked for its state")
		}
		st := &amphiv1.RoomState{SessionId: "se_before", Seq: 6, SeqEpoch: 7, Ended: true, Streams: []*amphiv1.Stream{{Name: "main", State: amphiv1.StreamState_STREAM_STATE_LIVE}}}
		if err := d.deliver("a", &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_ReplicaState{ReplicaState: &amphiv1.ReplicaState{State: st}}}); err != nil {
			t.Fatal(err)
		}
		var joined *amphiv1.RoomResponse
		for _, m := range d.nodes.take("a") {
			if r := m.GetResponse(); r.GetId() == joins {
				joined = r
			}
		}
		if joined.GetResult().GetJoin() == nil {
			t.Errorf("who waited to join: %v", joined)
		}
		if got := d.nodes.session["a"]; got == "" || got == "se_before" || len(d.wishes.list) > 0 {
			t.Errorf("session %q; wishes: %v", got, d.wishes.list)
		}
	})
}

// TestLateCommandsOfANodeThatWasLeft: what it could not pass on in time does not undo what the peer did elsewhere since.
func TestLateCommandsOfANodeThatWasLeft(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		d.attach("b", 0)
		peer := d.join("a")
		if r := d.request("b", "", d.id(), connection(peer, true)); r.GetResult().GetError() != nil {
			t.Fatal(r)
		}
		code := func(node string, cmd *amphiv1.Command) string {
			return d.request(node, peer, d.id(), cmd).GetResult().GetError().GetCode()
		}
		if got := code("a", say("on the way as it moved")); got != "" {
			t.Errorf("while it moves: %q", got)
		}
		d.pass(overlap+time.Second, "a", "b")
		if got := code("a", say("held up")); got != string(proto.Replaced) {
			t.Errorf("what was held up: %q", got)
		}
		if got := code("a", &amphiv1.Command{Body: &amphiv1.Command_ListPeers{ListPeers: &amphiv1.ListPeers{}}}); got != "" {
			t.Errorf("what changes nothing: %q", got)
		}
		if got := code("b", say("here")); got != "" {
			t.Errorf("where it is: %q", got)
		}
		// Back at the first node, and the other is the one that was left.
		d.request("a", "", d.id(), connection(peer, true))
		d.pass(overlap+time.Second, "a", "b")
		if a, b := code("a", say("here again")), code("b", say("late")); a != "" || b != string(proto.Replaced) {
			t.Errorf("after it moved back: %q, %q", a, b)
		}
	})
}

func TestEpochFences(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		d.nodes.take("a")
		if err := d.deliver("a", &amphiv1.RoomMessage{Epoch: 6, Body: &amphiv1.RoomMessage_Attach{Attach: &amphiv1.Attach{}}}); err == nil {
			t.Error("a message of an older epoch was taken")
		}
		d.dir.epoch = 9
		d.attach("c", 0)
		if got := d.nodes.take("c"); len(got) != 1 || got[0].GetEpoch() != 9 {
			t.Errorf("got %v", got)
		}
		d.dir.node = "other"
		if err := d.deliver("a", &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Attach{Attach: &amphiv1.Attach{}}}); err == nil {
			t.Error("a message for another owner was taken")
		}
		if s := d.owner.Stats(); s.Dropped["stale_epoch"] != 1 || s.Dropped["not_owner"] != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestSessionsFollowOneAnother(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		before := d.nodes.take("a")[0].GetState().GetSessionId()
		peer := d.join("a")
		if n := d.owner.Active()["hall"]; n != 1 {
			t.Errorf("%d are active", n)
		}
		value := "1"
		d.request("a", peer, d.id(), &amphiv1.Command{Body: &amphiv1.Command_SetStore{SetStore: &amphiv1.SetStore{Key: "k", Value: &value, Durable: true}}})
		locked := true
		d.request("a", peer, d.id(), &amphiv1.Command{Body: &amphiv1.Command_UpdateRoom{UpdateRoom: &amphiv1.UpdateRoomState{Locked: &locked}}})
		d.request("a", peer, d.id(), &amphiv1.Command{Body: &amphiv1.Command_ControlStream{ControlStream: &amphiv1.ControlStream{Action: amphiv1.ControlStream_ACTION_START}}})
		d.request("a", peer, d.id(), &amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}})
		d.join("a")
		after := ""
		d.attach("b", 0)
		for _, m := range d.nodes.take("b") {
			after += m.GetState().GetSessionId()
		}
		if after == "" || after == before {
			t.Errorf("session %s follows %s", after, before)
		}
		var kinds []string
		for _, c := range d.shelf.kept {
			kinds = append(kinds, fmt.Sprintf("%T", c.GetBody()))
		}
		want := []string{"*amphiv1.RegistryCommand_PutSession", "*amphiv1.RegistryCommand_PutStore", "*amphiv1.RegistryCommand_PutRoom",
			"*amphiv1.RegistryCommand_PutSession", "*amphiv1.RegistryCommand_PutSession"}
		if d := cmp.Diff(want, kinds); d != "" {
			t.Error(d)
		}
		if ended := d.shelf.kept[3].GetPutSession(); ended.GetEndedMs() == 0 || len(ended.GetAttendance()) != 1 {
			t.Errorf("kept %v", ended)
		}
		if d := cmp.Diff([]string{"hall main STREAM_STATE_STARTING", "hall  STREAM_STATE_UNSPECIFIED"}, d.wishes.list); d != "" {
			t.Error(d)
		}
	})
}

// TestOutputsAreReportedByTheOwnersNode: another node's word, such as that of the owner before, does not count.
func TestOutputsAreReportedByTheOwnersNode(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		d.attach("me", 0)
		d.join("a")
		start := &amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_RECORDING}
		answer := d.request("a", "", d.id(), &amphiv1.Command{Body: &amphiv1.Command_ControlOutput{ControlOutput: start}})
		id := answer.GetResult().GetControlOutput().GetOutputs()[0].GetId()
		report := func(state amphiv1.OutputState) *amphiv1.Command {
			return &amphiv1.Command{Body: &amphiv1.Command_OutputReport{OutputReport: &amphiv1.OutputReport{Output: &amphiv1.Output{Id: id, State: state}}}}
		}
		d.request("a", "", d.id(), report(amphiv1.OutputState_OUTPUT_STATE_STOPPED))
		d.request("me", "", d.id(), report(amphiv1.OutputState_OUTPUT_STATE_ACTIVE))
		want := []string{"hall main STREAM_STATE_STARTING", `hall main OUTPUT_KIND_RECORDING OUTPUT_STATE_STARTING ""`, `hall main OUTPUT_KIND_RECORDING OUTPUT_STATE_ACTIVE ""`}
		if d := cmp.Diff(want, d.wishes.list); d != "" {
			t.Error(d)
		}
	})
}

func TestUnusedRoomStops(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		if n := d.owner.Stats().Rooms; n != 1 {
			t.Errorf("%d rooms", n)
		}
		d.pass(2 * rememberFor)
		if n := d.owner.Stats().Rooms; n != 0 {
			t.Errorf("%d rooms after everybody has gone", n)
		}
	})
}

func TestRefusedRoom(t *testing.T) {
	run(t, func(d *desk) {
		err := d.owner.Deliver("a", &amphiv1.RoomMessage{Room: "attic", Epoch: 7, Body: &amphiv1.RoomMessage_Attach{Attach: &amphiv1.Attach{}}})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := d.nodes.take("a")
		if len(got) != 1 || got[0].GetResponse().GetId() != 0 || got[0].GetResponse().GetResult().GetError().GetCode() != string(proto.NotFound) {
			t.Errorf("got %v", got)
		}
	})
}

// nowhere is a carrier to nobody.
type nowhere struct{}

func (nowhere) Send(string, string, []byte) error { return nil }

// nothing keeps nothing.
type nothing struct{}

func (nothing) Open(room string) (Start, error) { return (&shelf{}).Open(room) }

func (nothing) Running(string) bool { return false }

func (nothing) Keep(*amphiv1.RegistryCommand) {}

func (nothing) Commit(_ *amphiv1.RegistryCommand, done func(error)) { done(nil) }

// FuzzDeliver shows that no message of another node, however odd, breaks a room.
func FuzzDeliver(f *testing.F) {
	for _, m := range []*amphiv1.RoomMessage{
		{Room: "hall", Epoch: 7, Body: &amphiv1.RoomMessage_Attach{Attach: &amphiv1.Attach{HaveSeq: 3}}},
		{Room: "hall", Epoch: 7, Body: &amphiv1.RoomMessage_Detach{Detach: &amphiv1.Detach{}}},
		{Room: "hall", Epoch: 8, Body: &amphiv1.RoomMessage_Request{Request: &amphiv1.RoomRequest{Id: 1, Command: &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Role: "one"}}}}}},
		{Room: "hall", Epoch: 7, Body: &amphiv1.RoomMessage_Request{Request: &amphiv1.RoomRequest{}}},
	} {
		b, err := exchange.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	o, err := New(Config{Node: "me"}, Deps{Carrier: nowhere{}, Directory: &directory{node: "me", epoch: 7}, Records: nothing{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := exchange.Decode(b)
		if err != nil {
			return
		}
		r := newOwned(o, "hall", 7)
		r.begin(time.Now())
		r.handle(time.Now(), inbound{from: "a", msg: m})
		r.tick(time.Now().Add(time.Minute))
	})
}

// TestRecordOfARunningSessionKeepsUp has people come: the record is kept again, but not all the time.
func TestRecordOfARunningSessionKeepsUp(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		for range 3 {
			d.join("a")
		}
		records := func() (list []*amphiv1.Session) {
			d.shelf.mu.Lock()
			defer d.shelf.mu.Unlock()
			for _, cmd := range d.shelf.kept {
				if s := cmd.GetPutSession(); s != nil {
					list = append(list, s)
				}
			}
			return list
		}
		d.pass(20*time.Second, "a")
		if n := len(records()); n != 1 {
			t.Errorf("%d records after 20 s", n)
		}
		d.pass(20*time.Second, "a")
		list := records()
		if last := list[len(list)-1]; len(list) != 2 || last.GetPeakPeers() != 3 || len(last.GetAttendance()) != 3 || last.GetEndedMs() != 0 {
			t.Errorf("%d records, the last is %v", len(list), last)
		}
		d.pass(3*time.Minute, "a")
		if n := len(records()); n != 2 {
			t.Errorf("%d records though nothing happened", n)
		}
	})
}

// TestPeerThatItsNodeDoesNotKnowIsLost has the answer to a join never arrive: the node does not list the peer.
func TestPeerThatItsNodeDoesNotKnowIsLost(t *testing.T) {
	run(t, func(d *desk) {
		d.attach("a", 0)
		d.attach("b", 0)
		kept, ghost, elsewhere := d.join("a"), d.join("a"), d.join("b")
		list := func() {
			a := &amphiv1.Attach{HaveSeq: 1, ListsPeers: true, Peers: []string{kept}}
			if err := d.deliver("a", &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Attach{Attach: a}}); err != nil {
				t.Error(err)
			}
		}
		// The answer may still come.
		d.pass(10*time.Second, "a", "b")
		list()
		d.pass(20*time.Second, "a", "b")
		if got := left(d.nodes.take("b")); len(got) != 0 {
			t.Errorf("left too soon: %v", got)
		}
		list()
		d.pass(16*time.Second, "a", "b")
		got := left(d.nodes.take("b"))
		if len(got) != 1 || !strings.Contains(got[0], ghost) {
			t.Errorf("left: %v, not %s (others are %s, %s)", got, ghost, kept, elsewhere)
		}
		// A node that is silent for a while does not bring it back.
		d.pass(10*time.Second, "b")
		d.attach("a", 1)
		d.pass(50*time.Second, "a", "b")
		if got := left(d.nodes.take("b")); len(got) != 1 || !strings.Contains(got[0], ghost) || !strings.Contains(got[0], "EXPIRED") {
			t.Errorf("left for good: %v", got)
		}
	})
}

// TestSilentStandbyIsGivenUp at the moment when its time is over, which is shorter where there is no connection to it.
func TestSilentStandbyIsGivenUp(t *testing.T) {
	for gone, want := range map[string]time.Duration{"": 800 * time.Millisecond, "mirror": 400 * time.Millisecond} {
		t.Run("gone "+gone, func(t *testing.T) {
			run(t, func(d *desk) {
				d.dir.standby, d.nodes.gone = "mirror", gone
				began := time.Now()
				d.attach("a", 0)
				join := &amphiv1.RoomRequest{Id: 1, Command: &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Role: "one"}}}}
				if err := d.deliver("a", &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Request{Request: join}}); err != nil {
					t.Fatal(err)
				}
				gaveUp := func() bool {
					d.shelf.mu.Lock()
					defer d.shelf.mu.Unlock()
					return slices.ContainsFunc(d.shelf.kept, func(c *amphiv1.RegistryCommand) bool { return c.GetPlaceRoom() != nil })
				}
				for !gaveUp() && time.Since(began) < 10*time.Second {
					<-time.After(time.Millisecond)
					synctest.Wait()
				}
				if after := time.Since(began); after < want || after > want+10*time.Millisecond {
					t.Errorf("it was given up after %v, want %v", after, want)
				}
			})
		})
	}
}
