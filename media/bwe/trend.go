package bwe

import "time"

// usage is what the delay trend says of the path's queue.
type usage uint8

const (
	normal usage = iota
	overuse
	underuse
)

const (
	// groupSpan joins packets sent within it into one group: a frame's packets
	// leave together.
	groupSpan = 5 * time.Millisecond
	// trendWindow is how many group delays the regression runs over.
	trendWindow = 20
	// trendSmoothing is the weight of the past in the smoothed delay.
	trendSmoothing = 0.9
	// trendGain and trendMaxCount scale the slope for comparison with the
	// threshold (as in draft-ietf-rmcat-gcc-02 section 5.4, with a regression
	// in place of the Kalman filter).
	trendGain     = 4.0
	trendMaxCount = 60
	// The threshold adapts between these bounds (ms): up slowly when the trend
	// passes it, down faster, so that competing flows do not starve this one.
	thresholdStart, thresholdMin, thresholdMax = 12.5, 6.0, 600.0
	thresholdUp, thresholdDown                 = 0.0087, 0.039
	// thresholdSpike: a trend this far above the threshold (ms) is an outlier
	// and does not adapt it.
	thresholdSpike = 15.0
	// overuseTime is how long the trend must be above the threshold.
	overuseTime = 10 * time.Millisecond
	// streamReset starts over after a hole this long in arrivals.
	streamReset = 3 * time.Second
)

type group struct {
	firstSent, sent, arrival, firstArrival time.Duration
	valid                                  bool
}

// trend watches one-way delay variation, group by group, and tells whether the
// queue on the path grows.
type trend struct {
	cur, prev group
	acc       float64 // accumulated delay variation, ms
	smooth    float64
	count     int
	origin    time.Duration // arrival of the first group
	x, y      [trendWindow]float64
	n, pos    int

	threshold   float64 // ms
	adapted     time.Duration
	overFor     time.Duration
	overCount   int
	lastSlope   float64
	state       usage
	initialised bool
}

// add takes one received packet in order of sending; one that others have overtaken tells
// nothing of the queue.
func (t *trend) add(sent, arrival time.Duration) {
	if t.cur.valid && sent < t.cur.firstSent {
		return
	}
	if !t.initialised {
		*t = trend{initialised: true, threshold: thresholdStart}
	}
	if !t.cur.valid {
		t.cur = group{firstSent: sent, sent: sent, arrival: arrival, firstArrival: arrival, valid: true}
		t.origin = arrival
		return
	}
	if d := arrival - t.cur.arrival; d > streamReset || d < -streamReset {
		*t = trend{}
		t.add(sent, arrival)
		return
	}
	if t.joins(sent, arrival) {
		t.cur.sent = max(t.cur.sent, sent)
		t.cur.arrival = max(t.cur.arrival, arrival)
		return
	}
	if t.prev.valid {
		t.sample(t.cur.sent-t.prev.sent, t.cur.arrival-t.prev.arrival, t.cur.arrival)
	}
	t.prev = t.cur
	t.cur = group{firstSent: sent, sent: sent, arrival: arrival, firstArrival: arrival, valid: true}
}

// joins says whether a packet belongs to the current group: sent with it, or
// delivered in one burst with it although sent later.
func (t *trend) joins(sent, arrival time.Duration) bool {
	if sent-t.cur.firstSent <= groupSpan {
		return true
	}
	gap := arrival - t.cur.arrival
	return gap <= groupSpan && gap-(sent-t.cur.sent) < 0 && arrival-t.cur.firstArrival < 100*time.Millisecond
}

func (t *trend) sample(dSent, dArrival, arrival time.Duration) {
	delta := millis(dArrival - dSent)
	t.acc += delta
	t.smooth = trendSmoothing*t.smooth + (1-trendSmoothing)*t.acc
	t.count = min(t.count+1, trendMaxCount)
	t.x[t.pos], t.y[t.pos] = millis(arrival-t.origin), t.smooth
	t.pos = (t.pos + 1) % trendWindow
	t.n = min(t.n+1, trendWindow)
	slope := t.lastSlope
	if t.n == trendWindow {
		slope = t.slope()
	}
	t.detect(slope, dSent, arrival)
}

// slope is the least-squares slope of smoothed delay over time.
func (t *trend) slope() float64 {
	var sx, sy float64
	for i := range t.x {
		sx += t.x[i]
		sy += t.y[i]
	}
	mx, my := sx/trendWindow, sy/trendWindow
	var num, den float64
	for i := range t.x {
		num += (t.x[i] - mx) * (t.y[i] - my)
		den += (t.x[i] - mx) * (t.x[i] - mx)
	}
	if den == 0 {
		return t.lastSlope
	}
	return num / den
}

func (t *trend) detect(slope float64, dSent, arrival time.Duration) {
	modified := float64(t.count) * slope * trendGain
	switch {
	case modified > t.threshold:
		t.overFor += max(dSent, 0)
		t.overCount++
		if t.overFor > overuseTime && t.overCount > 1 && slope >= t.lastSlope {
			t.overFor, t.overCount = 0, 0
			t.state = overuse
		}
	case modified < -t.threshold:
		t.overFor, t.overCount = 0, 0
		t.state = underuse
	default:
		t.overFor, t.overCount = 0, 0
		t.state = normal
	}
	t.lastSlope = slope
	t.adapt(modified, arrival)
}

func (t *trend) adapt(modified float64, arrival time.Duration) {
	if t.adapted == 0 {
		t.adapted = arrival
	}
	size := modified
	if size < 0 {
		size = -size
	}
	if size <= t.threshold+thresholdSpike {
		k := thresholdUp
		if size < t.threshold {
			k = thresholdDown
		}
		dt := min(max(millis(arrival-t.adapted), 0), 100)
		t.threshold = min(max(t.threshold+k*(size-t.threshold)*dt, thresholdMin), thresholdMax)
	}
	t.adapted = arrival
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
