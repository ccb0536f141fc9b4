package mix

import "math"

const (
	ceiling     = 0.95
	limiterStep = 32 // samples between gain points
	// release brings the gain back by 63 % in about 150 ms.
	release = 1 - limiterStep/(0.150*Rate)
)

// Limiter keeps a sum of voices below full scale without clicks: gain falls
// before a peak (within the block) and comes back slowly. The zero value is ready.
type Limiter struct {
	reduction float32 // 1 − gain at the end of the last block
	points    [Block/limiterStep + 1]float32
}

// Process limits a block of Block samples in place.
func (l *Limiter) Process(left, right []float32) {
	const n = Block / limiterStep
	// The gain at each point must suit the samples on both sides of it.
	var need [n]float32
	quiet := l.reduction < 1e-4
	for i := range n {
		peak := float32(0)
		for k := i * limiterStep; k < (i+1)*limiterStep; k++ {
			peak = max(peak, abs(left[k]), abs(right[k]))
		}
		if peak > ceiling {
			need[i] = 1 - ceiling/peak
			quiet = false
		}
	}
	if quiet {
		l.reduction = 0
		return
	}
	r := l.reduction
	l.points[0] = r
	for i := range n {
		r *= release
		at := need[i]
		if i+1 < n {
			at = max(at, need[i+1])
		}
		r = max(r, at)
		l.points[i+1] = r
	}
	// Nothing was known of a peak in the first samples: there the gain does step.
	l.points[0] = max(l.points[0], need[0])
	l.reduction = r
	for i := range n {
		a, b := l.points[i], l.points[i+1]
		for k := range limiterStep {
			g := 1 - (a + (b-a)*float32(k)/limiterStep)
			j := i*limiterStep + k
			left[j] = clamp(left[j] * g)
			right[j] = clamp(right[j] * g)
		}
	}
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// clamp is the last resort; it also silences what isn't a number.
func clamp(x float32) float32 {
	switch {
	case x > 1:
		return 1
	case x < -1:
		return -1
	case x != x:
		return 0
	}
	return x
}
