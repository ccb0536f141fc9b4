package hls

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/hls/layout"
	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media/packet"
)

func newTestFeed(c *composer) *feed {
	return &feed{in: wire.AddInput{ID: 1, Kind: wire.Video}, to: c, video: true, failed: map[Encoding]int{}}
}

// steps runs the loop's part n times; the given encodings send meanwhile.
func steps(f *feed, t track, w, h, n int, sending ...*encoding) {
	for range n {
		for _, e := range sending {
			e.push(false, nil)
		}
		f.step(t, w, h)
	}
}

func TestFeedChoosesWhatFits(t *testing.T) {
	t.Parallel()
	low, mid, high := video(1, 320, 180), video(2, 640, 360), video(3, 1280, 720)
	unknown := video(4, 0, 0)
	for _, c := range []struct {
		name string
		list track
		w, h int
		want *encoding
	}{
		{"small tile", track{low, mid, high}, 320, 180, low},
		{"a little larger", track{low, mid, high}, 376, 212, low},
		{"half", track{low, mid, high}, 636, 356, mid},
		{"full", track{low, mid, high}, 1280, 720, high},
		{"more than there is", track{low, mid}, 1280, 720, mid},
		{"tall tile is cropped", track{low, mid, high}, 360, 640, high},
		{"unknown waits", track{low, unknown}, 1280, 720, low},
		{"only unknown", track{unknown}, 1280, 720, unknown},
	} {
		f := newTestFeed(&composer{})
		f.step(c.list, c.w, c.h)
		if c.want.attached() != 1 || c.want.keyframesAsked() == 0 {
			t.Errorf("%s: not attached to %d", c.name, c.want.ssrc)
		}
		if got := c.want.wantedAt(); got != [2]int{c.w, c.h} {
			t.Errorf("%s: wanted at %v", c.name, got)
		}
		f.close()
		if got := c.want.wantedAt(); got != [2]int{} {
			t.Errorf("%s: still wanted at %v", c.name, got)
		}
		for _, e := range c.list {
			if e.attached() != 0 {
				t.Errorf("%s: still attached to %d", c.name, e.ssrc)
			}
		}
	}
}

// The old encoding's packets go on until the new one has a keyframe, and none after.
func TestFeedSwitchesAtKeyframe(t *testing.T) {
	t.Parallel()
	c := &composer{}
	f := newTestFeed(c)
	low, high := video(1, 320, 180), video(2, 1280, 720)
	list := track{low, high}
	f.step(list, 320, 180)
	low.push(false, nil) // before its keyframe: nothing to see yet
	low.push(true, nil)
	low.push(false, nil)
	f.step(list, 1280, 720)
	if high.attached() != 1 || low.attached() != 1 {
		t.Fatal("not attached to both")
	}
	low.push(false, nil)
	high.push(false, nil)
	high.push(true, nil)
	low.push(false, nil)
	high.push(false, nil)
	if got, want := c.got(1), []uint32{1, 1, 1, 2, 2}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	f.step(list, 1280, 720)
	if low.attached() != 0 {
		t.Error("still attached to the old one")
	}
	// Down again, but not at once.
	steps(f, list, 320, 180, lowerAfter-1, high)
	if low.attached() != 0 {
		t.Error("went down too early")
	}
	steps(f, list, 320, 180, 1, high)
	if low.attached() != 1 {
		t.Error("does not go down")
	}
	f.requestKeyframe()
	if high.keyframesAsked() != 2 {
		t.Errorf("%d keyframes asked of the current one", high.keyframesAsked())
	}
}

func TestFeedGivesUp(t *testing.T) {
	t.Parallel()
	c := &composer{}
	f := newTestFeed(c)
	low, high := video(1, 320, 180), video(2, 1280, 720)
	list := track{low, high}
	f.step(list, 320, 180)
	low.push(true, nil)
	f.step(list, 1280, 720) // high never sends
	steps(f, list, 1280, 720, unheardFor+1, low)
	if high.attached() != 0 || high.keyframesAsked() != 1 {
		t.Errorf("attached %d, asked %d", high.attached(), high.keyframesAsked())
	}
	steps(f, list, 1280, 720, failedFor+1, low)
	if high.attached() != 1 {
		t.Error("never tries again")
	}
	steps(f, list, 1280, 720, giveUpAfter-4, low, high) // high sends, and no keyframe
	if high.attached() != 1 || high.keyframesAsked() < 3 {
		t.Errorf("attached %d, asked %d", high.attached(), high.keyframesAsked())
	}
	steps(f, list, 1280, 720, 4, low, high)
	if high.attached() != 0 {
		t.Error("does not give up")
	}
	if got := c.got(1); slices.Contains(got, 2) || len(got) < giveUpAfter {
		t.Errorf("got %v", got)
	}
}

// A publisher that stops the layer in use, as browsers do when their uplink is short.
func TestFeedFollowsWhatIsSent(t *testing.T) {
	t.Parallel()
	c := &composer{}
	f := newTestFeed(c)
	low, high := video(1, 320, 180), video(2, 1280, 720)
	list := track{low, high}
	f.step(list, 1280, 720)
	high.push(true, nil)
	steps(f, list, 1280, 720, silentAfter+3)
	if low.attached() != 1 {
		t.Fatal("does not try the other one")
	}
	low.push(true, nil)
	low.push(false, nil)
	if got, want := c.got(1), []uint32{2, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFeedRepublished(t *testing.T) {
	t.Parallel()
	c := &composer{}
	f := newTestFeed(c)
	before, after := video(1, 640, 360), video(2, 640, 360)
	f.step(track{before}, 640, 360)
	before.push(true, nil)
	f.step(track{after}, 640, 360)
	after.push(true, nil)
	f.step(track{after}, 640, 360)
	if got := c.got(1); !slices.Equal(got, []uint32{1, 2}) || before.attached() != 0 {
		t.Errorf("got %v, %d attached", got, before.attached())
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	stage := Stage{
		Peers: []StagePeer{
			{ID: "a", Name: "Ann", Audio: StageTrack{ID: "a-mic"}, Video: StageTrack{ID: "a-cam"}},
			{ID: "b", Name: "Bob", Audio: StageTrack{ID: "b-mic", Muted: true}, Video: StageTrack{ID: "b-cam", Muted: true}, Screen: StageTrack{ID: "b-scr"}, ScreenAudio: StageTrack{ID: "b-snd"}},
			{ID: "c", Name: "Cid"},
		},
		Speakers: []string{"a-mic", "nobody", "b", "a"},
	}
	arranged := stage.arranged(layout.Auto, nil)
	if !slices.Equal(arranged.Speakers, []string{"a", "b"}) || !arranged.Peers[1].Screen || !arranged.Peers[1].Muted || arranged.Peers[0].Muted || !arranged.Peers[2].Muted {
		t.Errorf("%+v", arranged)
	}
	r := &room{}
	for i, id := range []string{"a-cam", "b-cam", "b-scr"} {
		r.set(id, video(uint32(i+1), 640, 360))
	}
	for i, id := range []string{"a-mic", "b-mic", "b-snd"} {
		r.set(id, audio(uint32(i+11)))
	}
	c := &composer{}
	l := testLoop(t, r, c)
	l.setStage(stage)
	l.step(l.started)
	names := map[string]wire.AddInput{}
	for _, in := range c.desired.Inputs {
		names[in.Name] = in
	}
	if len(names) != 4 || names["a-mic"].Sync != names["a-cam"].Sync || names["b-scr"].Sync != names["b-snd"].Sync || names["b-scr"].Sync == names["a-cam"].Sync {
		t.Errorf("inputs %+v", c.desired.Inputs)
	}
	if len(c.desired.Mix.Inputs) != 2 || len(c.desired.Scene.Tiles) != 4 {
		t.Errorf("%+v", c.desired)
	}
	for _, tile := range c.desired.Scene.Tiles {
		switch {
		case tile.Label == "Ann" && (tile.Input != names["a-cam"].ID || tile.Placeholder.Always || !tile.Speaking),
			tile.Label == "Cid" && (tile.Input != 0 || !tile.Placeholder.Always || tile.Placeholder.Initials != "C"),
			tile.Label == "Bob" && tile.Fit == wire.Contain && tile.Input != names["b-scr"].ID,
			tile.Label == "Bob" && tile.Fit == wire.Cover && (tile.Input != 0 || !tile.Muted):
			t.Errorf("tile %+v", tile)
		}
	}
	if err := c.desired.Scene.Validate(); err != nil {
		t.Error(err)
	}
	// All leave; nothing stays attached, and inputs are never used twice.
	last := l.next
	l.setStage(Stage{})
	l.step(l.started)
	if len(c.desired.Inputs) != 0 || len(c.desired.Scene.Tiles) != 0 || r.tracks["a-cam"][0].attached() != 0 {
		t.Errorf("%+v", c.desired)
	}
	l.setStage(stage)
	l.step(l.started)
	for _, in := range c.desired.Inputs {
		if in.ID <= last {
			t.Errorf("input %d again", in.ID)
		}
	}
	// A track that is announced and not there (yet) is no input.
	r.set("a-cam")
	l.step(l.started)
	if len(c.desired.Inputs) != 3 {
		t.Errorf("%+v", c.desired.Inputs)
	}
}

// Who speaks and who comes makes for steps at any time: they do not make an encoding look silent.
func TestFeedsCountOnlyTheirOwnSteps(t *testing.T) {
	t.Parallel()
	r, low, high := &room{}, video(1, 320, 180), video(2, 1280, 720)
	r.set("cam", low, high)
	l := testLoop(t, r, &composer{})
	l.setStage(Stage{Peers: []StagePeer{{ID: "a", Video: StageTrack{ID: "cam"}}}})
	l.step(l.started)
	high.push(true, nil)
	l.step(l.started)
	l.early = true
	for range 3 * silentAfter {
		l.step(l.started)
	}
	if low.attached() > 0 || high.attached() != 1 {
		t.Errorf("%d and %d attached", low.attached(), high.attached())
	}
	l.early = false
	for range silentAfter {
		l.step(l.started)
	}
	if low.attached() != 1 {
		t.Error("one that is silent is not replaced")
	}
}

func testLoop(t *testing.T, r *room, c *composer) *loop {
	t.Helper()
	o, err := New(Config{CompositorPath: "/nonexistent"}, r)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Settings{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.newProgram(StartRequest{Room: "demo", Stream: "main"}, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.composer = c
	return &loop{program: p, feeds: map[string]*feed{}}
}

func BenchmarkStep(b *testing.B) {
	r := &room{}
	stage := Stage{}
	for i := range 9 {
		id := string(rune('a' + i))
		stage.Peers = append(stage.Peers, StagePeer{ID: id, Name: id, Audio: StageTrack{ID: id + "-mic"}, Video: StageTrack{ID: id + "-cam"}})
		r.set(id+"-cam", video(uint32(i), 640, 360))
		r.set(id+"-mic", audio(uint32(100+i)))
	}
	o, err := New(Config{CompositorPath: "/nonexistent"}, r)
	if err != nil {
		b.Fatal(err)
	}
	s, _ := Settings{}.withDefaults()
	p, err := o.newProgram(StartRequest{Room: "demo", Stream: "main", Stage: stage}, s, nil)
	if err != nil {
		b.Fatal(err)
	}
	p.composer = &composer{}
	l := &loop{program: p, feeds: map[string]*feed{}}
	b.ReportAllocs()
	for b.Loop() {
		l.step(p.started)
	}
}

// nowhere is a Composer that takes packets and keeps nothing.
type nowhere struct{ composer }

func (*nowhere) WriteRTP(uint32, *packet.Packet) {}

func forwarding() (*tap, *packet.Packet) {
	f := &feed{in: wire.AddInput{ID: 1, Kind: wire.Video}, to: &nowhere{}, video: true, failed: map[Encoding]int{}}
	e := video(1, 640, 360)
	f.step(track{e}, 640, 360)
	return f.attached[0], &packet.Packet{Keyframe: true, Payload: make([]byte, 1000)}
}

func TestForwardingDoesNotAllocate(t *testing.T) {
	sink, p := forwarding()
	if n := testing.AllocsPerRun(100, func() { sink.WriteRTP(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkForward(b *testing.B) {
	sink, p := forwarding()
	b.ReportAllocs()
	for b.Loop() {
		sink.WriteRTP(p)
	}
}

// What the compositor is told is valid UTF-8 and not too long.
func TestNamesAreCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "Ada", strings.Repeat("x", wire.MaxLabelBytes), strings.Repeat("x", 300), "\xff" + strings.Repeat("x", 300)} {
		if got := bounded(s); got != s[:min(len(s), wire.MaxLabelBytes)] {
			t.Errorf("%q became %q", s, got)
		}
	}
	for _, char := range []string{"é", "€", "😀"} {
		for lead := range 5 {
			s := strings.Repeat("x", lead) + strings.Repeat(char, 200)
			got := bounded(s)
			if !utf8.ValidString(got) || !strings.HasPrefix(s, got) || len(got) > wire.MaxLabelBytes || len(got) <= wire.MaxLabelBytes-len(char) {
				t.Errorf("%q became %q, %d bytes", s, got, len(got))
			}
		}
	}
	// Not UTF-8 at all: no longer than allowed nonetheless.
	if n := len(bounded(strings.Repeat("\x80", 1000))); n > wire.MaxLabelBytes {
		t.Errorf("%d bytes", n)
	}
}
