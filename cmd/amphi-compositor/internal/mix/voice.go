package mix

const (
	ring = 1 << 16 // samples kept per voice, 1.4 s

	// What a voice does when a packet is not due where the last one ended.
	driftTolerance = Rate / 1000      // 1 ms: nothing
	driftFast      = Rate / 100       // from 10 ms on it is stretched more
	gapLeast       = Rate * 30 / 1000 // later by this: a pause
	overlapMost    = Rate * 60 / 1000 // earlier by this: begin anew
	concealMost    = Rate / 10        // what is made up in one go
	concealStep    = Rate / 50        // 20 ms, the usual packet
)

// Voice is one audio input: samples at their playout time, written ahead of the
// mix. Not for concurrent use.
type Voice struct {
	buf     []float32 // interleaved stereo; zero where nothing was written
	end     int64     // sample after the newest one written
	mixed   int64     // samples before it were mixed
	started bool
	gain    float32

	late, resyncs, ahead int64
}

// NewVoice returns a silent voice, mixed up to sample from.
func NewVoice(from int64) *Voice { return &Voice{buf: make([]float32, 2*ring), mixed: from} }

// Counters returns how many samples came too late, too early (beyond the
// ring), and how often the voice began anew.
func (v *Voice) Counters() (late, ahead, resyncs int64) { return v.late, v.ahead, v.resyncs }

// Plan decides how the next packet, due at sample due and with lost packets
// missing before it, joins the last: it moves the voice where it must, and
// returns how many samples to make up first (Write them, then the packet), and by
// how many samples a packet of 20 ms should be stretched to cancel drift.
func (v *Voice) Plan(due int64, lost int) (conceal, stretch int) {
	d := due - v.end
	switch {
	case !v.started, d > Rate/2, d < -overlapMost:
		if v.started {
			v.resyncs++
		}
		v.started, v.end = true, due
		return 0, 0
	case lost > 0 && d >= concealStep/2:
		conceal = int(min((d+concealStep/2)/concealStep*concealStep, concealMost))
		if d > int64(conceal)+gapLeast { // too much to make up: the rest is a pause before it
			v.end = due - int64(conceal)
		}
		return conceal, 0
	case d >= gapLeast:
		v.end = due
		return 0, 0
	}
	switch {
	case d >= driftFast:
		stretch = 8
	case d >= driftTolerance:
		stretch = 2
	case d <= -driftFast:
		stretch = -8
	case d <= -driftTolerance:
		stretch = -2
	}
	return 0, stretch
}

// Write appends interleaved stereo samples at the voice's end. Samples whose time
// has passed, or that lie beyond the ring, are counted and left out.
func (v *Voice) Write(s []float32) {
	n := int64(len(s) / 2)
	at := v.end
	v.end += n
	if over := v.end - (v.mixed + ring); over > 0 {
		over = min(over, n)
		v.ahead += over
		n -= over
	}
	if under := min(v.mixed-at, n); under > 0 {
		v.late += under
		s, at, n = s[2*under:], at+under, n-under
	}
	for n > 0 {
		i := at & (ring - 1)
		k := min(n, ring-i)
		copy(v.buf[2*i:2*(i+k)], s[:2*k])
		s, at, n = s[2*k:], at+k, n-k
	}
}

// Mix adds a block that begins at sample at to left and right, moving from the
// last gain to this one over the block, and forgets it. Blocks come in order.
func (v *Voice) Mix(left, right []float32, at int64, gain float32) {
	n := int64(len(left))
	g, step := v.gain, (gain-v.gain)/float32(n)
	v.gain = gain
	silent := g == 0 && gain == 0
	from, to := max(at, v.mixed), min(at+n, v.end)
	for p := from; p < to; p++ {
		i := 2 * (p & (ring - 1))
		if !silent {
			k := p - at
			a := g + step*float32(k+1)
			left[k] += a * v.buf[i]
			right[k] += a * v.buf[i+1]
		}
		v.buf[i], v.buf[i+1] = 0, 0
	}
	v.mixed = at + n
}

// Stretch resamples interleaved stereo from n to m samples per channel by
// straight lines between them, and returns dst[:2*m].
func Stretch(dst, src []float32, m int) []float32 {
	n := len(src) / 2
	dst = dst[:2*m]
	if m < 2 || n < 2 {
		copy(dst, src)
		return dst
	}
	ratio := float64(n-1) / float64(m-1)
	for i := range m {
		x := float64(i) * ratio
		k := min(int(x), n-2)
		f := float32(x - float64(k))
		dst[2*i] = src[2*k] + f*(src[2*k+2]-src[2*k])
		dst[2*i+1] = src[2*k+1] + f*(src[2*k+3]-src[2*k+1])
	}
	return dst
}
