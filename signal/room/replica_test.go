package room_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
	gproto "google.golang.org/protobuf/proto"
)

// session is an owner and one replica that follows.
type session struct {
	t       testing.TB
	state   *room.State
	replica *room.Replica
	now     time.Time
}

func newSession(t testing.TB, tmpl *pb.Template) *session {
	s := room.New(room.Config{Room: "demo", SessionID: "se_1", Template: tmpl, Now: start, IDs: counting()})
	return &session{t: t, state: s, replica: room.NewReplica(s.Snapshot()), now: start}
}

func (s *session) do(from room.Actor, cmd *pb.Command) *pb.Result {
	s.t.Helper()
	res, evs := s.state.Apply(s.now, from, cmd)
	s.follow(evs)
	if e := res.GetError(); e != nil {
		s.t.Fatalf("%v: %v", cmd, e)
	}
	return res
}

func (s *session) follow(evs []*pb.Event) {
	s.t.Helper()
	for _, ev := range evs {
		if err := s.replica.Apply(ev); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *session) join(role string) string {
	s.t.Helper()
	res := s.do(room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_Join{Join: &pb.Join{Role: role}}})
	return res.GetJoin().GetPeer().GetId()
}

func (s *session) say(peer, text string) uint64 {
	s.t.Helper()
	res := s.do(room.Actor{PeerID: peer}, &pb.Command{Body: &pb.Command_Send{Send: &pb.SendMessage{Text: text}}})
	return res.GetSend().GetId()
}

func TestSince(t *testing.T) {
	t.Parallel()
	s := newSession(t, template(t, "circles"))
	lead := s.join("lead")
	for _, bad := range []uint64{3, 1 << 60} {
		if _, ok := s.replica.Since(bad); ok {
			t.Errorf("there are events after %d", bad)
		}
	}
	if evs, ok := s.replica.Since(2); !ok || len(evs) != 0 {
		t.Errorf("after the last: %v, %v", evs, ok)
	}
	for i := range 5000 {
		s.say(lead, fmt.Sprint(i))
	}
	if _, ok := s.replica.Since(2); ok {
		t.Error("the tail has no bound by number")
	}
	evs, ok := s.replica.Since(4000)
	if !ok || len(evs) != 1002 || evs[0].GetSeq() != 4001 || evs[1001].GetSeq() != 5002 {
		t.Errorf("%d events, %v", len(evs), ok)
	}
	for range 1500 {
		s.say(lead, strings.Repeat("x", proto.MaxMessageText))
	}
	if _, ok := s.replica.Since(6502 - 1100); ok {
		t.Error("the tail has no bound by bytes")
	}
	if evs, ok := s.replica.Since(6502 - 900); !ok || len(evs) != 900 {
		t.Errorf("%d events, %v", len(evs), ok)
	}
}

// TestReplayIsNotARevelation: whatever number a client says that it saw last, it is not shown what was before it
// joined, nor what its role was told before it had the role.
func TestReplayIsNotARevelation(t *testing.T) {
	t.Parallel()
	s := newSession(t, template(t, "circles"))
	lead := s.join("lead")
	early := s.say(lead, "before")
	ring := s.join("ring")
	tell := func() uint64 {
		res := s.do(room.Actor{PeerID: lead}, &pb.Command{Body: &pb.Command_Send{Send: &pb.SendMessage{Text: "x", To: &pb.Recipients{Roles: []string{"voice"}}}}})
		return res.GetSend().GetId()
	}
	secret := tell()
	s.do(room.Actor{Management: true}, &pb.Command{Body: &pb.Command_ChangeRole{ChangeRole: &pb.ChangeRole{Peers: []string{ring}, Role: "voice", Force: true}}})
	meant := tell()
	s.do(room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_PeerConnection{PeerConnection: &pb.PeerConnection{PeerId: ring}}})
	s.now = s.now.Add(room.LostAfter)
	s.follow(s.state.Tick(s.now))
	missed := s.say(lead, "while it was away")
	s.do(room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_PeerConnection{PeerConnection: &pb.PeerConnection{PeerId: ring, Connected: true}}})
	evs, ok := s.replica.Since(0)
	if !ok {
		t.Fatal("the tail is short")
	}
	seen := map[uint64]bool{}
	for _, ev := range evs {
		seen[ev.GetSeq()] = s.replica.Visible(ring, ev)
		if !s.replica.Visible(lead, ev) && ev.GetSeq() > 2 {
			t.Errorf("who was there does not see %v", ev)
		}
	}
	if seen[early] || seen[secret] || !seen[meant] || !seen[missed] || !seen[early+1] {
		t.Errorf("seen %v", seen)
	}
}

// TestHiddenMessagesAreNotReplayed: who comes back does not see what a moderator took back meanwhile.
func TestHiddenMessagesAreNotReplayed(t *testing.T) {
	t.Parallel()
	s := newSession(t, template(t, "circles"))
	lead, ring := s.join("lead"), s.join("ring")
	since := s.replica.Seq()
	bad := s.say(lead, "something bad")
	good := s.say(lead, "something good")
	s.do(room.Actor{PeerID: lead}, &pb.Command{Body: &pb.Command_Moderate{Moderate: &pb.ModerateChat{Action: &pb.ModerateChat_Hide{Hide: bad}}}})
	evs, _ := s.replica.Since(since)
	seen := map[uint64]bool{}
	for _, ev := range evs {
		seen[ev.GetSeq()] = s.replica.Visible(ring, ev)
	}
	if seen[bad] || !seen[good] || !seen[good+1] {
		t.Errorf("seen %v", seen)
	}
}

func TestMaySubscribeAndPublish(t *testing.T) {
	t.Parallel()
	s := newSession(t, template(t, "circles"))
	lead, voice, ring, far := s.join("lead"), s.join("voice"), s.join("ring"), s.join("far")
	mic := func(peer string) string {
		res := s.do(room.Actor{PeerID: peer}, &pb.Command{Body: &pb.Command_Publish{Publish: &pb.PublishTrack{Kind: pb.Kind_KIND_AUDIO, Source: "mic"}}})
		return res.GetPublish().GetTrack().GetId()
	}
	a, b := mic(lead), mic(voice)
	for _, c := range []struct {
		peer, track string
		want        bool
	}{
		{lead, a, false}, {lead, b, true}, {voice, a, true}, {ring, a, true}, {ring, b, false},
		{far, a, false}, {far, b, false}, {"pe_9", a, false}, {lead, "tr_9", false}, {"", "", false},
	} {
		if got := s.replica.MaySubscribe(c.peer, c.track); got != c.want {
			t.Errorf("%s may receive %s: %v", c.peer, c.track, got)
		}
	}
	if p, tr := s.replica.Track(a); p.GetId() != lead || tr.GetSource() != "mic" {
		t.Errorf("track %v of %v", tr, p)
	}
	if !s.replica.MayPublish(lead, pb.Kind_KIND_VIDEO, "screen") || s.replica.MayPublish(voice, pb.Kind_KIND_VIDEO, "camera") ||
		s.replica.MayPublish("pe_9", pb.Kind_KIND_AUDIO, "mic") {
		t.Error("what may be published is wrong")
	}
	if s.replica.RoleOf(voice).GetName() != "voice" || s.replica.RoleOf("pe_9") != nil || s.replica.Role("nobody") != nil {
		t.Error("roles are wrong")
	}
}

func TestAudience(t *testing.T) {
	t.Parallel()
	s := newSession(t, template(t, "circles"))
	if !s.replica.Idle() || !s.state.Idle() {
		t.Error("a room without peers is not idle")
	}
	lead, ring := s.join("lead"), s.join("ring")
	if s.replica.Idle() || s.state.Idle() {
		t.Error("a room with peers is idle")
	}
	last := func() room.Audience {
		evs, _ := s.replica.Since(s.replica.Seq() - 1)
		return s.replica.Audience(evs[0])
	}
	s.say(lead, "hello")
	if a := last(); !a.All || !a.Includes(ring) || !a.Includes("") {
		t.Errorf("a broadcast: %+v", a)
	}
	if _, named := last().Named(); named {
		t.Error("a broadcast names its receivers")
	}
	send := func(to *pb.Recipients) {
		s.do(room.Actor{PeerID: lead}, &pb.Command{Body: &pb.Command_Send{Send: &pb.SendMessage{Text: "x", To: to}}})
	}
	send(&pb.Recipients{Peers: []string{ring}})
	if ids, named := last().Named(); !named || len(ids) != 2 || last().Includes("") || last().Includes("pe_9") {
		t.Errorf("a direct message: %v, %v", ids, named)
	}
	send(&pb.Recipients{Roles: []string{"ring"}})
	if _, named := last().Named(); named || !last().Includes(ring) || last().Includes("pe_9") {
		t.Error("a message to a role")
	}
}

// TestRestore: a standby that takes over goes on where the owner was, timers included.
func TestRestore(t *testing.T) {
	t.Parallel()
	s := newSession(t, template(t, "circles"))
	lead, far := s.join("lead"), s.join("far")
	s.do(room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_PeerConnection{PeerConnection: &pb.PeerConnection{PeerId: far}}})
	s.now = s.now.Add(room.LostAfter)
	s.follow(s.state.Tick(s.now))
	s.do(room.Actor{PeerID: lead}, &pb.Command{Body: &pb.Command_RaiseHand{RaiseHand: &pb.RaiseHand{Raised: true}}})

	ids := counting()
	snapshot := gproto.Clone(s.replica.Snapshot()).(*pb.RoomState)
	s.state = room.Restore(room.Config{Now: s.now, IDs: func(p string) string { return "new" + ids(p) }}, snapshot)
	if !gproto.Equal(s.state.Snapshot(), snapshot) {
		t.Error("the restored state differs")
	}
	if at, ok := s.state.Deadline(); !ok || !at.Equal(start.Add(room.HoldFor)) {
		t.Errorf("deadline %v, %v", at, ok)
	}
	if n := len(s.state.Session().GetAttendance()); n != 2 {
		t.Errorf("%d attendees", n)
	}
	ring := s.join("ring")
	s.do(room.Actor{PeerID: ring}, &pb.Command{Body: &pb.Command_RaiseHand{RaiseHand: &pb.RaiseHand{Raised: true}}})
	if s.replica.Peer(ring).GetHandRaisedMs() <= s.replica.Peer(lead).GetHandRaisedMs() {
		t.Error("the queue of hands lost its order")
	}
	s.now = start.Add(room.HoldFor)
	s.follow(s.state.Tick(s.now))
	if s.replica.Peer(far) != nil {
		t.Error("the lost peer's place is still held")
	}
}

func TestDetachNode(t *testing.T) {
	t.Parallel()
	s := newSession(t, template(t, "circles"))
	s.join("lead")
	s.state.Apply(s.now, room.Actor{Node: "b"}, &pb.Command{Body: &pb.Command_Join{Join: &pb.Join{Role: "far"}}})
	s.replica = room.NewReplica(s.state.Snapshot())
	s.state.DetachNode(s.now, "b")
	s.follow(s.state.Tick(s.now.Add(room.LostAfter)))
	if ps := s.replica.Peers(); len(ps) != 1 || ps[0].GetId() != "pe_1" {
		t.Errorf("present: %v", ps)
	}
}

// TestNewSessionKeepsDurableValues: what was durable is there again, and revisions go on rising.
func TestNewSessionKeepsDurableValues(t *testing.T) {
	t.Parallel()
	s := room.New(room.Config{Room: "demo", Template: template(t, "circles"), Now: start, IDs: counting(), Locked: false, Metadata: "m",
		Durable: []*pb.StoreEntry{{Key: "k", Value: "1", Revision: 900, Durable: true}}})
	s.Apply(start, room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_Join{Join: &pb.Join{Role: "lead"}}})
	value := "2"
	res, _ := s.Apply(start, room.Actor{PeerID: "pe_1"}, &pb.Command{Body: &pb.Command_SetStore{SetStore: &pb.SetStore{Key: "k", Value: &value}}})
	if res.GetStore().GetRevision() != 901 {
		t.Errorf("%v", res)
	}
	if e := s.Snapshot().GetStore()[0]; !e.GetDurable() || e.GetValue() != "2" {
		t.Errorf("%v", e)
	}
}

// TestListPages: whatever the size of the pages, together they are everybody once, in order.
func TestListPages(t *testing.T) {
	t.Parallel()
	tmpl := template(t, "circles")
	tmpl.Limits.MaxPeers = 0
	s := newSession(t, tmpl)
	for i := range 237 {
		res, evs := s.state.Apply(s.now, room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_Join{Join: &pb.Join{
			Role: "far", Name: fmt.Sprintf("%c|%d", "aBcD"[i%4], (i*7919)%50),
		}}})
		if res.GetError() != nil {
			t.Fatal(res)
		}
		s.follow(evs)
	}
	for _, limit := range []uint32{1, 7, 100} {
		seen, last, after := map[string]bool{}, "", ""
		for {
			page := s.replica.List(&pb.ListPeers{Limit: limit, After: after})
			if page.GetTotal() != 237 || len(page.GetPeers()) > int(limit) {
				t.Fatalf("%d of %d peers on a page of %d", len(page.GetPeers()), page.GetTotal(), limit)
			}
			for _, p := range page.GetPeers() {
				key := strings.ToLower(p.GetName()) + " " + p.GetId()
				if seen[p.GetId()] || key < last {
					t.Fatalf("%s comes again or too late, after %s", key, last)
				}
				seen[p.GetId()], last = true, key
			}
			if after = page.GetNext(); after == "" {
				break
			}
		}
		if len(seen) != 237 {
			t.Errorf("pages of %d have %d peers", limit, len(seen))
		}
	}
	if n := len(s.replica.List(&pb.ListPeers{Limit: 5000}).GetPeers()); n != 100 {
		t.Errorf("a page of %d", n)
	}
}

// crowd is a large room: a lead and viewers.
func crowd(b *testing.B, viewers int) *session {
	tmpl := template(b, "circles")
	tmpl.Limits.MaxPeers = 100000
	s := newSession(b, tmpl)
	s.join("lead")
	for range viewers {
		s.join("far")
	}
	return s
}

// BenchmarkJoin is one more viewer of a room of 20,000 joining and leaving, at owner and replica.
func BenchmarkJoin(b *testing.B) {
	s := crowd(b, 20000)
	b.ReportAllocs()
	for b.Loop() {
		s.do(room.Actor{PeerID: s.join("far")}, &pb.Command{Body: &pb.Command_Leave{Leave: &pb.Leave{}}})
		s.state.Deadline()
	}
}

// BenchmarkMessage is a message decided, followed and shown to 10,000 clients.
func BenchmarkMessage(b *testing.B) {
	s := crowd(b, 10000)
	var ids []string
	for _, p := range s.replica.Peers() {
		ids = append(ids, p.GetId())
	}
	b.ReportAllocs()
	for b.Loop() {
		s.say("pe_1", "hello")
		evs, _ := s.replica.Since(s.replica.Seq() - 1)
		a := s.replica.Audience(evs[0])
		seen := 0
		for _, id := range ids {
			if a.Includes(id) {
				seen++
			}
		}
		if seen != len(ids) {
			b.Fatal(seen)
		}
	}
}

// BenchmarkStateFor is the state of a room of 20,000 for one that joins.
func BenchmarkStateFor(b *testing.B) {
	s := crowd(b, 20000)
	b.ReportAllocs()
	for b.Loop() {
		if len(s.replica.StateFor("pe_7").GetPeers()) != 2 {
			b.Fatal("wrong")
		}
	}
}

// BenchmarkList is a page of a room of 20,000.
func BenchmarkList(b *testing.B) {
	s := crowd(b, 20000)
	b.ReportAllocs()
	for b.Loop() {
		s.replica.List(&pb.ListPeers{})
	}
}
