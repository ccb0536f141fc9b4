package player

import "time"

// head is the play head: it waits until enough is buffered, then moves with the clock, and stalls when
// it meets the end of the buffer.
type head struct {
	at      time.Time // wall-clock time of the picture shown
	end     time.Time // end of what is buffered
	enough  time.Duration
	playing bool
	clock   time.Time // when at was true
	stalled time.Time // since when it waits; zero while it plays or has not begun
	begun   bool
}

// jump goes to another place, as after a start or a loss of the window.
func (h *head) jump(to time.Time, m *media) {
	h.at, h.end = to, to
	h.playing = false
	// A player buffers less than its distance from the edge, else it would never begin.
	h.enough = m.holdBack() / 2
}

// have says that at time now everything up to end is buffered.
func (h *head) have(now, end, asked time.Time, res *Result) {
	h.advance(now, res)
	h.end = end
	if !h.playing && h.end.Sub(h.at) >= h.enough {
		h.playing, h.clock = true, now
		if !h.begun {
			h.begun = true
			res.Started, res.Startup = true, now.Sub(asked)
		}
		if !h.stalled.IsZero() {
			res.Stalled += now.Sub(h.stalled)
			h.stalled = time.Time{}
		}
	}
	if h.playing {
		res.Latency.Add(now.Sub(h.at))
	}
}

// advance moves the head to time now.
func (h *head) advance(now time.Time, res *Result) {
	if !h.playing {
		return
	}
	h.at, h.clock = h.at.Add(now.Sub(h.clock)), now
	if late := h.at.Sub(h.end); late > 0 {
		h.at = h.end
		h.playing = false
		h.stalled = now.Add(-late)
		res.Stalls++
	}
}
