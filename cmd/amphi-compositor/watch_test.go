//go:build cgo

package main

import (
	"encoding/binary"
	"image"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// seen is what the program showed in one tile: a frame number for each tick, −1
// where there is no barcode.
type seen struct {
	ticks  []int64
	frames []int
	ground []av.YUV // near the upper left corner of the tile
}

// look decodes a variant and reads tiles of it, given on a canvas of 1280×720.
func (st *stage) look(variant int, tiles ...image.Rectangle) []seen {
	st.t.Helper()
	st.mu.Lock()
	aus := st.video[variant]
	st.mu.Unlock()
	dec, err := av.NewDecoder("h264")
	if err != nil {
		st.t.Fatal(err)
	}
	defer dec.Close()
	out := make([]seen, len(tiles))
	for _, au := range aus {
		f, err := dec.Decode(au.Data, time.Duration(au.Tick))
		if err != nil || f == nil {
			st.t.Fatalf("tick %d does not decode: %v", au.Tick, err)
		}
		w, h := f.Size()
		if v := st.start.Variants[variant]; w != v.Width || h != v.Height {
			st.t.Fatalf("picture of %d×%d", w, h)
		}
		for i, r := range tiles {
			at := func(x, y float64) av.YUV {
				return f.At(int((float64(r.Min.X)+x*float64(r.Dx()))*float64(w)/1280), int((float64(r.Min.Y)+y*float64(r.Dy()))*float64(h)/720))
			}
			out[i].ticks = append(out[i].ticks, au.Tick)
			out[i].frames = append(out[i].frames, barcode(at))
			out[i].ground = append(out[i].ground, at(0.06, 0.15))
		}
		f.Free()
	}
	return out
}

func barcode(at func(x, y float64) av.YUV) int {
	bar := func(k int) bool { return at((float64(k)+0.5)/(barcodeBits+3), 0.5).Y > 125 }
	if !bar(1) {
		return -1
	}
	n := 0
	for k := range barcodeBits {
		if bar(2 + k) {
			n |= 1 << k
		}
	}
	return n
}

// tileRect is the rectangle of a tile.
func tileRect(t wire.Tile) image.Rectangle { return image.Rect(t.X, t.Y, t.X+t.W, t.Y+t.H) }

// stuck is how many ticks in a row a tile may show the same picture on a machine
// that others use too. On an idle one it is 0.
const stuck = 15

// motion sums up how a tile moved between two ticks.
type motion struct{ pictures, blank, frozen, longest, jumps int }

func (s seen) motion(from, to int64) (m motion) {
	run := 0
	for i := 1; i < len(s.ticks); i++ {
		if s.ticks[i] <= from || s.ticks[i] > to {
			continue
		}
		m.pictures++
		a, b := s.frames[i-1], s.frames[i]
		switch {
		case b < 0:
			m.blank++
		case a == b:
			m.frozen++
			run++
			m.longest = max(m.longest, run)
			continue
		case a >= 0 && (a+1)%clipFrames != b:
			m.jumps++
		}
		run = 0
	}
	return m
}

// continuous fails the test unless a variant's ticks follow one another and its
// keyframes are on the grid; also the audio's samples. On a machine that gives the
// process too little time ticks are left out, and counted: that is no failure.
func (st *stage) continuous() {
	st.t.Helper()
	drops := st.figures().Drops
	starved := drops["tick_skipped"]+drops["tick_spared"] > 0
	if starved {
		st.t.Log("the machine was too busy: ticks were left out")
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for v, aus := range st.video {
		for i, au := range aus {
			gap := i > 0 && au.Tick != aus[i-1].Tick+1
			if gap && !starved {
				st.t.Errorf("variant %d: tick %d after %d", v, au.Tick, aus[i-1].Tick)
			}
			if want := au.Tick%int64(st.start.GOPTicks) == 0 || i == 0; au.Key != want && !gap {
				st.t.Errorf("variant %d: tick %d: IDR %v", v, au.Tick, au.Key)
			}
			if want := st.start.EpochNS + au.Tick*int64(time.Second)/30; au.TimeNS-want > 1000 || want-au.TimeNS > 1000 {
				st.t.Errorf("variant %d: tick %d at %d, want %d", v, au.Tick, au.TimeNS, want)
			}
		}
	}
	for i, au := range st.audio {
		if i > 0 && au.Samples != st.audio[i-1].Samples+1024 {
			st.t.Errorf("audio %d after %d", au.Samples, st.audio[i-1].Samples)
		}
	}
}

// pcm decodes the program's sound with ffmpeg to mono at 48 kHz; the first value
// is sample first since the epoch.
func (st *stage) pcm() (samples []float64, first int64) {
	st.t.Helper()
	st.mu.Lock()
	aus := st.audio
	st.mu.Unlock()
	if len(aus) == 0 {
		st.t.Fatal("no sound")
	}
	path := filepath.Join(st.t.TempDir(), "a.aac")
	if err := os.WriteFile(path, adts(aus), 0o600); err != nil {
		st.t.Fatal(err)
	}
	raw, err := exec.Command("ffmpeg", "-v", "error", "-i", path, "-ac", "1", "-f", "f32le", "-").Output()
	if err != nil {
		st.t.Fatalf("ffmpeg: %v", err)
	}
	for ; len(raw) >= 4; raw = raw[4:] {
		samples = append(samples, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))))
	}
	return samples, aus[0].Samples
}

// beepStarts finds where a tone begins, in seconds since the epoch.
func beepStarts(pcm []float64, first int64, hz float64) (starts []float64) {
	const win = 240 // 5 ms
	last := -1.0
	for i := 0; i+win < len(pcm); i += 24 {
		c, s := 0.0, 0.0
		for k := range win {
			a := 2 * math.Pi * hz * float64(k) / 48000
			c += pcm[i+k] * math.Cos(a)
			s += pcm[i+k] * math.Sin(a)
		}
		if math.Hypot(c, s)*2/win < 0.12 {
			continue
		}
		at := float64(first+int64(i+win/2)) / 48000
		if at-last > 0.5 {
			starts = append(starts, at)
		}
		last = at
	}
	return starts
}

// offsets are audio minus video, in seconds, for each beep whose picture is there:
// frames that are multiples of 30 show on the second.
func (s seen) offsets(beeps []float64) (out []float64) {
	for _, b := range beeps {
		best := math.Inf(1)
		for i := 1; i < len(s.ticks); i++ {
			if s.frames[i] >= 0 && s.frames[i]%30 == 0 && s.frames[i-1] != s.frames[i] {
				if d := b - float64(s.ticks[i])/30; math.Abs(d) < math.Abs(best) {
					best = d
				}
			}
		}
		if math.Abs(best) < 0.5 {
			out = append(out, best)
		}
	}
	sort.Float64s(out)
	return out
}

// near tells whether two colours are alike.
func near(a, b av.YUV) bool {
	d := func(x, y uint8) bool { return max(x, y)-min(x, y) <= 12 }
	return d(a.Y, b.Y) && d(a.U, b.U) && d(a.V, b.V)
}

// latencies are how long after their ticks the pictures of variant 0 came, sorted.
func (st *stage) latencies() (out []time.Duration) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for i, at := range st.came {
		out = append(out, at-time.Duration(st.video[0][i].Tick)*time.Second/30)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// ages are how old the pictures of a tile are on the tick that shows them, sorted:
// frame n was captured at n/30 s since the epoch.
func (s seen) ages() (out []time.Duration) {
	for i, n := range s.frames {
		if n < 0 {
			continue
		}
		age := (s.ticks[i] - int64(n)) % clipFrames
		out = append(out, time.Duration(age)*time.Second/30)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// soundLags are how long after the end of its samples each audio frame came, sorted.
func (st *stage) soundLags() (out []time.Duration) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for i, at := range st.heard {
		out = append(out, at-time.Duration(st.audio[i].Samples+1024)*time.Second/48000)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

func report(t testing.TB, st *stage, s []seen, from, to int64) {
	t.Helper()
	for i := range s {
		t.Logf("tile %d: %+v", i+1, s[i].motion(from, to))
	}
	l := st.latencies()
	t.Logf("tick to access unit: p50 %v p95 %v max %v", l[len(l)/2], l[len(l)*95/100], l[len(l)-1])
	l = st.soundLags()
	t.Logf("end of samples to audio frame: p50 %v p95 %v max %v", l[len(l)/2], l[len(l)*95/100], l[len(l)-1])
	st.mu.Lock()
	defer st.mu.Unlock()
	if s := st.stats; s != nil {
		t.Logf("cpu %.3f of a core, %d MiB, late %d of %d ticks, drops %v", float64(s.CPUNS)/float64(s.UptimeNS), s.RSSBytes>>20, s.Late, s.Ticks, s.Drops)
		for _, in := range s.Inputs {
			t.Logf("input %+v", in)
		}
		for _, v := range s.Variants {
			t.Logf("variant %+v", v)
		}
	}
}
