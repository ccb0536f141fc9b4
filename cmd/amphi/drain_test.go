package main

import (
	"testing"
	"time"
)

// TestClientsAreMovedInHalfOfTheTime: however many there are, unless that takes more than others can bear, and no
// faster than that needs.
func TestClientsAreMovedInHalfOfTheTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		clients uint64
		left    time.Duration
		want    int
	}{
		{0, 30 * time.Second, leastMoves},
		{100, 30 * time.Second, leastMoves},
		{6_000, 30 * time.Second, 400},
		{6_001, 30 * time.Second, 401},
		{6_000, time.Hour, leastMoves},
		{1_000_000, 30 * time.Second, mostMoves},
		{40, time.Second, 40},
		{40, -time.Second, 40},
	} {
		if got := movesPerSecond(c.clients, c.left); got != c.want {
			t.Errorf("%d clients in %v: %d a second, want %d", c.clients, c.left, got, c.want)
		}
	}
}
