//go:build cgo

package program

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/label"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// opened is a program whose output goes to w, before its goroutines.
func opened(t *testing.T, w io.Writer, variants ...wire.Variant) *Program {
	t.Helper()
	fonts, err := label.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &Program{cfg: Config{Fonts: fonts}, out: newSender(w)}
	if err := p.open(&wire.Start{
		EpochNS: time.Now().UnixNano(), Width: canvasW, Height: canvasH, FPS: 30, GOPTicks: 15, PartTicks: 15,
		Variants: variants, AudioBitrate: 64_000,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.video.close()
		p.audio.close()
	})
	return p
}

// pictures reads the access units of a recording, and decodes them.
func pictures(t *testing.T, r io.Reader) (aus []wire.VideoAU, sps [][]byte) {
	t.Helper()
	decoders := make(map[int]*av.Decoder)
	defer func() {
		for _, d := range decoders {
			d.Close()
		}
	}()
	rd := wire.NewReader(r)
	for {
		f, err := rd.Next()
		if err != nil {
			return aus, sps
		}
		if f.Type != wire.TypeVideoAU {
			continue
		}
		au, err := f.VideoAU()
		if err != nil {
			t.Fatal(err)
		}
		au.Data = bytes.Clone(au.Data)
		aus = append(aus, au)
		if au.Key && au.Variant == 0 {
			end := bytes.Index(au.Data[4:], []byte{0, 0, 1, 0x06}) // SEI: its text names the preset
			if end < 0 {
				end = bytes.Index(au.Data[4:], []byte{0, 0, 1, 0x65})
			}
			sps = append(sps, au.Data[:end+4])
		}
		if decoders[au.Variant] == nil {
			if decoders[au.Variant], err = av.NewDecoder("h264"); err != nil {
				t.Fatal(err)
			}
		}
		pic, err := decoders[au.Variant].Decode(au.Data, 0)
		if err != nil || pic == nil {
			t.Fatalf("variant %d, tick %d does not decode: %v", au.Variant, au.Tick, err)
		}
		pic.Free()
	}
}

// Under overload pictures are left out at even distances, at the same ticks in every variant; parts still begin with one.
func TestOverloadSparesTicks(t *testing.T) {
	t.Parallel()
	for _, level := range []mix.Level{1, 2, 3} {
		t.Run(fmt.Sprint(level.Every()), func(t *testing.T) {
			t.Parallel()
			r, w := io.Pipe()
			p := opened(t, io.Discard,
				wire.Variant{Name: "large", Width: canvasW, Height: canvasH, Bitrate: 500_000},
				wire.Variant{Name: "small", Width: 320, Height: 180, Bitrate: 200_000})
			p.out = newSender(w)
			for now := time.Duration(0); p.video.overload.Level() < level; now += 33 * time.Millisecond {
				p.video.overload.Tick(now, true)
			}
			var recording bytes.Buffer
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = io.Copy(&recording, r) })
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if err := p.video.run(ctx); err != nil {
				t.Error(err)
			}
			_ = w.Close()
			wg.Wait()
			aus, _ := pictures(t, &recording)
			ticks := map[int][]int64{}
			for _, au := range aus {
				ticks[au.Variant] = append(ticks[au.Variant], au.Tick)
			}
			if !slices.Equal(ticks[0], ticks[1]) || len(ticks[0]) == 0 {
				t.Fatalf("ticks %v and %v", ticks[0], ticks[1])
			}
			due := map[int64]bool{}
			for tick := ticks[0][0]; tick <= ticks[0][len(ticks[0])-1]; tick++ {
				due[tick] = tick%15%level.Every() == 0
			}
			made := int64(0)
			for _, tick := range ticks[0] {
				if due[tick] {
					made++
				} else if p.inputs.drops[dropTickSkipped] == 0 {
					t.Errorf("a picture of tick %d", tick)
				}
				delete(due, tick)
			}
			for tick, is := range due {
				if is && p.inputs.drops[dropTickSkipped] == 0 {
					t.Errorf("no picture of tick %d", tick)
				}
			}
			if s := p.stats(); s.Overload < int(level.Every()) || s.Drops[dropTickSpared] < made/2*(level.Every()-1) {
				t.Errorf("%d pictures, %d spared, overload %d", made, s.Drops[dropTickSpared], s.Overload)
			}
		})
	}
}

// Writes that fail end the video clock.
func TestNodeGone(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	p := opened(t, io.Discard, wire.Variant{Name: "v", Width: canvasW, Height: canvasH, Bitrate: 500_000})
	p.out = newSender(w)
	_ = r.CloseWithError(io.ErrClosedPipe)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.video.run(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}
