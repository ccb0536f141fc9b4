package packager

import "time"

// rate measures the bit rate of a media playlist, containers included.
type rate struct {
	bytes  int  // of the open segment
	sparse bool // it has a part that lacks most of its pictures, as of a variant that idles: no player that goes on gets such
	peak   float64
	recent []measure
	bits   float64       // of recent
	time   time.Duration // of recent
}

type measure struct {
	bits   float64
	length time.Duration
}

// shortest segment that says something about the bit rate; those that a dead compositor left may be tiny.
const shortest = 500 * time.Millisecond

// averaged is how many segments the average is over.
const averaged = 60

// segment ends a segment.
func (r *rate) segment(length time.Duration) {
	x := measure{8 * float64(r.bytes), length}
	sparse := r.sparse
	r.bytes, r.sparse = 0, false
	if length < shortest {
		return
	}
	r.peak = max(r.peak, x.bits/length.Seconds())
	if sparse {
		return
	}
	r.recent = append(r.recent, x)
	r.bits, r.time = r.bits+x.bits, r.time+length
	if len(r.recent) > averaged {
		r.bits, r.time = r.bits-r.recent[0].bits, r.time-r.recent[0].length
		r.recent = append(r.recent[:0], r.recent[1:]...)
	}
}

// enough is how much must have been measured for an average.
const enough = 10 * time.Second

// bandwidth is the average and the peak in bit/s of a playlist that should have nominal: what was measured as far as it was, and never
// a peak below what the encoder is allowed.
func (r *rate) bandwidth(nominal int) (average, peak int) {
	average = nominal
	if r.time >= enough {
		average = int(r.bits / r.time.Seconds())
	}
	peak = max(int(peakFactor*float64(nominal)), int(r.peak)+1)
	return min(average, peak), peak
}
