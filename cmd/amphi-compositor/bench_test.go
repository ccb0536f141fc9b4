//go:build cgo

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// movingClip is a clip with enough motion and grain to be no gift for an encoder.
func movingClip(b *testing.B, codec string, w, h int, bitrate string) *clip {
	b.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		b.Skip("needs ffmpeg")
	}
	c := &clip{codec: codec, w: w, h: h}
	in := []string{"-f", "lavfi", "-t", "4", "-i", fmt.Sprintf("testsrc2=s=%dx%d:r=30,noise=alls=12:allf=t,format=yuv420p", w, h)}
	out := filepath.Join(b.TempDir(), "v.ivf")
	ffmpeg(b, nil, append(in, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0", "-g", "30", "-b:v", bitrate, out))
	c.video = readIVF(b, out)
	out = filepath.Join(b.TempDir(), "a.ogg")
	ffmpeg(b, beeps(600), []string{"-f", "f32le", "-ar", "48000", "-ac", "2", "-i", "-", "-c:a", "libopus", "-b:a", "48k", "-application", "lowdelay", "-frame_duration", "20", out})
	c.audio = readOgg(b, out)
	return c
}

// buildProgram builds the program as users have it.
func buildProgram(b *testing.B) string {
	b.Helper()
	name := filepath.Join(b.TempDir(), "amphi-compositor")
	if out, err := exec.Command("go", "build", "-o", name, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return name
}

// fill puts peers that send the clip into a grid, and lets all be heard.
func (st *stage) fill(peers int, c *clip) {
	var tiles []wire.Tile
	var voices []uint32
	for i := range peers {
		id := uint32(i + 1)
		n := 2
		if peers > 4 {
			n = 3
		}
		tiles = append(tiles, wire.Tile{Input: id, X: i % n * 1280 / n, Y: i / n * 720 / n, W: 1280 / n, H: 720 / n, Label: fmt.Sprint("Peer ", i), Speaking: i == 0})
		voices = append(voices, id+1000)
		st.announce(id)
		st.send(id, c, 0, 0)
	}
	st.scene(tiles...)
	st.mix(voices...)
}

// BenchmarkProgram is a whole program in its own process; one op is one second of it.
// "cores" is CPU time per second, senders not included. Run it with -benchtime 10x.
func BenchmarkProgram(b *testing.B) {
	name := buildProgram(b)
	small := movingClip(b, "vp8", 640, 360, "500k")
	large := movingClip(b, "vp8", 1280, 720, "1500k")
	for _, c := range []struct {
		name     string
		clip     *clip
		peers    int
		variants int
		idle     wire.Idle
		preset   string
	}{
		{"4x360p to 720p", small, 4, 1, 0, ""},
		{"4x360p to 720p superfast", small, 4, 1, 0, "superfast"},
		{"4x360p to 720+480+360p", small, 4, 3, 0, ""},
		{"4x360p to 720+480+360p superfast", small, 4, 3, 0, "superfast"},
		{"4x360p to 720+480+360p of which 360p is watched", small, 4, 3, 3, ""},
		{"4x720p to 720+480+360p", large, 4, 3, 0, ""},
		{"4x720p to 720+480+360p superfast", large, 4, 3, 0, "superfast"},
		{"9x360p to 720p", small, 9, 1, 0, ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			start := newStart(c.variants)
			start.Preset = c.preset
			st := startStage(b, name, start)
			st.write(wire.AppendIdle(nil, c.idle))
			st.fill(c.peers, c.clip)
			tick := st.first() + 90
			st.wait(tick)
			before := st.figures()
			for b.Loop() {
				tick += 30
				st.wait(tick)
			}
			after := st.figures()
			d := float64(after.UptimeNS - before.UptimeNS)
			if d <= 0 {
				b.Skip("needs more seconds: -benchtime 10x")
			}
			b.ReportMetric(float64(after.CPUNS-before.CPUNS)/d, "cores")
			b.ReportMetric(float64(after.RSSBytes>>20), "MiB")
			b.ReportMetric(100*float64(after.Late-before.Late)/float64(after.Ticks-before.Ticks), "%late")
			b.ReportMetric(float64(after.Variants[0].LatencyNS)/1e6, "ms-max-latency")
			decode, encode := int64(0), int64(0)
			for i := range after.Inputs {
				decode += after.Inputs[i].DecodeNS - before.Inputs[i].DecodeNS
			}
			for i := range after.Variants {
				encode += after.Variants[i].EncodeNS - before.Variants[i].EncodeNS
			}
			b.ReportMetric(float64(decode)/d, "decode-cores")
			b.ReportMetric(float64(encode)/d, "encode-cores")
			b.ReportMetric(float64(after.AACNS-before.AACNS+after.MixNS-before.MixNS)/d, "sound-cores")
			b.ReportMetric(float64(after.PaintNS-before.PaintNS)/d, "paint-cores")
			b.ReportMetric(float64(after.Variants[0].Bytes-before.Variants[0].Bytes)*8/d*1e6, "kbit/s")
			if len(after.Drops) > 0 {
				b.Log(after.Drops)
			}
		})
	}
}

// figures waits for the next statistics.
func (st *stage) figures() *wire.Stats {
	st.t.Helper()
	st.mu.Lock()
	old := st.stats
	st.mu.Unlock()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Second)
	for {
		st.mu.Lock()
		s := st.stats
		st.mu.Unlock()
		if s != old {
			return s
		}
		select {
		case <-tick.C:
		case <-deadline:
			st.t.Fatal("no statistics")
		}
	}
}
