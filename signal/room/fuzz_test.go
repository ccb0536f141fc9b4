package room_test

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
	"google.golang.org/protobuf/encoding/prototext"
	gproto "google.golang.org/protobuf/proto"
)

// FuzzCommand sends whatever decodes as a command, from everybody who could send one: no panic, no internal error,
// no effect of a refused command, and replicas follow.
func FuzzCommand(f *testing.F) {
	for _, text := range []string{
		`join {name:"x" role:"lead"}`, `leave {}`, `publish {kind:KIND_AUDIO source:"mic"}`, `send {text:"x" to {roles:"lead" peers:"pe_1"}}`,
		`moderate {pin:4}`, `change_role {peers:"pe_2" role:"far"}`, `set_store {key:"k" value:"1"}`, `mute_peers {roles:"lead" muted:true}`,
		`peer_connection {peer_id:"pe_1" since_ms:-1}`, `stream_report {stream {name:"main" state:99}}`, `control_stream {action:7 layout:99}`,
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
