package cascade

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/cascade/plan"
	"github.com/amphi-sfu/amphi/media/codec"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"google.golang.org/protobuf/proto"
)

func encode(t testing.TB, m *amphiv1.RelayMessage) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wants(room, home string, list ...*amphiv1.RelayWant) *amphiv1.RelayMessage {
	return &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Wants{Wants: &amphiv1.RelayWants{Room: room, Home: home, Number: 1, Wants: list}}}
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2", "us-3")
		var log lockedBuffer
		home := n.nodes["eu-1"]
		home.m.log = slog.New(slog.NewTextHandler(&log, nil))
		cam := n.publish("eu-1", "cam", codec.Video, 2, 1000)
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"), microphone("mic", "p"))
		n.nodes["us-1"].media.track("cam").show(1)
		n.nodes["us-2"].media.track("cam").show(1)
		wait(time.Second)
		good := &amphiv1.RelayWant{TrackId: "cam", MaxLayer: 0, Labels: []uint32{7}}
		million := make([]uint32, 1_000_000/8)
		var many []*amphiv1.RelayWant
		for i := range maxWants + 1 {
			many = append(many, &amphiv1.RelayWant{TrackId: fmt.Sprint(i)})
		}
		cases := map[string]struct {
			from string
			msg  []byte
		}{
			"malformed":       {"us-3", []byte{0xff, 0xff, 0xff}},
			"unknown_room":    {"us-3", encode(t, wants("elsewhere", "eu-1", good))},
			"not_member":      {"mars-1", encode(t, wants("room", "eu-1", good))},
			"unknown_home":    {"us-3", encode(t, wants("room", "us-1", good))},
			"unknown_track":   {"us-3", encode(t, wants("room", "eu-1", &amphiv1.RelayWant{TrackId: "nothing"}))},
			"too_many_layers": {"us-3", encode(t, wants("room", "eu-1", &amphiv1.RelayWant{TrackId: "cam", MaxLayer: 1_000_000, Labels: million[:1000]}))},
			"loop":            {"us-3", encode(t, wants("room", "us-3", good))},
			"too_many_wants":  {"us-3", encode(t, wants("room", "eu-1", many...))},
			"unknown_label":   {"us-3", encode(t, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Keyframes{Keyframes: &amphiv1.RelayKeyframes{Labels: []uint32{4711}}}})},
			"label_in_use":    {"us-3", encode(t, wants("room", "eu-1", &amphiv1.RelayWant{TrackId: "cam", MaxLayer: 1, Labels: []uint32{7, 7}}))},
		}
		const times = 150
		for reason, c := range cases {
			before := home.m.Stats("").Refused[reason]
			for range times {
				home.m.TrunkMessage(c.from, c.msg)
			}
			if got := home.m.Stats("").Refused[reason] - before; got != times {
				t.Errorf("%d of %d counted as %s", got, times, reason)
			}
		}
		for range times {
			home.m.TrunkMessage("us-3", make([]byte, maxMessage+1))
			home.m.TrunkMessage("us-3", encode(t, &amphiv1.RelayMessage{}))
			home.m.TrunkMessage("us-3", encode(t, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Reports{Reports: &amphiv1.RelayReports{Reports: []*amphiv1.RelayReport{{Label: 5}}}}}))
			if home.m.TrunkMedia("us-1", 1, 5, []byte("garbage"), home.media.Now()) {
				t.Error("a label of nobody is taken")
			}
			home.m.Update("room", &amphiv1.RelayPlan{Trees: []*amphiv1.RelayTree{{Home: 9}}}, nil)
		}
		edge := n.nodes["us-1"].m
		edge.in.mu.RLock()
		var labels []uint32
		for number := range edge.in.labels {
			labels = append(labels, number)
		}
		edge.in.mu.RUnlock()
		for _, number := range labels { // those were assigned to another node
			for _, from := range []string{"us-2", "us-3"} {
				if edge.TrunkMedia(from, number, 1<<40, []byte("garbage"), n.nodes["us-1"].media.Now()) {
					t.Errorf("%s may use the label of another node", from)
				}
			}
		}
		wait(5 * time.Second)
		if lines := strings.Count(log.String(), "refusing what other nodes"); lines < 1 || lines > 6 {
			t.Errorf("%d lines tell of what was refused:\n%s", lines, log.String())
		}
		for _, id := range []string{"us-1", "us-2"} {
			for i := range 2 {
				if longest, err := gaps(n.nodes[id].media.history("cam", i)); err != nil || longest > 150*time.Millisecond {
					t.Errorf("%s, encoding %d: %v without anything, %v", id, i, longest, err)
				}
			}
		}
		if cam.t.interest() != 1 {
			t.Errorf("%d is wanted of the publisher", cam.t.interest())
		}
	})
}

func TestStaleGenerationIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1")
		n.publish("eu-1", "cam", codec.Video, 1, 1000)
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		edge := n.nodes["us-1"]
		edge.media.track("cam").show(0)
		wait(time.Second)
		edge.m.TrunkMessage("eu-1", encode(t, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Answer{Answer: &amphiv1.RelayAnswer{
			Room: "room", Home: "eu-1", Path: []string{"eu-1"}, Offers: []*amphiv1.RelayOffer{{TrackId: "cam", Generation: 5}},
		}}}))
		wait(time.Second)
		if got := edge.m.Stats("").Refused["stale_generation"]; got != 1 {
			t.Errorf("%d refused", got)
		}
		if longest, err := gaps(edge.media.history("cam", 0)); err != nil || longest > 100*time.Millisecond {
			t.Errorf("%v without anything, %v", longest, err)
		}
	})
}

func TestLeasesExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1")
		cam := n.publish("eu-1", "cam", codec.Video, 1, 1000)
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		n.nodes["us-1"].media.track("cam").show(0)
		wait(time.Second)
		n.mu.Lock()
		n.deaf["us-1"] = true // it is not heard any more, though the trunk is up
		n.mu.Unlock()
		wait(lease + 200*time.Millisecond)
		if got := n.nodes["eu-1"].m.Stats("").Relays; len(got) != 0 || cam.t.interest() != -1 {
			t.Errorf("still sent: %+v, wanted %d", got, cam.t.interest())
		}
	})
}

func TestRoomCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1")
		cam := n.publish("eu-1", "cam", codec.Video, 1, 1000)
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		edge := n.nodes["us-1"]
		edge.media.track("cam").show(0)
		wait(time.Second)
		edge.m.Close("room")
		wait(200 * time.Millisecond)
		if edge.media.track("cam") != nil || cam.t.interest() != -1 {
			t.Errorf("the track is still there, or wanted: %d", cam.t.interest())
		}
		if s := edge.m.Stats(""); len(s.Parents) != 0 || len(edge.m.in.labels) != 0 {
			t.Errorf("left: %+v, %d labels", s, len(edge.m.in.labels))
		}
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		edge.media.track("cam").show(0)
		wait(time.Second)
		if len(edge.media.history("cam", 0)) == 0 {
			t.Error("opened again, nothing comes")
		}
	})
}

// FuzzMessage takes whatever another node may say: it neither panics nor keeps more than it should.
func FuzzMessage(f *testing.F) {
	f.Add(encode(f, wants("room", "home", &amphiv1.RelayWant{TrackId: "cam", MaxLayer: 3, Labels: []uint32{1, 2, 3, 4}, Have: []uint64{1, 2, 3, 4}})))
	f.Add(encode(f, wants("room", "self", &amphiv1.RelayWant{TrackId: "own", MaxLayer: -1})))
	f.Add(encode(f, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Answer{Answer: &amphiv1.RelayAnswer{
		Room: "room", Home: "home", Number: 1, Path: []string{"home"},
		Offers:  []*amphiv1.RelayOffer{{TrackId: "cam", Generation: 1 << 60, Encodings: []*amphiv1.RelayEncoding{{PayloadType: 96, Width: 640}}}},
		Refused: []*amphiv1.RelayRefusal{{TrackId: "cam"}, {}},
	}}}))
	f.Add(encode(f, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Reports{Reports: &amphiv1.RelayReports{Reports: []*amphiv1.RelayReport{{Label: 1, Ntp: 1}}}}}))
	f.Add(encode(f, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Keyframes{Keyframes: &amphiv1.RelayKeyframes{Labels: []uint32{1, 2}}}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		fake := newFakeMedia()
		m := New(Config{Node: "self"}, fake, silentTrunks{})
		p := &plan.Plan{Trees: []plan.Tree{
			{Home: "home", Hops: []plan.Hop{{Node: "self", Parent: "home", Backup: "home"}, {Node: "other", Parent: "self", Backup: "home"}}},
			{Home: "self", Hops: []plan.Hop{{Node: "home", Parent: "self", Backup: "self"}, {Node: "other", Parent: "home", Backup: "self"}}},
		}}
		m.TrunkUp("home")
		m.TrunkUp("other")
		fake.publish("own", codec.Video, 2)
		m.Update("room", plan.Encode(p, 1, map[string]string{"p": "home", "q": "self"}), []Track{camera("cam", "p"), camera("own", "q")})
		for _, from := range []string{"home", "other", "stranger"} {
			m.TrunkMessage(from, raw)
		}
		if s := m.Stats(""); len(s.Relays) > 4 {
			t.Errorf("%d relays", len(s.Relays))
		}
		m.shut()
		if len(m.in.labels)+len(m.out.relays) != 0 {
			t.Error("labels are left")
		}
		fake.release()
	})
}

// silentTrunks reach nobody.
type silentTrunks struct{}

func (silentTrunks) Message(string, []byte) error               { return nil }
func (silentTrunks) Send(string, uint32, uint64, Class, []byte) {}
