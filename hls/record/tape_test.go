package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/movie"
	"github.com/amphi-sfu/amphi/hls/packager"
)

// reel is a sink in memory.
type reel struct {
	files [][]byte
	fail  bool
}

var errReel = errors.New("no more room")

func (r *reel) begin(header []byte) error {
	if r.fail {
		return errReel
	}
	r.files = append(r.files, bytes.Clone(header))
	return nil
}

func (r *reel) append(b []byte) error {
	if r.fail {
		return errReel
	}
	r.files[len(r.files)-1] = append(r.files[len(r.files)-1], b...)
	return nil
}

// maker makes parts whose samples say which time they are of.
type maker struct {
	video, audio []byte
	life         int
}

func newMaker(t testing.TB) *maker {
	t.Helper()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	au, err := fmp4.ParseAnnexB(clip.Video[0])
	if err != nil {
		t.Fatal(err)
	}
	v, err := fmp4.VideoInit(au.SPS, au.PPS, 90000, 1000)
	if err != nil {
		t.Fatal(err)
	}
	a, err := fmp4.AudioInit(hlstest.AudioConfig(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	return &maker{video: v.Data, audio: a.Data, life: 1}
}

// part is the k-th of the grid: 15 ticks, or the sound of that time.
func (m *maker) part(t testing.TB, k int64, video bool) *packager.Part {
	t.Helper()
	p := &packager.Part{Media: "720p", Life: m.life, Start: start.Add(time.Duration(k) * time.Second / 2), Independent: k%4 == 0, Init: m.video}
	var samples []fmp4.Sample
	base := k * 15 * 3000
	if video {
		for i := range int64(15) {
			samples = append(samples, fmp4.Sample{Data: binary.BigEndian.AppendUint64(nil, uint64(base+i*3000)), Duration: 3000, Key: k%4 == 0 && i == 0})
		}
	} else {
		p.Variant, p.Init, p.Independent = -1, m.audio, true
		base = (k*24000 + 1023) / 1024 * 1024
		for at := base; at < (k+1)*24000; at += 1024 {
			samples = append(samples, fmp4.Sample{Data: binary.BigEndian.AppendUint64(nil, uint64(at)), Duration: 1024, Key: true})
		}
	}
	var err error
	if p.Data, err = fmp4.Part(1, uint64(base), samples); err != nil {
		t.Fatal(err)
	}
	return p
}

// Whatever happens to a program and its disk, every sample that is in the movie stands where it belongs: sound and picture of one time have the same
// time, nothing overlaps, and pictures have no holes.
func TestSoundStaysWithItsPicture(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	rapid.Check(t, func(rt *rapid.T) {
		r := &reel{}
		tape := newTape("720p", r)
		m := &maker{video: m.video, audio: m.audio, life: 1}
		k := int64(4 * rapid.IntRange(0, 1000).Draw(rt, "first"))
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 14).Draw(rt, "what") {
			case 0:
				tape.pause()
				k += rapid.Int64Range(0, 20).Draw(rt, "pause")
			case 1: // another compositor; runs begin with a keyframe
				m.life++
				k = (k + 4 + rapid.Int64Range(0, 8).Draw(rt, "gap")) / 4 * 4
			case 2:
				r.fail = !r.fail
			case 3:
				tape.lose()
				k += rapid.Int64Range(1, 5).Draw(rt, "lost")
			}
			video, audio := m.part(t, k, true), m.part(t, k, false)
			switch rapid.IntRange(0, 9).Draw(rt, "order") {
			case 0, 1:
				tape.take(audio)
				tape.take(video)
			case 2: // no sound
				tape.take(video)
			default:
				tape.take(video)
				tape.take(audio)
			}
			k++
		}
		r.fail = false
		tape.pause()
		check(rt, r)
	})
}

func check(t *rapid.T, r *reel) {
	type span struct{ from, move int64 }
	var due, heard int64
	var moves []span // how much pictures were moved, from a time on
	for _, b := range r.files {
		_, err := movie.Scan(bytes.NewReader(b), int64(len(b)), nil, func(f *movie.Fragment) error {
			for _, run := range f.Runs {
				at := run.Base
				for _, s := range run.Samples {
					from := int64(binary.BigEndian.Uint64(b[s.Offset:]))
					if run.Track == 1 {
						if at != due {
							t.Fatalf("picture at %d instead of %d", at, due)
						}
						if n := len(moves); n == 0 || moves[n-1].move != from-at {
							if !s.Key {
								t.Fatalf("another time begins at %d without a keyframe", at)
							}
							moves = append(moves, span{from, from - at})
						}
						due = at + int64(s.Duration)
					} else {
						move := moves[len(moves)-1].move * 48000 / 90000
						for i := len(moves) - 1; i > 0 && from < moves[i].from*48000/90000; i-- {
							move = moves[i-1].move * 48000 / 90000
						}
						if at < heard {
							t.Fatalf("sound at %d overlaps that before, up to %d", at, heard)
						}
						if off := from - at - move; off < -rounding || off > rounding {
							t.Fatalf("sound of %d is at %d, pictures are moved by %d: %d samples off", from, at, move, off)
						}
						heard = at + 1024
					}
					at += int64(s.Duration)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzPart(f *testing.F) {
	m := newMaker(f)
	f.Add(m.part(f, 0, true).Data, m.part(f, 0, false).Data)
	f.Add(m.part(f, 4, true).Data, []byte{})
	f.Fuzz(func(t *testing.T, video, audio []byte) {
		r := &reel{}
		tape := newTape("720p", r)
		for k := range int64(3) {
			v, a := m.part(t, k, true), m.part(t, k, false)
			if k == 1 {
				v.Data, a.Data = video, audio
			}
			tape.take(v)
			tape.take(a)
		}
		tape.pause()
		for _, b := range r.files {
			h, err := movie.Scan(bytes.NewReader(b), int64(len(b)), nil, func(*movie.Fragment) error { return nil })
			if err != nil || h.Whole != int64(len(b)) {
				t.Fatalf("whole up to %d of %d, %v", h.Whole, len(b), err)
			}
		}
	})
}

func BenchmarkTape(b *testing.B) {
	m := newMaker(b)
	parts := make([]*packager.Part, 0, 8)
	for k := range int64(4) {
		parts = append(parts, m.part(b, k, true), m.part(b, k, false))
	}
	b.ReportAllocs()
	for b.Loop() { // 2 s of program
		tape := newTape("720p", nothing{})
		for _, p := range parts {
			tape.take(p)
		}
	}
}

type nothing struct{}

func (nothing) begin([]byte) error  { return nil }
func (nothing) append([]byte) error { return nil }
