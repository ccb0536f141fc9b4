package mix_test

import (
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
)

func TestQueueTakesTheNewestDue(t *testing.T) {
	t.Parallel()
	var q mix.Queue[int]
	var dropped []int
	drop := func(i int) { dropped = append(dropped, i) }
	for i := range 5 {
		if _, full := q.Push(i, time.Duration(i)*time.Second); full {
			t.Fatal("full")
		}
	}
	if _, ok := q.Take(-1, drop); ok {
		t.Fatal("nothing is due")
	}
	if f, ok := q.Take(2*time.Second, drop); !ok || f != 2 || !slices.Equal(dropped, []int{0, 1}) {
		t.Fatal(f, ok, dropped)
	}
	if _, ok := q.Take(2*time.Second, drop); ok {
		t.Fatal("twice")
	}
	if q.Len() != 2 {
		t.Fatal(q.Len())
	}
	q.Clear(drop)
	if q.Len() != 0 || !slices.Equal(dropped, []int{0, 1, 3, 4}) {
		t.Fatal(dropped)
	}
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	var q mix.Queue[int]
	lost := 0
	for i := range 100 {
		if f, full := q.Push(i, time.Hour); full {
			if f != lost {
				t.Fatalf("dropped %d, not the oldest", f)
			}
			lost++
		}
	}
	if q.Len()+lost != 100 || q.Len() > 20 {
		t.Fatal(q.Len(), lost)
	}
}
