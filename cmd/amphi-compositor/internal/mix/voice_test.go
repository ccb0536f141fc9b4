package mix_test

import (
	"math"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
)

// tone is n stereo samples of a sine, from sample at on.
func tone(at, n int) []float32 {
	s := make([]float32, 2*n)
	for i := range n {
		s[2*i] = float32(0.5 * math.Sin(float64(at+i)*2*math.Pi*440/mix.Rate))
		s[2*i+1] = s[2*i]
	}
	return s
}

// say plans and writes one packet, and makes up what is missing as silence.
func say(v *mix.Voice, due int64, lost int, s []float32) (conceal, stretch int) {
	conceal, stretch = v.Plan(due, lost)
	v.Write(make([]float32, 2*conceal))
	v.Write(s)
	return conceal, stretch
}

// hear mixes blocks [from, to).
func hear(v *mix.Voice, from, to int64) (out []float32) {
	for b := from; b < to; b++ {
		l, r := make([]float32, mix.Block), make([]float32, mix.Block)
		v.Mix(l, r, b*mix.Block, 1)
		out = append(out, l...)
	}
	return out
}

func TestVoiceIsSampleExact(t *testing.T) {
	t.Parallel()
	v := mix.NewVoice(0)
	for i := range 10 {
		say(v, int64(5000+i*960), 0, tone(i*960, 960))
	}
	got := hear(v, 0, 20)
	want := tone(0, 9600)
	for i, x := range got {
		w := float32(0)
		if i >= 5000 && i < 14600 {
			w = want[2*(i-5000)]
		}
		if i >= 4096 && i < 5120 { // gain rises over the first block that is heard
			continue
		}
		if math.Abs(float64(x-w)) > 1e-6 {
			t.Fatalf("sample %d is %v, want %v", i, x, w)
		}
	}
}

func TestVoiceGaps(t *testing.T) {
	t.Parallel()
	v := mix.NewVoice(0)
	say(v, 1000, 0, tone(0, 960))
	if c, _ := say(v, 1000+3*960, 2, tone(0, 960)); c != 1920 {
		t.Fatalf("two lost packets: %d made up", c)
	}
	if c, _ := say(v, 1000+24*960, 20, tone(0, 960)); c != mix.Rate/10 {
		t.Fatalf("a long loss: %d made up", c)
	}
	if c, _ := say(v, 1000+40*960, 0, tone(0, 960)); c != 0 {
		t.Fatalf("a pause (DTX): %d made up", c)
	}
	if _, _, resyncs := v.Counters(); resyncs != 0 {
		t.Fatalf("%d resyncs", resyncs)
	}
	say(v, 1000, 0, tone(0, 960)) // a clock that went back
	if _, _, resyncs := v.Counters(); resyncs != 1 {
		t.Fatalf("%d resyncs", resyncs)
	}
}

func TestVoiceLateAndEarly(t *testing.T) {
	t.Parallel()
	v := mix.NewVoice(0)
	hear(v, 0, 10)
	say(v, 10*mix.Block-500, 0, tone(0, 960)) // half of it too late
	if late, _, _ := v.Counters(); late != 500 {
		t.Fatalf("%d samples late", late)
	}
	if got := hear(v, 10, 11); got[459] == 0 || got[461] != 0 {
		t.Fatal("the rest is not where it belongs")
	}
	say(v, 0, 0, tone(0, 960)) // all of it too late
	if late, _, _ := v.Counters(); late != 1460 {
		t.Fatalf("%d samples late", late)
	}
	say(v, 1<<40, 0, tone(0, 960)) // a mad clock
	if _, ahead, _ := v.Counters(); ahead != 960 {
		t.Fatalf("%d samples early", ahead)
	}
	for _, x := range hear(v, 11, 600) {
		if x != 0 {
			t.Fatal("something was written though it had no place")
		}
	}
}

// A voice that nobody hears leaves nothing behind in its ring.
func TestVoiceUnheard(t *testing.T) {
	t.Parallel()
	v := mix.NewVoice(0)
	l, r := make([]float32, mix.Block), make([]float32, mix.Block)
	for i := range 600 {
		say(v, int64(i)*mix.Block, 0, tone(0, mix.Block))
		v.Mix(l, r, int64(i)*mix.Block, 0)
	}
	for _, x := range l {
		if x != 0 {
			t.Fatal("heard")
		}
	}
	for _, x := range hear(v, 600, 900) {
		if x != 0 {
			t.Fatal("an echo of the last lap")
		}
	}
}

// A sender's clock that runs 300 ppm off is followed by stretching, without a gap, an
// overlap or a step.
func TestVoiceFollowsDrift(t *testing.T) {
	t.Parallel()
	for _, ppm := range []float64{300, -300} {
		v := mix.NewVoice(0)
		dst := make([]float32, 2*1100)
		block, phase := int64(0), 0
		var out []float32
		for i := range 5000 {
			due := 5000 + int64(float64(i)*960*(1+ppm/1e6))
			_, stretch := v.Plan(due, 0)
			s := tone(phase, 960)
			phase += 960
			if stretch != 0 {
				s = mix.Stretch(dst, s, 960+stretch)
			}
			v.Write(s)
			for (block+1)*mix.Block < due {
				out = append(out, hear(v, block, block+1)...)
				block++
			}
		}
		if late, ahead, resyncs := v.Counters(); late+ahead+resyncs != 0 {
			t.Errorf("%v ppm: late %d, ahead %d, resyncs %d", ppm, late, ahead, resyncs)
		}
		step := 0.0
		for i := 6000; i < len(out); i++ {
			step = max(step, math.Abs(float64(out[i]-out[i-1])))
		}
		if limit := 0.5 * 2 * math.Pi * 440 / mix.Rate * 1.05; step > limit {
			t.Errorf("%v ppm: a step of %.3f, the tone itself has %.3f", ppm, step, limit)
		}
	}
}

func TestStretchEnds(t *testing.T) {
	t.Parallel()
	src := tone(100, 960)
	for _, m := range []int{952, 958, 960, 962, 968, 1, 0} {
		got := mix.Stretch(make([]float32, 2000), src, m)
		if len(got) != 2*m {
			t.Fatalf("%d samples, want %d", len(got)/2, m)
		}
		if m > 1 && (got[0] != src[0] || math.Abs(float64(got[2*m-1]-src[len(src)-1])) > 1e-4) {
			t.Errorf("%d: the ends moved", m)
		}
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	var l mix.Limiter
	block := func(gain float64, from int) (left, right []float32) {
		for i := range mix.Block {
			x := float32(gain * math.Sin(float64(from+i)*2*math.Pi*200/mix.Rate))
			left, right = append(left, x), append(right, -x)
		}
		return left, right
	}
	quiet, _ := block(0.9, 0)
	left, right := block(0.9, 0)
	l.Process(left, right)
	for i := range left {
		if left[i] != quiet[i] {
			t.Fatal("touches what is not too loud")
		}
	}
	prev := float32(0)
	for b := range 20 { // three voices shouting
		left, right = block(2.4, b*mix.Block)
		l.Process(left, right)
		for i := range left {
			if left[i] > 0.9501 || left[i] < -0.9501 || left[i] != -right[i] {
				t.Fatalf("block %d: %v, %v", b, left[i], right[i])
			}
			if d := left[i] - prev; (b > 0 || i > 0) && (d > 0.08 || d < -0.08) {
				t.Fatalf("block %d: a click of %v", b, d)
			}
			prev = left[i]
		}
	}
	for b := range 60 { // and it comes back
		left, right = block(0.5, b*mix.Block)
		l.Process(left, right)
	}
	peak := float32(0)
	for _, x := range left {
		peak = max(peak, x)
	}
	if peak < 0.495 {
		t.Fatalf("still at %v of 0.5 after 1.3 s", peak)
	}
	left[3], right[5] = float32(math.NaN()), float32(math.Inf(1))
	l.Process(left, right)
	for i := range left {
		if left[i] != left[i] || right[i] > 1 {
			t.Fatalf("sample %d: %v %v", i, left[i], right[i])
		}
	}
}

func TestOverload(t *testing.T) {
	t.Parallel()
	var o mix.Overload
	now := time.Duration(0)
	const window = 62 // ticks of 33 ms
	run := func(windows, every int) int64 {
		for i := range windows * window {
			now += 33 * time.Millisecond
			o.Tick(now, every > 0 && i%every == 0)
		}
		return o.Level().Every()
	}
	for _, step := range []struct {
		what    string
		windows int   // of 2 s
		every   int   // of how many ticks one is late
		want    int64 // ticks to a picture
	}{
		{"2 % late", 30, 50, 1},
		{"a quarter late, for a moment", 1, 4, 1},
		{"nothing late", 1, 0, 1},
		{"a quarter late", 2, 4, 2},
		{"calm for 29 s", 14, 0, 2},
		{"calm for 31 s", 1, 0, 1},
		{"again, almost all late", 1, 1, 2},
		{"that was in vain: 45 s are too early", 22, 0, 2},
		{"calm for a minute", 8, 0, 1},
		{"more and more", 3, 2, 3},
		{"as far as it goes", 5, 2, 5},
		{"in vain again: back by one step after 2 min", 59, 0, 3},
		{"and by all", 120, 0, 1},
	} {
		if got := run(step.windows, step.every); got != step.want {
			t.Errorf("%s: a picture every %d ticks, want %d", step.what, got, step.want)
		}
	}
}

func BenchmarkMixNine(b *testing.B) {
	var l mix.Limiter
	voices := make([]*mix.Voice, 9)
	for i := range voices {
		voices[i] = mix.NewVoice(0)
	}
	left, right := make([]float32, mix.Block), make([]float32, mix.Block)
	s := tone(0, mix.Block)
	at := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		clear(left)
		clear(right)
		for _, v := range voices {
			v.Plan(at, 0)
			v.Write(s)
			v.Mix(left, right, at, 0.5)
		}
		l.Process(left, right)
		at += mix.Block
	}
}
