package link

import "testing"

func TestTheLeastOfTheLastRoundTripsCounts(t *testing.T) {
	t.Parallel()
	var way trips
	for i, c := range []struct{ rtt, want int64 }{{900, 0}, {85, 0}, {500, 85}, {80, 80}} {
		way.add(c.rtt)
		if got := way.least(); got != c.want {
			t.Errorf("after %d round trips: %d, want %d", i+1, got, c.want)
		}
	}
	// The way has become longer.
	for range lastTrips - 1 {
		way.add(280)
	}
	if got := way.least(); got != 80 {
		t.Errorf("while a beat of before is among the last: %d", got)
	}
	if way.add(281); way.least() != 280 {
		t.Errorf("after %d longer ones: %d", lastTrips, way.least())
	}
}
