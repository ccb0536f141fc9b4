package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func putRoom(name string) *pb.RegistryCommand {
	return &pb.RegistryCommand{TimeMs: 7, Body: &pb.RegistryCommand_PutRoom{PutRoom: &pb.Room{Name: name, Template: "t"}}}
}

func putCode(code, room, role string) *pb.RegistryCommand {
	return &pb.RegistryCommand{Body: &pb.RegistryCommand_PutCode{PutCode: &pb.RoomCode{Code: code, Room: room, Role: role}}}
}

func putTemplate(name string) *pb.RegistryCommand {
	return &pb.RegistryCommand{Body: &pb.RegistryCommand_PutTemplate{PutTemplate: &pb.Template{Name: name}}}
}

func must(t testing.TB, m *registry.Machine, cmds ...*pb.RegistryCommand) {
	t.Helper()
	for _, c := range cmds {
		if err := m.Apply(c); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
	}
}

func refused(t testing.TB, m *registry.Machine, cmd *pb.RegistryCommand, want proto.Code) {
	t.Helper()
	before := gproto.Clone(m.Snapshot())
	if err := m.Apply(cmd); proto.CodeOf(err) != want {
		t.Errorf("%v: got %v, want %s", cmd, err, want)
	}
	if !gproto.Equal(before, m.Snapshot()) {
		t.Errorf("%v: was refused but changed something", cmd)
	}
}

func TestRoomsAndCodes(t *testing.T) {
	t.Parallel()
	m := registry.New()
	must(t, m, putTemplate("t"), putRoom("Demo"), putCode("c1", "demo", "host"), putCode("c1", "Demo", "host"))
	r := m.View().GetRooms()["demo"]
	if r.GetName() != "Demo" || r.GetCreatedMs() != 7 {
		t.Errorf("room %v", r)
	}
	refused(t, m, putCode("c1", "demo", "viewer"), proto.Conflict)
	refused(t, m, putCode("c2", "other", "host"), proto.NotFound)
	refused(t, m, putCode("", "demo", "host"), proto.InvalidArgument)
	refused(t, m, putRoom("a/b"), proto.InvalidArgument)
	only := putRoom("DEMO")
	only.OnlyNew = true
	refused(t, m, only, proto.Conflict)
	refused(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteTemplate{DeleteTemplate: "t"}}, proto.Conflict)
	refused(t, m, &pb.RegistryCommand{}, proto.InvalidMessage)
	for i := range registry.MaxCodesPerRoom - 1 {
		must(t, m, putCode(fmt.Sprint("x", i), "demo", "host"))
	}
	refused(t, m, putCode("one more", "demo", "host"), proto.LimitExceeded)
	must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteRoom{DeleteRoom: "dEMO"}})
	if n := len(m.View().GetCodes()); n != 0 {
		t.Errorf("%d codes outlive their room", n)
	}
	refused(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteRoom{DeleteRoom: "demo"}}, proto.NotFound)
	must(t, m, putRoom("demo"), putCode("x1", "demo", "host"), &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteRoom{DeleteRoom: "demo"}},
		&pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteTemplate{DeleteTemplate: "t"}})
}

func TestTemplateRevisions(t *testing.T) {
	t.Parallel()
	m := registry.New()
	at := func(rev uint64) *pb.RegistryCommand {
		c := putTemplate("t")
		c.IfRevision = &rev
		return c
	}
	refused(t, m, at(5), proto.Conflict)
	must(t, m, at(0))
	rev := m.View().GetTemplates()["t"].GetRevision()
	refused(t, m, at(0), proto.Conflict)
	must(t, m, at(rev))
	if now := m.View().GetTemplates()["t"].GetRevision(); now <= rev {
		t.Errorf("revision %d after %d", now, rev)
	}
	refused(t, m, putTemplate(strings.Repeat("x", 65)), proto.InvalidArgument)
	big := putTemplate("big")
	big.GetPutTemplate().Description = strings.Repeat("x", registry.MaxMessage)
	refused(t, m, big, proto.MessageTooLarge)
}

func TestRepeatedCommandsDoNothing(t *testing.T) {
	t.Parallel()
	m := registry.New()
	first := putRoom("demo")
	first.Id = "1"
	must(t, m, first)
	second := putRoom("demo")
	second.GetPutRoom().Metadata = "newer"
	must(t, m, second, first)
	if got := m.View().GetRooms()["demo"].GetMetadata(); got != "newer" {
		t.Errorf("the late repetition won: metadata %q", got)
	}
	m = registry.Restore(gproto.Clone(m.Snapshot()).(*pb.Registry))
	must(t, m, first)
	if got := m.View().GetRooms()["demo"].GetMetadata(); got != "newer" {
		t.Errorf("the late repetition won after a restart: metadata %q", got)
	}
	for i := range 1<<14 + 100 {
		c := putRoom("other")
		c.Id = fmt.Sprint("id", i)
		must(t, m, c)
	}
	if n := len(m.View().GetRecentIds()); n > 1<<14 {
		t.Errorf("%d ids are kept", n)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	m := registry.New()
	put := func(id string, attendance int) {
		s := &pb.Session{Id: id}
		for range attendance {
			s.Attendance = append(s.Attendance, &pb.Attendance{PeerId: "p"})
		}
		must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_PutSession{PutSession: s}})
	}
	for i := range registry.MaxSessions + 10 {
		put(fmt.Sprint(i), 1)
	}
	all := m.View().GetSessions()
	if len(all) != registry.MaxSessions || all[0].GetId() != "10" {
		t.Errorf("%d sessions, first %s", len(all), all[0].GetId())
	}
	put("1009", 2)
	if all := m.View().GetSessions(); len(all) != registry.MaxSessions || len(all[len(all)-1].GetAttendance()) != 2 {
		t.Errorf("replacing a session: %d sessions", len(all))
	}
	for i := range 6 {
		put(fmt.Sprint("big", i), 50000)
	}
	if n := len(m.View().GetSessions()); n != 4 {
		t.Errorf("%d sessions after large ones, want 4", n)
	}
}

func TestAssetsAreBounded(t *testing.T) {
	t.Parallel()
	m := registry.New()
	put := func(id string, ms int64) *pb.RegistryCommand {
		return &pb.RegistryCommand{TimeMs: ms, Body: &pb.RegistryCommand_PutAsset{PutAsset: &pb.Asset{Id: id}}}
	}
	for i := range registry.MaxAssets + 2 {
		must(t, m, put(fmt.Sprint(i), int64(1000+i)))
	}
	again := put("5", 1)
	again.GetPutAsset().State = pb.AssetState_ASSET_STATE_READY
	must(t, m, again)
	all := m.View().GetAssets()
	if len(all) != registry.MaxAssets || all["0"] != nil || all["1"] != nil || all["2"] == nil {
		t.Errorf("%d assets", len(all))
	}
	if a := all["5"]; a.GetCreatedMs() != 1005 || a.GetState() != pb.AssetState_ASSET_STATE_READY {
		t.Errorf("replaced: %v", a)
	}
	must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteAsset{DeleteAsset: "5"}})
	refused(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteAsset{DeleteAsset: "5"}}, proto.NotFound)
	refused(t, m, put("", 1), proto.InvalidArgument)
	refused(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_PutAsset{PutAsset: &pb.Asset{Id: "x", Failure: strings.Repeat("x", registry.MaxAsset)}}}, proto.MessageTooLarge)
}

func TestStore(t *testing.T) {
	t.Parallel()
	m := registry.New()
	put := func(room, key, value string, deleted bool) *pb.RegistryCommand {
		return &pb.RegistryCommand{Body: &pb.RegistryCommand_PutStore{PutStore: &pb.PutStore{
			Room: room, Entry: &pb.StoreEntry{Key: key, Value: value}, Deleted: deleted,
		}}}
	}
	must(t, m, put("Demo", "a", "1", false), put("demo", "b", "2", false), put("demo", "a", "3", false))
	if got := m.View().GetStore()["demo"].GetEntries(); len(got) != 2 || got[0].GetValue() != "3" {
		t.Errorf("store %v", got)
	}
	must(t, m, put("demo", "a", "", true), put("demo", "zz", "", true), put("demo", "b", "", true))
	if len(m.View().GetStore()) != 0 {
		t.Errorf("store %v", m.View().GetStore())
	}
	refused(t, m, put("demo", "", "", false), proto.InvalidArgument)
	refused(t, m, put("", "k", "", false), proto.InvalidArgument)
	for i := range registry.MaxStoreKeys {
		must(t, m, put("demo", fmt.Sprint(i), "1", false))
	}
	refused(t, m, put("demo", "more", "1", false), proto.LimitExceeded)
}

func TestKeysAndSecret(t *testing.T) {
	t.Parallel()
	m := registry.New()
	key := func(k *pb.ApiKey) *pb.RegistryCommand {
		return &pb.RegistryCommand{Body: &pb.RegistryCommand_PutKey{PutKey: k}}
	}
	must(t, m, key(&pb.ApiKey{Id: "k", Secret: "s"}), key(&pb.ApiKey{Id: "k", PublicKey: "p"}))
	refused(t, m, key(&pb.ApiKey{Id: "k"}), proto.InvalidArgument)
	refused(t, m, key(&pb.ApiKey{Id: "k", Secret: "s", PublicKey: "p"}), proto.InvalidArgument)
	secret := &pb.RegistryCommand{OnlyNew: true, Body: &pb.RegistryCommand_SetNodeSecret{SetNodeSecret: make([]byte, 32)}}
	must(t, m, secret)
	refused(t, m, secret, proto.Conflict)
	refused(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_SetNodeSecret{SetNodeSecret: make([]byte, 31)}}, proto.InvalidArgument)
}

// TestReplayAgrees applies the same random commands to a machine and to one that is restored from a snapshot on the
// way: both must end the same, and refused commands must change nothing.
func TestReplayAgrees(t *testing.T) {
	t.Parallel()
	name := rapid.SampledFrom([]string{"", "a", "A", "b", "c/d"})
	command := rapid.Custom(func(t *rapid.T) *pb.RegistryCommand {
		c := &pb.RegistryCommand{
			Id: rapid.SampledFrom([]string{"", "1", "2", "3"}).Draw(t, "id"), TimeMs: rapid.Int64().Draw(t, "time"),
			OnlyNew: rapid.Bool().Draw(t, "new"),
		}
		n := name.Draw(t, "name")
		switch rapid.IntRange(0, 10).Draw(t, "kind") {
		case 0:
			c.Body = putTemplate(n).GetBody()
		case 1:
			c.Body = putRoom(n).GetBody()
		case 2:
			c.Body = putCode(name.Draw(t, "code"), n, "r").GetBody()
		case 3:
			c.Body = &pb.RegistryCommand_DeleteRoom{DeleteRoom: n}
		case 4:
			c.Body = &pb.RegistryCommand_DeleteTemplate{DeleteTemplate: n}
		case 5:
			c.Body = &pb.RegistryCommand_PutSession{PutSession: &pb.Session{Id: n}}
		case 6:
			c.Body = &pb.RegistryCommand_PutKey{PutKey: &pb.ApiKey{Id: n, Secret: "s"}}
		case 8:
			c.Body = &pb.RegistryCommand_PutAsset{PutAsset: &pb.Asset{Id: n}}
		case 9:
			c.Body = &pb.RegistryCommand_DeleteAsset{DeleteAsset: n}
		case 7:
			c.Body = &pb.RegistryCommand_PutStore{PutStore: &pb.PutStore{Room: n, Entry: &pb.StoreEntry{Key: "k"}, Deleted: rapid.Bool().Draw(t, "deleted")}}
		}
		return c
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := registry.New(), registry.New()
		for i, c := range rapid.SliceOfN(command, 0, 60).Draw(t, "commands") {
			before := gproto.Clone(a.Snapshot())
			errA := a.Apply(c)
			if errA != nil && !gproto.Equal(before, a.Snapshot()) {
				t.Fatalf("command %d was refused (%v) but changed something", i, errA)
			}
			if errB := b.Apply(c); (errA == nil) != (errB == nil) {
				t.Fatalf("command %d: %v here, %v there", i, errA, errB)
			}
			if i%7 == 0 {
				b = registry.Restore(gproto.Clone(b.Snapshot()).(*pb.Registry))
			}
		}
		if !gproto.Equal(a.Snapshot(), b.Snapshot()) {
			t.Fatalf("%v\n%v", a.Snapshot(), b.Snapshot())
		}
	})
}

func FuzzApply(f *testing.F) {
	for _, c := range []*pb.RegistryCommand{putTemplate("t"), putRoom("demo"), putCode("c", "demo", "host")} {
		data, err := gproto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c pb.RegistryCommand
		if gproto.Unmarshal(data, &c) != nil {
			return
		}
		m := registry.New()
		must(t, m, putRoom("demo"))
		if err := m.Apply(&c); err != nil && proto.CodeOf(err) == proto.Internal {
			t.Fatalf("an error without a code: %v", err)
		}
		again := registry.Restore(gproto.Clone(m.Snapshot()).(*pb.Registry))
		if !gproto.Equal(again.Snapshot(), m.Snapshot()) {
			t.Fatal("the snapshot does not restore")
		}
	})
}
