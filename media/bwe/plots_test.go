package bwe

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/netem"
)

var plots = flag.String("plots", "", "write the plots of BANDWIDTH.md into this folder")

// curve is one line of a plot: a value every plotStep.
type curve struct {
	name   string
	values []float64
}

const plotStep = 100 * ms

// plot has the rates of a run (Mbit/s) above and the wait before the bottleneck (ms) below.
type plot struct {
	title string
	rates []*curve
	queue curve
}

// observe runs the world and calls add, which samples, every plotStep.
func (p *plot) observe(w *world, length time.Duration, add func()) {
	for end := w.now + length; w.now < end; {
		w.run(plotStep)
		add()
		p.queue.values = append(p.queue.values, float64(w.down.QueueDelay())/float64(ms))
	}
}

// throughput returns a function that gives the rate, in Mbit/s, since its last call,
// smoothed over half a second.
func throughput(bytes func() int) func() float64 {
	last, smooth := bytes(), 0.0
	return func() float64 {
		now := bytes()
		rate := float64(now-last) * 8 / plotStep.Seconds() / 1e6
		last = now
		smooth += (rate - smooth) / 5
		return smooth
	}
}

func (c *curve) add(v float64) { c.values = append(c.values, v) }

const (
	plotWidth, plotLeft          = 720, 44
	ratesTop, ratesHeight        = 34, 190
	queueTop, queueHeight        = 254, 70
	plotHeight                   = 350
	plotColours           string = "#0969da #cf222e #1a7f37 #9a6700"
)

// svg draws the plot; it is readable on light and on dark ground.
func (p *plot) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	b.WriteString("<style>text{fill:#24292f}.g{stroke:#8886}path{fill:none;stroke-width:1.5}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>\n")
	fmt.Fprintf(&b, `<text x="%d" y="16" font-weight="bold">%s</text>`+"\n", plotLeft, p.title)
	most := 0.0
	for _, c := range p.rates {
		for _, v := range c.values {
			most = max(most, v)
		}
	}
	axis(&b, "Mbit/s", ratesTop, ratesHeight, most)
	colours := strings.Fields(plotColours)
	x := plotLeft
	for i, c := range p.rates {
		c.draw(&b, ratesTop, ratesHeight, most, colours[i])
		fmt.Fprintf(&b, `<text x="%d" y="%d" style="fill:%s">%s</text>`+"\n", x, ratesTop+ratesHeight+16, colours[i], c.name)
		x += 14 + 7*len(c.name)
	}
	most = 50
	for _, v := range p.queue.values {
		most = max(most, v)
	}
	axis(&b, "queue, ms", queueTop, queueHeight, most)
	p.queue.draw(&b, queueTop, queueHeight, most, "#8250df")
	seconds := len(p.queue.values) / int(time.Second/plotStep)
	for s := 0; s <= seconds; s += 10 {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%d s</text>`+"\n", plotLeft+(plotWidth-plotLeft-10)*s/seconds, plotHeight-8, s)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func axis(b *strings.Builder, unit string, top, height int, most float64) {
	step := math.Pow(10, math.Floor(math.Log10(most)))
	if most/step < 3 {
		step /= 2
	}
	for v := 0.0; v <= most; v += step {
		y := float64(top+height) - v/most*float64(height)
		fmt.Fprintf(b, `<line class="g" x1="%d" x2="%d" y1="%.0f" y2="%.0f"/><text x="%d" y="%.0f" text-anchor="end">%g</text>`+"\n",
			plotLeft, plotWidth-10, y, y, plotLeft-4, y+4, v)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotWidth-10, top-4, unit)
}

// draw writes the curve as relative steps in tenths of a pixel.
func (c *curve) draw(b *strings.Builder, top, height int, most float64, colour string) {
	scale := float64(plotWidth-plotLeft-10) / float64(max(len(c.values)-1, 1))
	fmt.Fprintf(b, `<path stroke="%s" d="`, colour)
	for i, v := range c.values {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(b, "%s%.0f %.0f", command, float64(plotLeft)+float64(i)*scale, float64(top+height)-v/most*float64(height))
	}
	b.WriteString("\"/>\n")
}

func plotConvergence(t *testing.T) *plot {
	f := &flow{choose: greedy(10e6)}
	w := newWorld(t, netem.Params{Rate: 2e6, Delay: 25 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 25 * ms}, f)
	estimate, sent := &curve{name: "estimate"}, &curve{name: "arrived"}
	p := &plot{title: "A sender without end joins on 2 Mbit/s, round trip 50 ms", rates: []*curve{estimate, sent}}
	rate := throughput(func() int { return f.bytes })
	p.observe(w, 40*time.Second, func() {
		estimate.add(float64(f.est.Estimate()) / 1e6)
		sent.add(rate())
	})
	return p
}

func plotDrop(t *testing.T) *plot {
	f := &flow{choose: viewer(t)}
	link := netem.Params{Rate: 5e6, Delay: 20 * ms, QueueDelay: 500 * ms}
	w := newWorld(t, link, netem.Params{Delay: 20 * ms}, f)
	capacity, estimate, sent := &curve{name: "link"}, &curve{name: "estimate"}, &curve{name: "video"}
	p := &plot{title: "A viewer of 150, 500 and 1500 kbit/s: 5 to 1 Mbit/s and back", rates: []*curve{capacity, estimate, sent}}
	for _, rate := range []int64{5e6, 1e6, 5e6} {
		link.Rate = rate
		if err := w.down.Set(w.now, link); err != nil {
			t.Fatal(err)
		}
		p.observe(w, 15*time.Second, func() {
			capacity.add(float64(rate) / 1e6)
			estimate.add(min(float64(f.est.Estimate()), 5e6) / 1e6)
			sent.add(f.video / 1e6)
		})
	}
	return p
}

func plotFairness(t *testing.T) *plot {
	a, b := &flow{choose: greedy(10e6)}, &flow{choose: greedy(10e6)}
	w := newWorld(t, netem.Params{Rate: 3e6, Delay: 25 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 25 * ms}, a, b)
	b.begins = w.now + 10*time.Second
	b.frame, b.audio = b.begins, b.begins
	x, y := &curve{name: "first"}, &curve{name: "second"}
	p := &plot{title: "Two senders without end behind one link of 3 Mbit/s", rates: []*curve{x, y}}
	rateA, rateB := throughput(func() int { return a.bytes }), throughput(func() int { return b.bytes })
	p.observe(w, 60*time.Second, func() {
		x.add(rateA())
		y.add(rateB())
	})
	return p
}

func plotCross(t *testing.T) *plot {
	f := &flow{choose: greedy(10e6)}
	w := newWorld(t, netem.Params{Rate: 4e6, Delay: 25 * ms, QueueDelay: 200 * ms}, netem.Params{Delay: 25 * ms}, f)
	d := &download{Cross: netem.NewCross(netem.Cubic)}
	x, y := &curve{name: "media"}, &curve{name: "download"}
	p := &plot{title: "A CUBIC download from 10 to 60 s on 4 Mbit/s", rates: []*curve{x, y}}
	rate, other := throughput(func() int { return f.bytes }), throughput(func() int { return d.received })
	sample := func() {
		x.add(rate())
		y.add(other())
	}
	p.observe(w, 10*time.Second, sample)
	w.cross = []*download{d}
	p.observe(w, 50*time.Second, sample)
	d.stopped = true
	p.observe(w, 15*time.Second, sample)
	return p
}

// TestPlots draws what BANDWIDTH.md shows; with -plots it writes the files.
func TestPlots(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(*testing.T) *plot{
		"convergence": plotConvergence, "drop": plotDrop, "fairness": plotFairness, "cross": plotCross,
	} {
		svg := make(t).svg()
		if len(svg) > 30<<10 {
			t.Errorf("%s has %d bytes", name, len(svg))
		}
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if *plots != "" {
			if err := os.WriteFile(filepath.Join(*plots, name+".svg"), []byte(svg), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
