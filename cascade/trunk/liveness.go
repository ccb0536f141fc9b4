package trunk

import "time"

// How a trunk is watched, in nanoseconds.
const (
	// aliveBusy and aliveIdle are the pauses between probes while it carries media and not.
	aliveBusy = int64(100 * time.Millisecond)
	aliveIdle = int64(200 * time.Millisecond)
	// busyFor is how long after the last media it counts as carrying some.
	busyFor = int64(2 * time.Second)
	// silence is how long nothing may come before it is doubted.
	silence = int64(300 * time.Millisecond)
	// patience is how long a doubted trunk has at least to answer one probe of a burst.
	patience = int64(100 * time.Millisecond)
	// fullQueue is how much longer it has while records keep coming: the way there may be cut
	// and found so by silence at the other end, or the way back have a queue that is full.
	fullQueue = int64(250 * time.Millisecond)
	heardLate = int64(100 * time.Millisecond)
	// burst is how many probes are sent then, burstGap apart: at 10 % loss each way all of
	// them and their echoes are lost once in 10^11 bursts.
	burst    = 16
	burstGap = int64(2 * time.Millisecond)
)

// state of a trunk's path for media.
type state uint8

const (
	opening state = iota // nothing has been answered yet
	alive
	doubted
	dead
)

// liveness says whether records pass, both ways. A record from the other end shows that one
// direction works; an echo, or a report of records newer than those reported before, that both
// do. Either may be silent for so long before a burst of probes decides. What counts is when
// such a proof comes, not when what it is about was sent: a path with a long queue is not dead.
type liveness struct {
	state  state
	heard  int64 // when the last record came
	proved int64 // when the other end last showed that newer records of ours have come
	echo   int64 // when the newest probe left that has been answered
	probed int64 // when the last probe left; 0 for none
	media  int64 // when media last passed, either way; 0 for never
	doubt  int64 // when the burst began
	sent   int   // probes of the burst
	rtt    rtt
}

// rtt is smoothed as in RFC 6298, in nanoseconds.
type rtt struct {
	smooth, vary int64
	known        bool
}

func (r *rtt) add(sample int64) {
	if !r.known {
		r.smooth, r.vary, r.known = sample, sample/2, true
		return
	}
	r.vary += (max(r.smooth-sample, sample-r.smooth) - r.vary) / 4
	r.smooth += (sample - r.smooth) / 8
}

// deadline is how long an answer may take.
func (r *rtt) deadline() int64 { return max(patience, r.smooth*3/2, r.smooth+4*r.vary) }

// begin sets the clock at a trunk's start.
func (l *liveness) begin(now int64) { l.heard, l.proved = now, now }

// echoed takes an answer to the probe that left at sent.
func (l *liveness) echoed(sent, now int64) {
	if sent > now || sent > l.probed || l.state == dead {
		return // no probe of ours
	}
	l.rtt.add(now - sent)
	if sent > l.echo {
		l.echo = sent
		l.proven(now)
	}
}

// proven takes note that records of ours come through.
func (l *liveness) proven(now int64) {
	if l.state == dead {
		return
	}
	l.proved = now
	l.state = alive
}

// probe says whether a probe should leave now; call it again until it says no.
func (l *liveness) probe(now int64) bool {
	l.judge(now)
	switch l.state {
	case dead:
		return false
	case doubted:
		if l.sent < burst && now < l.doubt+int64(l.sent)*burstGap || l.sent >= burst && now < l.probed+aliveBusy {
			return false
		}
		l.sent++
	default:
		if l.probed != 0 && now-l.probed < l.pause(now) {
			return false
		}
	}
	l.probed = now
	return true
}

func (l *liveness) pause(now int64) int64 {
	if l.state == opening || l.media != 0 && now-l.media < busyFor {
		return aliveBusy
	}
	return aliveIdle
}

func (l *liveness) judge(now int64) {
	switch l.state {
	case alive:
		if now >= l.doubtful() {
			l.state, l.doubt, l.sent = doubted, now, 0
		}
	case doubted:
		if now >= l.deadline() {
			l.state = dead
		}
	}
}

// deadline is when a doubted trunk is down if nothing more comes.
func (l *liveness) deadline() int64 {
	at := l.doubt + l.rtt.deadline()
	return max(at, min(at+fullQueue, l.heard+heardLate))
}

// doubtful is when the trunk is doubted if nothing comes.
func (l *liveness) doubtful() int64 {
	return min(l.heard, l.proved) + silence
}

// next is when probe should be called again.
func (l *liveness) next(now int64) int64 {
	switch l.state {
	case dead:
		return never
	case doubted:
		if l.sent < burst {
			return min(l.deadline(), l.doubt+int64(l.sent)*burstGap)
		}
		return min(l.deadline(), l.probed+aliveBusy)
	case alive:
		return min(l.probed+l.pause(now), l.doubtful())
	default:
		return l.probed + l.pause(now)
	}
}
