package bwe

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/alloc"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/netem"
)

const ms = time.Millisecond

// encodeTWCC builds a feedback packet for sequences from base on: the arrival
// times on the receiver's clock, negative for lost.
func encodeTWCC(base uint16, count uint8, arrivals []time.Duration) []byte {
	reference := time.Duration(-1)
	for _, a := range arrivals {
		if a >= 0 {
			reference = a / refUnit
			break
		}
	}
	reference = max(reference, 0)
	b := make([]byte, twccHeader)
	b[0], b[1] = 2<<6|twccFormat, rtpfb
	binary.BigEndian.PutUint16(b[12:], base)
	binary.BigEndian.PutUint16(b[14:], uint16(len(arrivals)))
	b[16], b[17], b[18], b[19] = byte(reference>>16), byte(reference>>8), byte(reference), count
	var symbols []uint16
	var deltas []byte
	at := reference * refUnit
	for _, a := range arrivals {
		if a < 0 {
			symbols = append(symbols, symbolLost)
			continue
		}
		d := int((a - at) / deltaUnit)
		at += time.Duration(d) * deltaUnit
		if d >= 0 && d < 256 {
			symbols = append(symbols, symbolSmall)
			deltas = append(deltas, byte(d))
		} else {
			symbols = append(symbols, symbolLarge)
			deltas = binary.BigEndian.AppendUint16(deltas, uint16(int16(d)))
		}
	}
	for len(symbols) > 0 {
		run := 1
		for run < len(symbols) && symbols[run] == symbols[0] {
			run++
		}
		if run >= 7 {
			b = binary.BigEndian.AppendUint16(b, symbols[0]<<13|uint16(run))
			symbols = symbols[run:]
			continue
		}
		chunk := uint16(3 << 14)
		for i := range min(7, len(symbols)) {
			chunk |= symbols[i] << (12 - 2*i)
		}
		b = binary.BigEndian.AppendUint16(b, chunk)
		symbols = symbols[min(7, len(symbols)):]
	}
	b = append(b, deltas...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1))
	return b
}

// wire is a packet on the emulated link: of a flow, or number cross of a download.
type wire struct {
	flow     *flow
	seq      uint16
	size     int
	sent     time.Duration
	download *download
	cross    uint64
}

// download is other traffic on the bottleneck.
type download struct {
	*netem.Cross
	received int // bytes
	stopped  bool
}

const downloadPacket = 1200

// receiver reports arrivals as a browser does.
type receiver struct {
	at      map[uint16]time.Duration
	next    uint16
	highest uint16
	any     bool
	count   uint8
}

const clockOffset = 1234567 * ms // the receiver's clock is another one

func (r *receiver) receive(seq uint16, now time.Duration) {
	if r.at == nil {
		r.at = map[uint16]time.Duration{}
	}
	if !r.any || int16(seq-r.highest) > 0 {
		r.highest, r.any = seq, true
	}
	if int16(seq-r.next) < 0 { // what has been reported is reported again, with the late one
		r.next = seq
	}
	r.at[seq] = now + clockOffset
}

func (r *receiver) report() []byte {
	if !r.any || int16(r.highest-r.next) < 0 {
		return nil
	}
	var arrivals []time.Duration
	for s := r.next; s != r.highest+1; s++ {
		a, ok := r.at[s]
		if !ok {
			a = -1
		}
		arrivals = append(arrivals, a)
		delete(r.at, s-2000)
	}
	b := encodeTWCC(r.next, r.count, arrivals)
	r.next = r.highest + 1
	r.count++
	return b
}

// flow is one sender with its estimator and receiver. Its source sends video of
// the bit rate that choose gives for the estimate, and audio of 40 kbit/s.
type flow struct {
	est      *Estimator
	choose   func(f *flow, estimate float64) float64
	sink     receiver
	video    float64
	frame    time.Duration // of the next frame
	audio    time.Duration // of the next audio packet
	owed     float64
	begins   time.Duration // before it nothing is sent
	now      time.Duration
	received int
	bytes    int // received, headers of IP and UDP included
	delays   []time.Duration
}

// world is a bottleneck shared by flows, in virtual time.
type world struct {
	tb     testing.TB
	now    time.Duration
	down   *netem.Link[wire]
	up     *netem.Link[func()]
	flows  []*flow
	cross  []*download
	every  func() // called each ms
	nextFB time.Duration
}

func newWorld(tb testing.TB, down, up netem.Params, flows ...*flow) *world {
	tb.Helper()
	d, err := netem.New[wire](down, 1)
	if err != nil {
		tb.Fatal(err)
	}
	u, err := netem.New[func()](up, 2)
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{tb: tb, down: d, up: u, flows: flows, now: time.Second}
	for i, f := range flows {
		if f.est, err = New(Config{Seed: uint64(i)}); err != nil {
			tb.Fatal(err)
		}
		f.frame = w.now + time.Duration(i)*7*ms
		f.audio = w.now + time.Duration(i)*3*ms
	}
	return w
}

func (w *world) run(length time.Duration) {
	for end := w.now + length; w.now < end; w.now += ms {
		for {
			p, ok := w.down.Receive(w.now)
			if !ok {
				break
			}
			w.arrive(p)
		}
		if w.now >= w.nextFB {
			w.nextFB = w.now + 60*ms
			for _, f := range w.flows {
				if b := f.sink.report(); b != nil {
					w.up.Send(w.now, len(b), func() {
						if _, err := f.est.Feedback(b, w.now); err != nil {
							w.tb.Fatalf("feedback: %v", err)
						}
					})
				}
			}
		}
		for {
			deliver, ok := w.up.Receive(w.now)
			if !ok {
				break
			}
			deliver()
		}
		for _, f := range w.flows {
			if w.now >= f.begins {
				w.send(f)
			}
		}
		w.sendCross()
		if w.every != nil {
			w.every()
		}
	}
}

func (w *world) arrive(p wire) {
	if d := p.download; d != nil {
		d.received += downloadPacket
		w.up.Send(w.now, 40, func() { d.Ack(p.cross, w.now) })
		return
	}
	p.flow.sink.receive(p.seq, w.now)
	p.flow.received++
	p.flow.bytes += p.size
	p.flow.delays = append(p.flow.delays, w.now-p.sent)
}

func (w *world) sendCross() {
	for _, d := range w.cross {
		for !d.stopped {
			n, ok := d.Send(w.now)
			if !ok {
				break
			}
			w.down.Send(w.now, downloadPacket, wire{download: d, cross: n})
		}
	}
}

func (w *world) packet(f *flow, size int) {
	seq := f.est.Sent(size, w.now)
	w.down.Send(w.now, size+28, wire{flow: f, seq: seq, size: size + 28, sent: w.now})
}

func (w *world) send(f *flow) {
	f.now = w.now
	f.est.Poll(w.now)
	f.video = f.choose(f, float64(f.est.Estimate()))
	if w.now >= f.audio {
		f.audio += 20 * ms
		w.packet(f, 72)
	}
	if w.now >= f.frame {
		f.frame += 33 * ms
		f.owed += f.video * 0.033 / 8
		for f.owed > 200 {
			n := min(f.owed, 1100)
			w.packet(f, int(n))
			f.owed -= n + 28
		}
	}
	if w.now%(5*ms) == 0 { // senders wake every few milliseconds
		for n := f.est.Padding(w.now); n > 0; n -= probePayload {
			w.packet(f, probePayload)
		}
	}
}

const audioRate = 40_000

// simulcast chooses among three layers as a careful allocator would.
func simulcast() func(*flow, float64) float64 {
	layers := []float64{150_000, 500_000, 1_500_000}
	cur := 0
	return func(f *flow, estimate float64) float64 {
		for cur > 0 && layers[cur]+audioRate > estimate*1.05 {
			cur--
		}
		for cur+1 < len(layers) && layers[cur+1]+audioRate < estimate*0.95 {
			cur++
		}
		d := Demand{}
		if cur+1 < len(layers) {
			d = Demand{Next: int64(layers[cur+1] + audioRate), Top: int64(layers[2]+audioRate) * 11 / 10}
		}
		f.est.SetDemand(d)
		return layers[cur]
	}
}

// viewer chooses among three layers as an endpoint of the engine does.
func viewer(tb testing.TB) func(*flow, float64) float64 {
	a, err := alloc.New(alloc.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	layers := []float64{150_000, 500_000, 1_500_000}
	camera := &alloc.Track{Class: alloc.Camera, Priority: 3, Width: 1280, Height: 720, MaxSpatial: -1}
	for i, rate := range layers {
		camera.Options = append(camera.Options, alloc.Option{
			Layer: layer.Layer{Spatial: int8(i), Temporal: layer.Top}, Rate: int64(rate * 1.05), Width: 320 << i, Height: 180 << i, Live: true,
		})
	}
	mic := &alloc.Track{Class: alloc.Audio, Options: []alloc.Option{{Rate: audioRate, Live: true}}}
	tracks := []*alloc.Track{camera, mic}
	var next time.Duration
	return func(f *flow, estimate float64) float64 {
		if now := f.now; now >= next {
			next = now + 100*ms
			budget, base := int64(estimate), int64(0)
			s := f.est.Stats()
			if s.Overuses+s.LossBackoffs+s.ProbesFailed+s.Timeouts == 0 {
				base = 250_000
				budget = max(budget, base)
			}
			d := a.Allocate(tracks, budget, now)
			f.est.SetDemand(Demand{Next: d.Next, Top: d.Top})
		}
		if camera.Target.Spatial < 0 {
			return 0
		}
		return layers[camera.Target.Spatial]
	}
}

// greedy sends whatever the estimate allows, up to top.
func greedy(top float64) func(*flow, float64) float64 {
	return func(f *flow, estimate float64) float64 {
		f.est.SetDemand(Demand{Next: int64(min(estimate*1.2, top)), Top: int64(top)})
		return min(max(estimate-audioRate, 30_000), top)
	}
}

// until runs until cond holds and says after how long, or the limit.
func (w *world) until(limit time.Duration, cond func() bool) time.Duration {
	start := w.now
	for w.now-start < limit && !cond() {
		w.run(ms)
	}
	return w.now - start
}

func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Clone(d)
	slices.Sort(s)
	return s[min(len(s)*p/100, len(s)-1)]
}
