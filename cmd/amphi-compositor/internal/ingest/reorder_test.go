package ingest

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// pull takes everything that is in order now.
func pull(r *reorder, now time.Duration) (seqs []uint16, lost int) {
	for {
		p, l, ok := r.pop(now, 60*ms)
		if !ok {
			return seqs, lost
		}
		seqs, lost = append(seqs, p.seq), lost+l
	}
}

func TestReorder(t *testing.T) {
	t.Parallel()
	var r reorder
	for i, seq := range []uint16{65534, 0, 65535, 2} {
		if v := r.push(held{seq: seq, arrived: time.Duration(i) * ms}); v != accepted {
			t.Fatalf("%d: verdict %d", seq, v)
		}
	}
	if got, lost := pull(&r, 4*ms); len(got) != 3 || got[2] != 0 || lost != 0 {
		t.Fatalf("%v, %d lost", got, lost)
	}
	at, waits := r.deadline(60 * ms)
	if !waits || at != 63*ms {
		t.Fatalf("deadline %v %v", at, waits)
	}
	if got, _ := pull(&r, 62*ms); got != nil {
		t.Fatalf("too early: %v", got)
	}
	if got, lost := pull(&r, 63*ms); len(got) != 1 || lost != 1 {
		t.Fatalf("%v, %d lost", got, lost)
	}
	if v := r.push(held{seq: 1}); v != late {
		t.Fatalf("given up, then it came: %d", v)
	}
	r.push(held{seq: 4})
	if v := r.push(held{seq: 4}); v != late {
		t.Fatalf("twice: %d", v)
	}
	if v := r.push(held{seq: 9000, arrived: time.Second}); v != jumped {
		t.Fatalf("jump: %d", v)
	}
	if got, lost := pull(&r, time.Second); len(got) != 1 || got[0] != 9000 || lost != 0 {
		t.Fatalf("after a jump %v, %d lost", got, lost)
	}
	if _, waits := r.deadline(60 * ms); waits {
		t.Fatal("waits for nothing")
	}
}

// Whatever order packets come in, they come out in sequence, each at most once, and
// none that arrived in time is missing.
func TestReorderAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint16().Draw(t, "first")
		n := rapid.IntRange(2, 60).Draw(t, "n")
		perm := rapid.Permutation(sequence(n)).Draw(t, "order")
		var r reorder
		r.push(held{seq: first})
		var out []uint16
		for _, i := range perm {
			r.push(held{seq: first + 1 + uint16(i), arrived: ms})
			s, lost := pull(&r, ms)
			if lost != 0 {
				t.Fatal("lost")
			}
			out = append(out, s...)
		}
		if len(out) != n+1 {
			t.Fatalf("%d of %d came out", len(out), n+1)
		}
		for i, s := range out {
			if s != first+uint16(i) {
				t.Fatalf("%d at place %d", s, i)
			}
		}
	})
}

func sequence(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
