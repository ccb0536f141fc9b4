package compose

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media/packet"
)

func frames(t *testing.T, b []byte) (types []wire.Type) {
	t.Helper()
	r := wire.NewReader(strings.NewReader(string(b)))
	for {
		f, err := r.Next()
		if err != nil {
			return types
		}
		types = append(types, f.Type)
	}
}

func TestOutboxOrder(t *testing.T) {
	t.Parallel()
	o := newOutbox(10_000)
	p := &packet.Packet{ExtSeq: 1<<16 + 7, Payload: []byte("abc")}
	if d := o.rtp(1, p); d != "" {
		t.Fatal(d)
	}
	o.report(1, packet.SenderReport{})
	o.addControl(wire.AppendForceKeyframe(nil))
	control, media := o.take()
	if got := append(frames(t, control), frames(t, media)...); len(got) != 3 ||
		got[0] != wire.TypeForceKeyframe || got[1] != wire.TypeRTP || got[2] != wire.TypeSenderReport {
		t.Errorf("order %v", got)
	}
	o.done(media)
	if control, media = o.take(); len(control)+len(media) != 0 {
		t.Error("something is left")
	}
}

func TestOutboxBound(t *testing.T) {
	t.Parallel()
	o := newOutbox(5000)
	p := &packet.Packet{Payload: make([]byte, 1000)}
	n := 0
	for o.rtp(1, p) == "" {
		n++
	}
	if n != 4 || o.report(1, packet.SenderReport{}) != "" {
		t.Errorf("%d packets", n)
	}
	ok := true
	for i := 0; ok && i < 200; i++ {
		ok = o.addControl(make([]byte, 100_000))
	}
	if ok {
		t.Error("control is without bound")
	}
}

func TestOutboxDoesNotAllocate(t *testing.T) {
	o := newOutbox(100_000)
	p := &packet.Packet{Payload: make([]byte, 1000)}
	round := func() {
		for range 20 {
			o.rtp(1, p)
		}
		_, media := o.take()
		o.done(media)
	}
	round()
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOutbox(b *testing.B) {
	o := newOutbox(100_000)
	p := &packet.Packet{Payload: make([]byte, 1000)}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		o.rtp(1, p)
		if i++; i%50 == 0 {
			_, media := o.take()
			o.done(media)
		}
	}
}

func TestDifference(t *testing.T) {
	t.Parallel()
	in := func(id uint32) wire.AddInput { return wire.AddInput{ID: id, Kind: wire.Video} }
	from := &Desired{Inputs: []wire.AddInput{in(1), in(2)}, Scene: wire.Scene{Tiles: []wire.Tile{{Input: 1}}}}
	to := &Desired{Inputs: []wire.AddInput{in(2), in(3)}, Scene: wire.Scene{Tiles: []wire.Tile{{Input: 3}}}, Mix: from.Mix}
	b, err := difference(nil, from, to)
	if err != nil {
		t.Fatal(err)
	}
	got := frames(t, b)
	want := []wire.Type{wire.TypeAddInput, wire.TypeScene, wire.TypeRemoveInput}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v, want %v", got, want)
	}
	if b, err := difference(nil, to, to); err != nil || len(b) != 0 {
		t.Errorf("no difference says %v, %v", frames(t, b), err)
	}
}

// Whatever the process says, its reader survives it.
func FuzzHandle(f *testing.F) {
	ready, err := wire.AppendReady(nil, &wire.Ready{AudioConfig: []byte{0x11, 0x90}})
	if err != nil {
		f.Fatal(err)
	}
	video, err := wire.AppendVideoAU(nil, wire.VideoAU{Tick: 1, Data: []byte{0}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ready)
	f.Add(append(ready, video...))
	f.Add(wire.AppendKeyframeRequest(nil, wire.KeyframeRequest{Input: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Child{out: sink{}, log: discard()}
		c.cfg.Start.FPS = 30
		near, _, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		r := &reader{life: &life{c: c, conn: near}}
		frames := wire.NewReader(strings.NewReader(string(b)))
		for {
			fr, err := frames.Next()
			if err != nil {
				return
			}
			if err := r.handle(fr); err != nil && !errors.Is(err, errRefused) {
				t.Fatal(err)
			}
		}
	})
}

var errRefused = errors.New("refused")

// sink is an Output that refuses some runs.
type sink struct{}

func (sink) Begin(r *wire.Ready) error {
	if r.FirstTick%2 == 1 {
		return errRefused
	}
	return nil
}
func (sink) Video(wire.VideoAU)     {}
func (sink) Audio(wire.AudioAU)     {}
func (sink) KeyframeRequest(uint32) {}
func (sink) Gone()                  {}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
