package tally

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantilesAreCloseToExact(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var h, half Histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(rng.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			h.Add(d)
		} else {
			half.Add(d)
		}
	}
	h.Merge(&half)
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.95, 0.99, 1} {
		exact := all[max(0, int(q*float64(len(all)))-1)]
		got := h.Quantile(q)
		if diff := (got - exact).Abs(); diff > exact/20+2*time.Microsecond {
			t.Errorf("quantile %v: %v, exact %v", q, got, exact)
		}
	}
	if h.Count() != 20_000 || h.Max() != all[len(all)-1] {
		t.Errorf("count %d, max %v", h.Count(), h.Max())
	}
}

func TestBucketsCoverEverything(t *testing.T) {
	t.Parallel()
	last := -1
	for us := int64(0); us < 1<<33; us += 1 + us/50 {
		d := time.Duration(us) * time.Microsecond
		b := bucket(d)
		if b < last || b >= buckets {
			t.Fatalf("%v is in bucket %d after %d of %d", d, b, last, buckets)
		}
		if us < 1<<32 && upper(b) < d {
			t.Fatalf("%v is above the bound %v of its bucket", d, upper(b))
		}
		last = b
	}
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty histogram has values")
	}
	h.Add(-time.Second)
	h.Add(1000 * time.Hour)
	if h.Count() != 2 {
		t.Error("outliers are not counted")
	}
}

// feed sends packets of 3 per frame, 33 ms apart, but those in skip.
func feed(s *Stream, from, to int, start time.Time, skip ...int) {
	for n := from; n < to; n++ {
		if slices.Contains(skip, n) {
			continue
		}
		s.Add(Packet{Seq: uint16(n), Marker: n%3 == 2, At: start.Add(time.Duration(n/3) * 33 * time.Millisecond)})
	}
}

func TestStreamCountsLossFramesAndFreezes(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	s := Stream{Video: true}
	feed(&s, 65_400, 65_700, now, 65_430, 65_431)
	c := s.Counts()
	if c.Received != 298 || c.Lost != 2 || c.Frames != 99 || c.Broken != 1 || c.Freezes != 0 {
		t.Errorf("counts %+v", c)
	}
	if s.Add(Packet{Seq: 65_499, At: now}) || s.Counts().Repeated != 1 {
		t.Error("a repeated packet counts as new")
	}
	if !s.Add(Packet{Seq: 65_430, At: now}) || s.Counts().Lost != 1 {
		t.Error("a late packet does not count")
	}
	// Half a second of nothing is one freeze.
	feed(&s, 65_700, 65_760, now.Add(500*time.Millisecond))
	d := s.Counts().Since(c)
	if d.Freezes != 1 || d.Frozen < 450*time.Millisecond || d.Frozen > 550*time.Millisecond || d.Frames < 19 {
		t.Errorf("after a gap %+v", d)
	}
}

func TestStreamSurvivesAnyInput(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	s := Stream{Video: true}
	for range 100_000 {
		s.Add(Packet{Seq: uint16(rng.Uint32()), Marker: rng.IntN(2) == 0, At: time.Unix(rng.Int64N(100), 0)})
	}
	if c := s.Counts(); c.Received+c.Repeated != 100_000 {
		t.Errorf("%+v", c)
	}
}

func BenchmarkStreamAdd(b *testing.B) {
	s := Stream{Video: true}
	now := time.Now()
	b.ReportAllocs()
	n := uint16(0)
	for b.Loop() {
		s.Add(Packet{Seq: n, Marker: n%7 == 6, At: now})
		n++
	}
}
