package signal

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// diary collects what a fake is told, and lets a test wait for it.
type diary struct {
	mu    sync.Mutex // guards the fields below
	lines []string
	more  chan struct{}
}

func newDiary() *diary { return &diary{more: make(chan struct{})} }

func (d *diary) write(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
	close(d.more)
	d.more = make(chan struct{})
}

// wait waits for a line.
func (d *diary) wait(t *testing.T, line string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		d.mu.Lock()
		found, lines, more := slices.Contains(d.lines, line), slices.Clone(d.lines), d.more
		d.mu.Unlock()
		if found {
			return
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("no line %q in %q", line, lines)
		}
	}
}

// fakeStreams is an origin that does as it is told.
type fakeStreams struct {
	*diary
	fail error
	// hang keeps the stream of this room from starting until it is closed.
	hang map[string]chan struct{}
}

func (s *fakeStreams) Start(room string, settings *amphiv1.StreamSettings, stream *amphiv1.Stream) error {
	if wait := s.hang[room]; wait != nil {
		<-wait
	}
	s.write("start %s %s of %v as %s", room, settings.GetName(), settings.GetRoles(), stream.GetLayout())
	return s.fail
}

func (s *fakeStreams) SetLayout(room string, stream *amphiv1.Stream) {
	line := fmt.Sprintf("layout %s %s %s", room, stream.GetName(), stream.GetLayout())
	if o := stream.GetLayoutOptions(); o != nil {
		line += fmt.Sprintf(" with %d tiles of %q", o.GetMaxTiles(), o.GetBackground())
	}
	s.write("%s", line)
}

func (s *fakeStreams) Stop(room, stream string) { s.write("stop %s %s", room, stream) }

func (s *fakeStreams) Cue(room, stream string, cue *amphiv1.StreamCue) {
	m, c := cue.GetMetadata(), cue.GetCaptions()
	s.write("cue %s %s %s %s %s%s %d", room, stream, m.GetType(), m.GetText(), m.GetSender(), c.GetLanguage(), len(c.GetCaptions()))
}

func control(action amphiv1.ControlStream_Action, layout amphiv1.LayoutKind) *amphiv1.Command {
	return &amphiv1.Command{Body: &amphiv1.Command_ControlStream{ControlStream: &amphiv1.ControlStream{Action: action, Layout: layout}}}
}

func (b *browser) stream(state amphiv1.StreamState) *amphiv1.Stream {
	b.t.Helper()
	return b.event(state.String(), func(e *amphiv1.Event) bool { return e.GetStreamChanged().GetStream().GetState() == state }).GetStreamChanged().GetStream()
}

// What is said to everybody in a type that the template names, and what is put into the stream on purpose, reaches it.
func TestCuesReachTheStream(t *testing.T) {
	t.Parallel()
	origin := &fakeStreams{diary: newDiary()}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Streams = origin })
	ann, vera := w.enter(t, "steward", "Ann"), w.enter(t, "field", "Vera")
	send := func(b *browser, m *amphiv1.SendMessage) {
		t.Helper()
		if ans := b.do(&amphiv1.Command{Body: &amphiv1.Command_Send{Send: m}}); ans.GetError() != nil {
			t.Fatal(ans.GetError())
		}
	}
	cue := func(b *browser, text string) *amphiv1.Answer {
		return b.do(&amphiv1.Command{Body: &amphiv1.Command_StreamCue{StreamCue: &amphiv1.StreamCue{
			Body: &amphiv1.StreamCue_Metadata{Metadata: &amphiv1.TimedMetadata{Type: "goal", Text: text}}}}})
	}
	if ans := cue(ann, "too early"); ans.GetError().GetCode() != string(proto.NotFound) {
		t.Errorf("without a stream: %v", ans)
	}
	ann.do(control(amphiv1.ControlStream_ACTION_START, 0))
	send(vera, &amphiv1.SendMessage{Text: "hi"})
	send(vera, &amphiv1.SendMessage{Text: "psst", To: &amphiv1.Recipients{Roles: []string{"steward"}}})
	send(ann, &amphiv1.SendMessage{Type: "other", Text: "no"})
	send(ann, &amphiv1.SendMessage{Type: "poll", Text: "{}"})
	origin.wait(t, "cue hall main chat hi Vera 0")
	origin.wait(t, "cue hall main poll {} Ann 0")
	if ans := cue(vera, "no"); ans.GetError().GetCode() != string(proto.PermissionDenied) {
		t.Errorf("a viewer: %v", ans)
	}
	if m := cue(ann, "1:0").GetResult().GetStreamCue().GetCue().GetMetadata(); m.GetId() == "" || time.Since(time.UnixMilli(m.GetTimeMs())) > time.Minute {
		t.Errorf("answered %v", m)
	}
	origin.wait(t, "cue hall main goal 1:0 Ann 0")
	now := time.Now().UnixMilli()
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_StreamCue{StreamCue: &amphiv1.StreamCue{Body: &amphiv1.StreamCue_Captions{
		Captions: &amphiv1.Captions{Captions: []*amphiv1.Caption{{StartMs: now, EndMs: now + 1000, Text: "Hello"}}}}}}})
	origin.wait(t, "cue hall main   en 1")
	origin.mu.Lock()
	defer origin.mu.Unlock()
	for _, l := range origin.lines {
		if strings.Contains(l, "psst") || strings.Contains(l, "other") {
			t.Errorf("in the stream: %s", l)
		}
	}
}

func TestStreamsAreCarriedOut(t *testing.T) {
	t.Parallel()
	origin := &fakeStreams{diary: newDiary()}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Streams = origin })
	ann, vera := w.enter(t, "steward", "Ann"), w.enter(t, "field", "Vera")
	if ans := vera.do(control(amphiv1.ControlStream_ACTION_START, 0)); ans.GetError().GetCode() != string(proto.PermissionDenied) {
		t.Errorf("a viewer was answered %v", ans)
	}
	if ans := ann.do(control(amphiv1.ControlStream_ACTION_START, 0)); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	origin.wait(t, "start hall main of [singer steward] as LAYOUT_KIND_AUTO")
	w.ReportStream("Hall", &amphiv1.Stream{Name: "main", State: amphiv1.StreamState_STREAM_STATE_LIVE, Url: "/v1/hls/hall/main/index.m3u8"})
	if st := vera.stream(amphiv1.StreamState_STREAM_STATE_LIVE); st.GetUrl() == "" {
		t.Errorf("live with %v", st)
	}
	ann.do(control(amphiv1.ControlStream_ACTION_LAYOUT, amphiv1.LayoutKind_LAYOUT_KIND_GRID))
	origin.wait(t, "layout hall main LAYOUT_KIND_GRID")
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_ControlStream{ControlStream: &amphiv1.ControlStream{
		Action: amphiv1.ControlStream_ACTION_LAYOUT, LayoutOptions: &amphiv1.LayoutOptions{MaxTiles: 4, Background: "#102030"}}}})
	origin.wait(t, `layout hall main LAYOUT_KIND_GRID with 4 tiles of "#102030"`)
	if ans := ann.do(&amphiv1.Command{Body: &amphiv1.Command_ControlStream{ControlStream: &amphiv1.ControlStream{
		Action: amphiv1.ControlStream_ACTION_LAYOUT, LayoutOptions: &amphiv1.LayoutOptions{MaxTiles: 99}}}}); ans.GetError().GetCode() != string(proto.InvalidArgument) {
		t.Errorf("99 tiles were answered %v", ans)
	}
	ann.do(control(amphiv1.ControlStream_ACTION_STOP, 0))
	origin.wait(t, "stop hall main")
	vera.stream(amphiv1.StreamState_STREAM_STATE_STOPPED)
	// The end of the session ends what runs.
	ann.do(control(amphiv1.ControlStream_ACTION_START, amphiv1.LayoutKind_LAYOUT_KIND_SINGLE))
	origin.wait(t, "start hall main of [singer steward] as LAYOUT_KIND_SINGLE")
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: &amphiv1.EndRoom{}}})
	deadline := time.Now().Add(patience)
	for n := 0; n < 2 && time.Now().Before(deadline); {
		origin.wait(t, "stop hall main")
		origin.mu.Lock()
		n = 0
		for _, l := range origin.lines {
			if l == "stop hall main" {
				n++
			}
		}
		more := origin.more
		origin.mu.Unlock()
		if n < 2 {
			select {
			case <-more:
			case <-time.After(patience):
				t.Fatal("the stream outlived its session")
			}
		}
	}
}

// fullStreams has no room.
type fullStreams struct{ *fakeStreams }

func (fullStreams) Admit(string, *amphiv1.StreamSettings) error {
	e := proto.Errorf(proto.StreamFailed, "no room for it")
	e.Details = map[string]string{"needs_cores": "0.50"}
	return e
}

func TestStreamIsRefusedWhereThereIsNoRoom(t *testing.T) {
	t.Parallel()
	origin := &fakeStreams{diary: newDiary()}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Streams = fullStreams{origin} })
	ann, vera := w.enter(t, "steward", "Ann"), w.enter(t, "field", "Vera")
	if ans := vera.do(control(amphiv1.ControlStream_ACTION_START, 0)); ans.GetError().GetCode() != string(proto.PermissionDenied) {
		t.Errorf("a viewer was answered %v", ans)
	}
	ans := ann.do(control(amphiv1.ControlStream_ACTION_START, 0))
	if e := ans.GetError(); e.GetCode() != string(proto.StreamFailed) || e.GetDetails()["needs_cores"] != "0.50" {
		t.Errorf("answered %v", ans)
	}
	if ans := ann.do(control(amphiv1.ControlStream_ACTION_LAYOUT, amphiv1.LayoutKind_LAYOUT_KIND_GRID)); ans.GetError() != nil {
		t.Error(ans.GetError())
	}
	if len(origin.lines) != 0 {
		t.Errorf("%q", origin.lines)
	}
}

func TestStreamThatCannotStartFails(t *testing.T) {
	t.Parallel()
	origin := &fakeStreams{diary: newDiary(), fail: proto.Errorf(proto.StreamFailed, "no room for it")}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Streams = origin })
	ann := w.enter(t, "steward", "Ann")
	ann.do(control(amphiv1.ControlStream_ACTION_START, 0))
	if st := ann.stream(amphiv1.StreamState_STREAM_STATE_FAILED); st.GetFailure() != "no room for it" {
		t.Errorf("failed with %v", st)
	}
	// It can be asked for again.
	ann.do(control(amphiv1.ControlStream_ACTION_START, 0))
	ann.stream(amphiv1.StreamState_STREAM_STATE_FAILED)
}

// TestWatchShowsTheStage follows what a composer follows: who publishes what, muted or not, and who speaks.
func TestWatchShowsTheStage(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	w := newWorld(t, withMedia(m))
	book := newDiary()
	w.Watch(func(room string, v *StageView) {
		if v == nil {
			book.write("%s closed", room)
			return
		}
		line := room
		for _, p := range v.Peers {
			line += " " + p.GetName()
			for _, t := range p.GetTracks() {
				line += fmt.Sprintf(" %s:%v", t.GetSource(), t.GetMuted())
			}
		}
		for _, s := range v.Speakers {
			line += fmt.Sprint(" speaks ", s.GetLevel())
		}
		book.write("%s", line)
	})
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "singer", "Bob")
	w.enter(t, "field", "Vera")
	mic := ann.publish(audio, "mic", false)
	ann.offer(1, "v=0\r\n", "0", mic)
	bob.publish(video, "camera", true)
	book.wait(t, "hall Ann mic:false Bob camera:true")
	m.rooms["hall"].speakers([]Speaking{{mic, -20}})
	book.wait(t, "hall Ann mic:false Bob camera:true speaks -20")
	if v := w.Stage("HALL"); len(v.Peers) != 2 || v.Template.GetName() != "concert" || v.SessionID == "" {
		t.Errorf("the stage is %+v", v)
	}
	late := newDiary()
	w.Watch(func(room string, v *StageView) {
		if v != nil {
			late.write("%s has %d", room, len(v.Peers))
		}
	})
	late.wait(t, "hall has 2")
	if ans := bob.do(&amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}}); ans.GetError() != nil {
		t.Error(ans.GetError())
	}
	book.wait(t, "hall Ann mic:false speaks -20")
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: &amphiv1.EndRoom{}}})
	book.wait(t, "hall")
}

func TestRoomsForTheDashboard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if rooms := w.Rooms(t.Context()); len(rooms) != 0 {
		t.Errorf("%v", rooms)
	}
	ann := w.enter(t, "steward", "Ann")
	w.enter(t, "field", "Vera")
	ann.publish(audio, "mic", true)
	rooms := w.Rooms(t.Context())
	if len(rooms) != 1 || rooms[0].GetOwner() != "no_a" || rooms[0].GetEpoch() != 1 || len(rooms[0].GetPeers()) != 2 {
		t.Fatalf("%v", rooms)
	}
	if d := cmp.Diff(map[uint32]uint32{1: 1, 3: 1}, rooms[0].GetPeersByLevel()); d != "" {
		t.Error(d)
	}
	first := rooms[0].GetPeers()[0]
	if first.GetName() != "Ann" || first.GetLevel() != 1 || len(first.GetUp()) != 1 || !first.GetUp()[0].GetMuted() || first.GetRemote() == "" {
		t.Errorf("%v", first)
	}
}

// TestStreamThatHangsDelaysNoOther has the start of one room's stream hang; another room's starts and stops meanwhile.
func TestStreamThatHangsDelaysNoOther(t *testing.T) {
	t.Parallel()
	free := make(chan struct{})
	origin := &fakeStreams{diary: newDiary(), hang: map[string]chan struct{}{"attic": free}}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Streams = origin })
	stream := func(state amphiv1.StreamState) *amphiv1.Stream { return &amphiv1.Stream{Name: "main", State: state} }
	const starting, stopped = amphiv1.StreamState_STREAM_STATE_STARTING, amphiv1.StreamState_STREAM_STATE_STOPPED
	w.streams.Changed("attic", nil, stream(starting))
	w.streams.Changed("attic", nil, stream(stopped))
	w.streams.Changed("cellar", nil, stream(starting))
	w.streams.Changed("cellar", nil, nil)
	origin.wait(t, "stop cellar main")
	if slices.Contains(origin.told(), "stop attic main") {
		t.Error("stopped before it was started")
	}
	close(free)
	origin.wait(t, "stop attic main")
	want := []string{"start cellar main of [] as LAYOUT_KIND_UNSPECIFIED", "stop cellar main",
		"start attic main of [] as LAYOUT_KIND_UNSPECIFIED", "stop attic main"}
	if d := cmp.Diff(want, origin.told()); d != "" {
		t.Error(d)
	}
}

func (d *diary) told() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}
