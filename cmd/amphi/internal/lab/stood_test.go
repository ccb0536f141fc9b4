package lab

import (
	"testing"
	"time"
)

func TestStood(t *testing.T) {
	t.Parallel()
	began := time.Now()
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	s := &stood{}
	s.note(at(10), at(15)) // too short to count
	s.note(at(100), at(130))
	s.note(at(200), at(250))
	for _, c := range []struct{ from, to, want int }{{0, 90, 0}, {0, 300, 80}, {110, 120, 10}, {120, 210, 20}, {300, 400, 0}} {
		if got := s.within(at(c.from), at(c.to)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%d to %d ms: %v, want %d ms", c.from, c.to, got, c.want)
		}
	}
}
