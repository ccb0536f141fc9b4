package seq

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTrackerFollowsAnOrdinaryStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tr, u := Tracker{Behind: 512}, Unwrapper{}
		base := rapid.Uint16().Draw(t, "first")
		high := 0
		for range rapid.IntRange(1, 300).Draw(t, "packets") {
			at := high + rapid.IntRange(-min(high, 500), 400).Draw(t, "step")
			high = max(high, at)
			s := base + uint16(at)
			want := u.Unwrap(s)
			if got, v := tr.Take(s); v != Valid || got != want || tr.Highest() != u.Highest() {
				t.Fatalf("number %d: %d (%d), want %d", s, got, v, want)
			}
		}
	})
}

func TestTrackerIsNotLedAstray(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tr := Tracker{Behind: 512}
		s := rapid.Uint16().Draw(t, "first")
		want, _ := tr.Take(s)
		used := map[uint64]bool{want: true}
		for range rapid.IntRange(1, 200).Draw(t, "packets") {
			// A jump to anywhere far away, and on as if nothing had been.
			far := s + uint16(rapid.IntRange(maxAhead+2, 1<<16-maxAhead).Draw(t, "jump"))
			if _, v := tr.Take(far); v != Doubtful {
				t.Fatalf("a jump from %d to %d is believed: %d", s, far, v)
			}
			s++
			got, v := tr.Take(s)
			if want++; v != Valid || got != want || used[got] {
				t.Fatalf("after a jump %d: %d (%d), want %d", s, got, v, want)
			}
			used[got] = true
		}
	})
}

func TestTrackerRestarts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		jump uint16
		run  int
	}{
		"ahead": {20000, 2}, "behind": {1<<16 - 20000, 2}, "a bit behind": {1<<16 - 1000, 8}, "half": {1 << 15, 2},
	} {
		tr := Tracker{Behind: 512}
		highest, _ := tr.Take(40000)
		s := uint16(40000) + tc.jump
		for i := range tc.run {
			got, v := tr.Take(s)
			if last := i == tc.run-1; last != (v == Restarted) || !last && v != Doubtful {
				t.Fatalf("%s: packet %d: verdict %d", name, i, v)
			} else if last && (got <= highest || uint16(got) != s) {
				t.Fatalf("%s: restarted at %d after %d", name, got, highest)
			}
			s++
		}
		before := tr.Highest()
		if got, v := tr.Take(s); v != Valid || got != before+1 {
			t.Fatalf("%s: does not go on: %d after %d (%d)", name, got, before, v)
		}
		if got, ok := tr.Near(s - 1); !ok || got != before {
			t.Fatalf("%s: sent again: %d, %v", name, got, ok)
		}
		if _, ok := tr.Near(s + 20000); ok {
			t.Fatalf("%s: far away is near", name)
		}
	}
}

// TestTrackerSteps65535 goes down by one with every packet, as a step of 65535 does.
func TestTrackerSteps65535(t *testing.T) {
	t.Parallel()
	tr := Tracker{Behind: 512}
	tr.Take(5)
	s, valid := uint16(5), 0
	for range 1<<16 - maxAhead {
		s--
		_, v := tr.Take(s)
		if v == Restarted {
			t.Fatal("going down is taken for a new beginning")
		}
		if v == Valid {
			valid++
		}
	}
	if valid > 512 {
		t.Fatalf("%d packets are taken for late ones", valid)
	}
}

func TestTrackerExpects(t *testing.T) {
	t.Parallel()
	tr := Tracker{Behind: 512}
	tr.Expect() // nothing came yet: nothing to restart
	first, v := tr.Take(100)
	if v != Valid {
		t.Fatalf("first: %d", v)
	}
	tr.Expect()
	if _, ok := tr.Near(100); ok {
		t.Fatal("another sender's number is near")
	}
	got, v := tr.Take(101)
	if v != Restarted || got <= first+1 || uint16(got) != 101 {
		t.Fatalf("another sender's first: %d (%d)", got, v)
	}
}

func TestTimeline(t *testing.T) {
	t.Parallel()
	const second = int64(time.Second)
	var tl Timeline
	now, ts := second, uint32(1<<32-90000)
	step := func(ticks uint32, passed int64, want Verdict) {
		t.Helper()
		now += passed
		ts += ticks
		if got := tl.Take(ts, now, 90000); got != want {
			t.Fatalf("verdict %d, want %d", got, want)
		}
	}
	step(0, 0, Valid)
	for range 100 {
		step(3000, second/30, Valid)
	}
	step(60*90000, 60*second, Valid) // a still screen
	step(3000, 3600*second, Valid)   // a clock that stood still
	step(1<<31+1, second/30, Doubtful)
	ts -= 1<<31 + 1
	step(3000, second/30, Valid) // one packet lied
	step(900*90000, second/30, Doubtful)
	step(3000, second/30, Restarted)
	step(3000, second/30, Valid)
	step(1<<32-90*90000, second/30, Doubtful) // back
	step(0, 0, Restarted)
	if off := tl.Off(ts+90000, now+second, 90000); off != 0 {
		t.Fatalf("off by %d", off)
	}
	tl.Expect()
	step(1<<31, second/30, Valid)
	if got := new(Timeline).Off(7, now, 90000); got != 0 {
		t.Fatalf("off by %d before the first", got)
	}
}

func FuzzTracker(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 0xff, 0xff, 0, 3}, uint16(512))
	f.Add([]byte{0x80, 0, 0, 0, 0x80, 1, 0x80, 2}, uint16(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, behind uint16) {
		tr := Tracker{Behind: behind}
		for ; len(b) >= 2; b = b[2:] {
			s, before := uint16(b[0])<<8|uint16(b[1]), tr.Highest()
			ext, v := tr.Take(s)
			if v != Doubtful && uint16(ext) != s {
				t.Fatalf("%d is extended to %d", s, ext)
			}
			if v == Restarted && ext <= before || tr.Highest() < before {
				t.Fatalf("restarted at %d below %d", ext, before)
			}
			if near, ok := tr.Near(s); ok && uint16(near) != s {
				t.Fatalf("%d is near %d", s, near)
			}
		}
	})
}

func BenchmarkTracker(b *testing.B) {
	tr, s := Tracker{Behind: 512}, uint16(0)
	for b.Loop() {
		tr.Take(s)
		s++
	}
}
