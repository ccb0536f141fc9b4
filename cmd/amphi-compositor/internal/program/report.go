//go:build cgo

package program

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// reportEvery is how often statistics go to the node.
const reportEvery = time.Second

// report sends statistics until ctx ends.
func (p *Program) report(ctx context.Context) error {
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := p.out.stats(p.stats()); err != nil {
			return err
		}
	}
}

func (p *Program) stats() *wire.Stats {
	v := p.video
	s := &wire.Stats{
		UptimeNS: int64(time.Since(p.clock.zero)), CPUNS: processTime(), RSSBytes: resident(),
		Tick: v.newest.Load(), Ticks: v.ticks.Load(), Late: v.late.Load(),
		Drops: p.inputs.counted(), PaintNS: v.paintNS.Load(), MixNS: p.audio.mixNS.Load(), AACNS: p.audio.cpu.Load(),
	}
	if level := mix.Level(v.level.Load()); level > mix.Normal {
		s.Overload = int(level.Every())
	}
	for _, e := range v.encoders {
		s.Variants = append(s.Variants, e.stats())
	}
	for _, kind := range []wire.Kind{wire.Video, wire.Audio} {
		for _, in := range p.inputs.each(nil, kind) {
			s.Inputs = append(s.Inputs, in.stats())
		}
	}
	return s
}

// processTime is user and system time of the process.
func processTime() int64 {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return ru.Utime.Nano() + ru.Stime.Nano()
}

// resident is the memory of the process, as Linux tells.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
