package room_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"
)

// draws draws commands about the ids that a short session has.
type draws struct{ *rapid.T }

func (d draws) one(label string, of ...string) string { return rapid.SampledFrom(of).Draw(d.T, label) }
func (d draws) flag(label string) bool                { return rapid.Bool().Draw(d.T, label) }
func (d draws) peer() string {
	return fmt.Sprint("pe_", rapid.IntRange(1, 9).Draw(d.T, "peer"))
}
func (d draws) track() string { return fmt.Sprint("tr_", rapid.IntRange(1, 9).Draw(d.T, "track")) }
func (d draws) role() string  { return d.one("role", "lead", "voice", "ring", "far", "bare", "nobody") }
func (d draws) maybe(label string, v string) *string {
	if d.flag(label) {
		return &v
	}
	return nil
}

func (d draws) peers() []string {
	var ids []string
	for range rapid.IntRange(0, 2).Draw(d.T, "peers") {
		ids = append(ids, d.peer())
	}
	return ids
}

func (d draws) roles() []string {
	var names []string
	for range rapid.IntRange(0, 2).Draw(d.T, "roles") {
		names = append(names, d.role())
	}
	return names
}

func (d draws) actor() room.Actor {
	switch rapid.IntRange(0, 9).Draw(d.T, "actor") {
	case 0:
		return room.Actor{Management: true}
	case 1:
		return room.Actor{Node: d.one("node", "a", "b")}
	}
	return room.Actor{PeerID: d.peer(), Node: d.one("node", "a", "b")}
}

func (d draws) step() (room.Actor, *pb.Command) {
	from := d.actor()
	switch rapid.IntRange(0, 7).Draw(d.T, "what") {
	case 0, 1:
		return room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_Join{Join: &pb.Join{
			Name: d.one("name", "Ada", "Ben", ""), Role: d.role(), UserId: d.one("user", "", "u1", "u2"),
		}}}
	case 2:
		return room.Actor{Node: d.one("node", "a", "b")}, &pb.Command{Body: &pb.Command_PeerConnection{PeerConnection: &pb.PeerConnection{
			PeerId: d.peer(), Connected: d.flag("connected"),
		}}}
	case 3:
		return from, d.media()
	case 4, 5:
		return from, d.people()
	}
	return from, d.room()
}

func (d draws) media() *pb.Command {
	muted := d.flag("muted")
	switch rapid.IntRange(0, 3).Draw(d.T, "media") {
	case 0:
		return &pb.Command{Body: &pb.Command_Unpublish{Unpublish: &pb.UnpublishTrack{TrackId: d.track()}}}
	case 1:
		return &pb.Command{Body: &pb.Command_UpdateTrack{UpdateTrack: &pb.UpdateTrack{TrackId: d.track(), Muted: &muted}}}
	case 2:
		return &pb.Command{Body: &pb.Command_MutePeers{MutePeers: &pb.MutePeers{Peers: d.peers(), Roles: d.roles(), Muted: muted}}}
	}
	return &pb.Command{Body: &pb.Command_Publish{Publish: &pb.PublishTrack{
		Kind: pb.Kind(rapid.IntRange(0, 3).Draw(d.T, "kind")), Source: d.one("source", "mic", "camera", "screen", "screen-audio", "x-a", "bad"), Muted: muted,
	}}}
}

func (d draws) people() *pb.Command {
	switch rapid.IntRange(0, 7).Draw(d.T, "people") {
	case 0:
		return &pb.Command{Body: &pb.Command_Leave{Leave: &pb.Leave{}}}
	case 1:
		return &pb.Command{Body: &pb.Command_RaiseHand{RaiseHand: &pb.RaiseHand{Raised: d.flag("raised"), PeerId: d.one("whose", "", d.peer())}}}
	case 2:
		return &pb.Command{Body: &pb.Command_UpdatePeer{UpdatePeer: &pb.UpdatePeer{
			PeerId: d.one("whose", "", d.peer()), Name: d.maybe("named", d.one("name", "x", "y")), Metadata: d.maybe("meta", "m"),
		}}}
	case 3:
		return &pb.Command{Body: &pb.Command_RemovePeers{RemovePeers: &pb.RemovePeers{Peers: d.peers(), Roles: d.roles(), Ban: d.flag("ban")}}}
	case 4:
		return &pb.Command{Body: &pb.Command_AnswerRoleChange{AnswerRoleChange: &pb.AnswerRoleChange{
			RequestId: fmt.Sprint("rq_", rapid.IntRange(1, 5).Draw(d.T, "request")), Accept: d.flag("accept"),
		}}}
	}
	return &pb.Command{Body: &pb.Command_ChangeRole{ChangeRole: &pb.ChangeRole{
		Peers: d.peers(), FromRoles: d.roles(), Role: d.role(), Force: d.flag("force"),
	}}}
}

func (d draws) room() *pb.Command {
	id := uint64(rapid.IntRange(0, 60).Draw(d.T, "id"))
	switch rapid.IntRange(0, 13).Draw(d.T, "room") {
	case 0:
		return &pb.Command{Body: &pb.Command_Moderate{Moderate: &pb.ModerateChat{Action: &pb.ModerateChat_Pin{Pin: id}}}}
	case 1:
		return &pb.Command{Body: &pb.Command_Moderate{Moderate: &pb.ModerateChat{Action: &pb.ModerateChat_Hide{Hide: id}}}}
	case 2:
		return &pb.Command{Body: &pb.Command_Moderate{Moderate: &pb.ModerateChat{Action: &pb.ModerateChat_Pause{Pause: d.flag("pause")}}}}
	case 3:
		return &pb.Command{Body: &pb.Command_Moderate{Moderate: &pb.ModerateChat{Action: &pb.ModerateChat_BlockPeer{BlockPeer: d.peer()}}}}
	case 4:
		return &pb.Command{Body: &pb.Command_SetStore{SetStore: &pb.SetStore{
			Key: d.one("key", "a", "b", "voice.c", "d", "e"), Value: d.maybe("set", d.one("value", "1", `"a longer value"`, "bad")),
			Durable: d.flag("durable"),
		}}}
	case 5:
		locked := rapid.IntRange(0, 9).Draw(d.T, "locked") == 0
		return &pb.Command{Body: &pb.Command_UpdateRoom{UpdateRoom: &pb.UpdateRoomState{Locked: &locked}}}
	case 6:
		return &pb.Command{Body: &pb.Command_ControlStream{ControlStream: &pb.ControlStream{
			Name: d.one("stream", "", "wide", "none"), Action: pb.ControlStream_Action(rapid.IntRange(0, 3).Draw(d.T, "action")),
		}}}
	case 7, 8:
		return d.output()
	}
	return &pb.Command{Body: &pb.Command_Send{Send: &pb.SendMessage{
		Type: d.one("type", "", "reaction", "app.x", "bad type"), Text: d.one("text", "", "hello"),
		To: &pb.Recipients{Roles: d.roles(), Peers: d.peers()},
	}}}
}

func (d draws) output() *pb.Command {
	id := d.one("output", "", "ou_1", "ou_2", "ou_3", "ou_9")
	return &pb.Command{Body: &pb.Command_ControlOutput{ControlOutput: &pb.ControlOutput{
		Action: pb.ControlOutput_Action(rapid.IntRange(0, 6).Draw(d.T, "action")), Id: id, Kind: pb.OutputKind(rapid.IntRange(0, 4).Draw(d.T, "kind")),
		Stream: d.one("stream", "", "wide", "none"), Url: "rtmp://a/…", SealedUrl: []byte(d.one("sealed", "", "x", "y", "z")),
		Destination: d.one("destination", "", "", "archive", "none"),
	}}}
}

// wire is an event as it arrives at a replica.
func wire(t *rapid.T, ev *pb.Event) *pb.Event {
	data, err := gproto.Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	var out pb.Event
	if err := gproto.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func bareTemplate(t testing.TB) *pb.Template {
	tmpl := template(t, "circles")
	tmpl.Roles = append(tmpl.Roles, &pb.Role{Name: "bare", Subscribe: &pb.SubscribeParams{Delivery: pb.Delivery_DELIVERY_NONE}})
	return tmpl
}

// TestReplicasAgree plays random sessions. After every step: a refused command had no events; replicas that follow by
// encoded events, from the start or from a later snapshot, hold exactly the owner's state; the bounds of template and
// roles hold; and what every client has been shown is what a client that joins now would be shown, or more, but
// never somebody who is not there.
func TestReplicasAgree(t *testing.T) {
	t.Parallel()
	tmpl := bareTemplate(t)
	tmpl.Destinations = []*pb.Destination{
		{Name: "archive", Kind: pb.OutputKind_OUTPUT_KIND_RECORDING, Stream: "wide", AutoStart: true},
		{Name: "mirror", Kind: pb.OutputKind_OUTPUT_KIND_PUSH, Url: "rtmp://b/…", SealedUrl: []byte("b"), AutoStart: true},
	}
	rapid.Check(t, func(t *rapid.T) {
		tmpl := gproto.Clone(tmpl).(*pb.Template)
		tmpl.Limits.FullPresencePeers = uint32(rapid.IntRange(1, 8).Draw(t, "full"))
		tmpl.Limits.MaxPeers = uint32(rapid.IntRange(3, 9).Draw(t, "max"))
		s := room.New(room.Config{Room: "demo", SessionID: "se_1", Template: tmpl, Now: start, IDs: counting()})
		first, second := room.NewReplica(s.Snapshot()), room.NewReplica(s.Snapshot())
		clients := map[string]*shownTo{}
		now := start
		for i := range rapid.IntRange(1, 80).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 0, 1, 5000, 20000, 61000}).Draw(t, "ms")) * time.Millisecond)
			evs := s.Tick(now)
			from, cmd := draws{t}.step()
			res, more := s.Apply(now, from, cmd)
			if res.GetError() != nil && len(more) > 0 {
				t.Fatalf("step %d: %v was refused with %v but caused %v", i, cmd, res.GetError(), more)
			}
			if c := res.GetError().GetCode(); c == string(proto.Internal) {
				t.Fatalf("step %d: %v: %v", i, cmd, res.GetError())
			}
			for _, ev := range append(evs, more...) {
				follow(t, first, wire(t, ev))
				follow(t, second, wire(t, ev))
				for id, c := range clients {
					c.see(id, first, ev)
					checkSecrecy(t, first, id, ev)
				}
			}
			if i%10 == 5 {
				second = room.NewReplica(gproto.Clone(s.Snapshot()).(*pb.RoomState))
			}
			if id := res.GetJoin().GetPeer().GetId(); cmd.GetJoin() != nil && id != "" {
				clients[id] = newShown(first.StateFor(id))
			}
			checkAgree(t, s, first, second)
			checkBounds(t, s.Snapshot())
			checkClients(t, first, clients)
			if at, ok := s.Deadline(); ok && at.Before(now) {
				t.Fatalf("step %d: the deadline %v has passed", i, at)
			}
		}
	})
}

func follow(t *rapid.T, r *room.Replica, ev *pb.Event) {
	if err := r.Apply(ev); err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(ev); err != nil {
		t.Fatalf("applied twice: %v", err)
	}
	later := gproto.Clone(ev).(*pb.Event)
	later.Seq += 2
	if err := r.Apply(later); !errors.Is(err, room.ErrGap) {
		t.Fatalf("a gap: %v", err)
	}
}

func checkAgree(t *rapid.T, s *room.State, replicas ...*room.Replica) {
	want := s.Snapshot()
	for i, r := range replicas {
		if got := r.Snapshot(); !gproto.Equal(want, got) {
			t.Fatalf("replica %d differs from the owner (-owner +replica):\n%s", i, cmp.Diff(want, got, protocmp.Transform()))
		}
	}
}

func checkBounds(t *rapid.T, st *pb.RoomState) {
	limits, roles, counts := st.GetTemplate().GetLimits(), map[string]*pb.Role{}, map[string]uint32{}
	for _, r := range st.GetTemplate().GetRoles() {
		roles[r.GetName()] = r
	}
	for _, p := range st.GetPeers() {
		counts[p.GetRole()]++
		role := roles[p.GetRole()]
		if most := role.GetMaxPeers(); most > 0 && counts[p.GetRole()] > most {
			t.Fatalf("role %s has %d peers", p.GetRole(), counts[p.GetRole()])
		}
		if len(p.GetTracks()) > 0 && (proto.Level(role) != 1 || p.GetLost()) {
			t.Fatalf("%v publishes", p)
		}
	}
	working := map[bool]int{}
	for _, o := range st.GetOutputs() {
		if !room.Working(o) {
			continue
		}
		working[o.GetKind() == pb.OutputKind_OUTPUT_KIND_PUSH]++
		if o.GetStream() != "" && !slices.ContainsFunc(st.GetStreams(), func(s *pb.Stream) bool {
			return s.GetName() == o.GetStream() && s.GetState() <= pb.StreamState_STREAM_STATE_LIVE
		}) {
			t.Fatalf("%v without its stream", o)
		}
	}
	if len(st.GetOutputs()) > 64 || working[true] > room.MaxPushes || working[false] > room.MaxRecordings {
		t.Fatalf("%d outputs, %v work", len(st.GetOutputs()), working)
	}
	if len(st.GetPeers()) > int(limits.GetMaxPeers()) || len(st.GetStore()) > int(limits.GetMaxStoreKeys()) {
		t.Fatalf("%d peers, %d keys", len(st.GetPeers()), len(st.GetStore()))
	}
	asked := map[string]bool{}
	for _, r := range st.GetPending() {
		if asked[r.GetPeerId()] {
			t.Fatalf("%s is asked twice", r.GetPeerId())
		}
		asked[r.GetPeerId()] = true
	}
}

// checkSecrecy compares who sees a message with whom it is addressed to.
func checkSecrecy(t *rapid.T, r *room.Replica, id string, ev *pb.Event) {
	m, p := ev.GetMessage(), r.Peer(id)
	if m == nil || p == nil {
		return
	}
	to := m.GetTo()
	want := len(to.GetPeers())+len(to.GetRoles()) == 0 || m.GetSender() == id ||
		slices.Contains(to.GetPeers(), id) || slices.Contains(to.GetRoles(), p.GetRole())
	if got := r.Visible(id, ev); got != want {
		t.Fatalf("%s of role %s sees %v: %v", id, p.GetRole(), m, got)
	}
}

// shownTo is what a client knows from the state at its join and the events that were meant for it.
type shownTo struct {
	peers   map[string]*pb.Peer
	pending map[string]bool
}

func newShown(st *pb.RoomState) *shownTo {
	c := &shownTo{peers: map[string]*pb.Peer{}, pending: map[string]bool{}}
	for _, p := range st.GetPeers() {
		c.peers[p.GetId()] = p
	}
	return c
}

func (c *shownTo) see(id string, r *room.Replica, ev *pb.Event) {
	if !r.Visible(id, ev) {
		return
	}
	switch b := ev.GetBody().(type) {
	case *pb.Event_PeerJoined:
		c.peers[b.PeerJoined.GetPeer().GetId()] = b.PeerJoined.GetPeer()
	case *pb.Event_PeerUpdated:
		c.peers[b.PeerUpdated.GetPeer().GetId()] = b.PeerUpdated.GetPeer()
	case *pb.Event_PeerLeft:
		delete(c.peers, b.PeerLeft.GetPeerId())
	case *pb.Event_TrackPublished:
		c.track(b.TrackPublished.GetPeerId(), b.TrackPublished.GetTrack())
	case *pb.Event_TrackUpdated:
		c.track(b.TrackUpdated.GetPeerId(), b.TrackUpdated.GetTrack())
	case *pb.Event_TrackUnpublished:
		if p := c.peers[b.TrackUnpublished.GetPeerId()]; p != nil {
			p = gproto.Clone(p).(*pb.Peer)
			p.Tracks = slices.DeleteFunc(p.Tracks, func(t *pb.Track) bool { return t.GetId() == b.TrackUnpublished.GetTrackId() })
			c.peers[p.GetId()] = p
		}
	case *pb.Event_RoomEnded:
		clear(c.peers)
		clear(c.pending)
	case *pb.Event_RoleChangeRequested:
		c.pending[b.RoleChangeRequested.GetRequestId()] = true
	case *pb.Event_RoleChangeAnswered:
		delete(c.pending, b.RoleChangeAnswered.GetRequestId())
	}
}

func (c *shownTo) track(peer string, t *pb.Track) {
	p := gproto.Clone(c.peers[peer]).(*pb.Peer)
	p.Tracks = append(slices.DeleteFunc(p.Tracks, func(o *pb.Track) bool { return o.GetId() == t.GetId() }), t)
	slices.SortFunc(p.Tracks, func(a, b *pb.Track) int { return cmpIDs(a.GetId(), b.GetId()) })
	c.peers[peer] = p
}

func cmpIDs(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	if a < b {
		return -1
	}
	return 1
}

// checkClients compares what clients know with what they would be told if they asked for the state now.
func checkClients(t *rapid.T, r *room.Replica, clients map[string]*shownTo) {
	for id, c := range clients {
		self := r.Peer(id)
		if self == nil || self.GetLost() {
			if self == nil {
				delete(clients, id)
			}
			continue
		}
		st := r.StateFor(id)
		if st.GetPeers()[0].GetId() != id {
			t.Fatalf("%s is not first in its own state", id)
		}
		for _, p := range st.GetPeers() {
			want := gproto.Clone(p).(*pb.Peer)
			slices.SortFunc(want.Tracks, func(a, b *pb.Track) int { return cmpIDs(a.GetId(), b.GetId()) })
			got := c.peers[p.GetId()]
			if got == nil && r.Counts().GetTotal() <= r.Template().GetLimits().GetFullPresencePeers() {
				continue // joined while the room was large, and has not been of interest since
			}
			if !gproto.Equal(want, got) {
				t.Fatalf("%s knows %s otherwise (-state +client):\n%s", id, p.GetId(), cmp.Diff(want, got, protocmp.Transform()))
			}
		}
		for known := range c.peers {
			if p := r.Peer(known); p == nil || p.GetLost() {
				t.Fatalf("%s still sees %s, who has left", id, known)
			}
		}
	}
}

// TestPermissions lets a peer without any permission, and somebody who is not in the room, try everything: nothing
// changes but what is the peer's own.
func TestPermissions(t *testing.T) {
	t.Parallel()
	tmpl := bareTemplate(t)
	rapid.Check(t, func(t *rapid.T) {
		s := room.New(room.Config{Room: "demo", SessionID: "se_1", Template: tmpl, Now: start, IDs: counting()})
		for _, role := range []string{"lead", "voice", "ring", "bare"} {
			s.Apply(start, room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_Join{Join: &pb.Join{Role: role}}})
		}
		s.Apply(start, room.Actor{PeerID: "pe_1"}, &pb.Command{Body: &pb.Command_Publish{Publish: &pb.PublishTrack{Kind: pb.Kind_KIND_AUDIO, Source: "mic"}}})
		before := s.Snapshot()
		from := room.Actor{PeerID: rapid.SampledFrom([]string{"pe_4", "pe_7"}).Draw(t, "from"), Node: "a"}
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			_, cmd := draws{t}.step()
			_, evs := s.Apply(start, from, cmd)
			for _, ev := range evs {
				own := ev.GetPeerUpdated().GetPeer().GetId() == "pe_4" || ev.GetPeerLeft().GetPeerId() == "pe_4"
				if !own || from.PeerID != "pe_4" || ev.GetPeerUpdated().GetWhat() == pb.PeerUpdated_WHAT_ROLE {
					t.Fatalf("%v caused %v", cmd, ev)
				}
			}
		}
		after := s.Snapshot()
		for _, st := range []*pb.RoomState{before, after} {
			st.Peers = slices.DeleteFunc(st.Peers, func(p *pb.Peer) bool { return p.GetId() == "pe_4" })
			st.Announced = slices.DeleteFunc(st.Announced, func(id string) bool { return id == "pe_4" })
			delete(st.RoleCounts, "bare")
			st.Seq = 0
		}
		if d := cmp.Diff(before, after, protocmp.Transform()); d != "" {
			t.Fatalf("something changed:\n%s", d)
		}
	})
}

// FuzzCommand sends whatever decodes as a command, from everybody who could send one: no panic, no internal error,
// no effect of a refused command, and replicas follow.
func FuzzCommand(f *testing.F) {
	for _, text := range []string{
		`join {name:"x" role:"lead"}`, `leave {}`, `publish {kind:KIND_AUDIO source:"mic"}`, `send {text:"x" to {roles:"lead" peers:"pe_1"}}`,
		`moderate {pin:4}`, `change_role {peers:"pe_2" role:"far"}`, `set_store {key:"k" value:"1"}`, `mute_peers {roles:"lead" muted:true}`,
		`peer_connection {peer_id:"pe_1" since_ms:-1}`, `stream_report {stream {name:"main" state:99}}`, `control_stream {action:7 layout:99}`,
		`control_output {action:ACTION_START kind:OUTPUT_KIND_PUSH url:"rtmp://a" sealed_url:"x"}`, `output_report {output {id:"ou_1" state:99}}`,
		`control_output {action:ACTION_START kind:OUTPUT_KIND_TRACKS tracks {roles:"none"}}`, `control_output {action:ACTION_RETRY kind:9}`,
		`list_peers {after:"|" limit:4294967295}`, `update_track {track_id:"tr_1" codec:"vp8"}`, `raise_hand {raised:true}`, `end_room {lock:true}`,
	} {
		var cmd pb.Command
		if err := prototext.Unmarshal([]byte(text), &cmd); err != nil {
			f.Fatal(err)
		}
		data, err := gproto.Marshal(&cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	tmpl := template(f, "circles")
	f.Fuzz(func(t *testing.T, data []byte) {
		var cmd pb.Command
		if gproto.Unmarshal(data, &cmd) != nil {
			return
		}
		for _, from := range []room.Actor{{PeerID: "pe_1", Node: "a"}, {PeerID: "pe_2", Node: "a"}, {Management: true}, {Node: "a"}, {}} {
			s := room.New(room.Config{Room: "demo", SessionID: "se_1", Template: tmpl, Now: start, IDs: counting()})
			s.Apply(start, room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_Join{Join: &pb.Join{Role: "lead"}}})
			s.Apply(start, room.Actor{Node: "a"}, &pb.Command{Body: &pb.Command_Join{Join: &pb.Join{Role: "far"}}})
			r := room.NewReplica(s.Snapshot())
			res, evs := s.Apply(start, from, &cmd)
			if res.GetError().GetCode() == string(proto.Internal) || res.GetError() != nil && len(evs) > 0 {
				t.Fatalf("%v: %v, %v", from, res, evs)
			}
			for _, ev := range append(evs, s.Tick(start.Add(time.Hour))...) {
				data, err := gproto.Marshal(ev)
				if err != nil {
					t.Fatalf("an event that cannot be sent: %v", err)
				}
				var got pb.Event
				if err := gproto.Unmarshal(data, &got); err != nil {
					t.Fatal(err)
				}
				if err := r.Apply(&got); err != nil {
					t.Fatal(err)
				}
			}
			if !gproto.Equal(r.Snapshot(), s.Snapshot()) {
				t.Fatalf("%v: the replica differs", from)
			}
		}
	})
}
