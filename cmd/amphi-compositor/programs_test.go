//go:build cgo

package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// BenchmarkPrograms is several ladders at once, each in its own process with the preset and the priority that nodes give it, and
// with keyframes at the same moments, as on a node: does every tick come out? One op is one second. Figures are of the worst program;
// those of the CPU are means. Run it with -benchtime 20x.
func BenchmarkPrograms(b *testing.B) {
	name := buildProgram(b)
	small := movingClip(b, "vp8", 640, 360, "500k")
	large := movingClip(b, "vp8", 1280, 720, "1500k")
	for _, c := range []struct {
		programs int
		clip     *clip
	}{
		{3, small}, {3, large}, {4, small}, {6, large},
	} {
		b.Run(fmt.Sprintf("%d ladders of 4x%dp", c.programs, c.clip.h), func(b *testing.B) {
			start := newStart(3)
			start.Preset = "superfast"
			stages := make([]*stage, c.programs)
			for i := range stages {
				stages[i] = startStage(b, name, start, "nice", "-n", "5")
				stages[i].fill(4, c.clip)
			}
			before := make([]*wire.Stats, len(stages))
			for i, st := range stages {
				st.wait(st.first() + 300) // until each has found its level
				before[i] = st.figures()
			}
			from := time.Since(stages[0].epoch)
			to := from
			for b.Loop() {
				to += time.Second
				<-time.After(to - time.Since(stages[0].epoch))
			}
			worst := delivery{ticks: 100, sound: 100}
			var cores, encode float64
			for i, st := range stages {
				after := st.figures()
				d := float64(after.UptimeNS-before[i].UptimeNS) * float64(len(stages))
				cores += float64(after.CPUNS-before[i].CPUNS) / d
				for v := range after.Variants {
					encode += float64(after.Variants[v].EncodeNS-before[i].Variants[v].EncodeNS) / d
				}
				got := st.delivered(from, to)
				worst = delivery{
					ticks: min(worst.ticks, got.ticks), sound: min(worst.sound, got.sound),
					p99: max(worst.p99, got.p99), heard: max(worst.heard, got.heard), longest: max(worst.longest, got.longest),
				}
				if after.Overload > 0 || after.Late > before[i].Late {
					b.Logf("program %d: overload %d, %d of %d ticks late, drops %v", i+1, after.Overload, after.Late-before[i].Late, after.Ticks-before[i].Ticks, after.Drops)
				}
			}
			b.ReportMetric(cores, "cores-each")
			b.ReportMetric(encode, "encode-cores-each")
			b.ReportMetric(worst.ticks, "%ticks-out")
			b.ReportMetric(worst.sound, "%sound-out")
			b.ReportMetric(float64(worst.p99)/1e6, "ms-p99-latency")
			b.ReportMetric(float64(worst.heard)/1e6, "ms-p99-sound")
			b.ReportMetric(float64(worst.longest), "ticks-longest-gap")
		})
	}
}

// delivery is what came of a program in some time.
type delivery struct {
	ticks, sound float64       // per cent of what was due that came, of all variants
	p99          time.Duration // from a tick to its picture's arrival
	heard        time.Duration // the same of sound, from the end of its samples; 99th percentile
	longest      int64         // ticks in a row of the first variant that did not come
}

// delivered waits until what was due from one time of the program to another is out, or something later, and counts.
func (st *stage) delivered(from, to time.Duration) delivery {
	st.t.Helper()
	first, end := int64(from*30/time.Second), int64(to*30/time.Second)
	st.wait(end + 30) // by then the other variants and the sound are out as well
	st.mu.Lock()
	defer st.mu.Unlock()
	var d delivery
	var took []time.Duration
	came := 0
	for v, aus := range st.video {
		next := first
		for i, au := range aus {
			if au.Tick < first || au.Tick >= end {
				continue
			}
			came++
			if v == 0 {
				took = append(took, st.came[i]-time.Duration(au.Tick)*time.Second/30)
				d.longest = max(d.longest, au.Tick-next)
				next = au.Tick + 1
			}
		}
	}
	d.ticks = 100 * float64(came) / float64(int64(len(st.video))*(end-first))
	slices.Sort(took)
	if len(took) > 0 {
		d.p99 = took[len(took)*99/100]
	}
	took = took[:0]
	for i, au := range st.audio {
		if at := time.Duration(au.Samples) * time.Second / 48000; at >= from && at < to {
			took = append(took, st.heard[i]-at-1024*time.Second/48000)
		}
	}
	d.sound = 100 * float64(len(took)) / (float64(to-from) / float64(time.Second) * 48000 / 1024)
	slices.Sort(took)
	if len(took) > 0 {
		d.heard = took[len(took)*99/100]
	}
	return d
}
