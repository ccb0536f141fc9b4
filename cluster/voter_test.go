package cluster

import (
	"testing"
	"time"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func TestQuiet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ silent, unheard, want int }{
		{399, 1000, 399},
		{1000, 399, 600}, // heard, but not by Raft
		{700, 0, 300},
		{100, 0, 0},
	} {
		if got := quiet(ms(400), ms(c.silent), ms(c.unheard)); got != ms(c.want) {
			t.Errorf("unheard by Raft for %d ms, at all for %d: quiet for %v, want %d ms", c.silent, c.unheard, got, c.want)
		}
	}
}

// doubtful is a voter's view of a leader that has been quiet for so many milliseconds of a time-out of 400.
func doubtful(quiet int) view {
	return view{timeout: ms(400), leader: "l", term: 7, follows: true, silent: ms(quiet), quiet: ms(quiet), lastTerm: 7, lastIndex: 100}
}

func TestVoterAgrees(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		what string
		view func(*view)
		q    func(*pb.Doubt)
		want bool
	}{
		{what: "it does not hear the leader either", want: true},
		{what: "it hears the leader", view: func(v *view) { v.quiet = ms(266) }},
		{what: "it leads", view: func(v *view) { v.leads = true }},
		{what: "it knows of no leader", view: func(v *view) { v.follows = false }},
		{what: "it has another leader", view: func(v *view) { v.leader = "m" }},
		{what: "it knows of a newer term", view: func(v *view) { v.term = 8 }},
		{what: "it knows of an older term", view: func(v *view) { v.term = 6 }},
		{what: "it has the longer log", view: func(v *view) { v.lastIndex++ }},
		{what: "it has the newer log", view: func(v *view) { v.lastTerm, v.lastIndex = 8, 1 }},
		{what: "it has the shorter log", q: func(q *pb.Doubt) { q.LastIndex++ }, want: true},
		{what: "it has the older log", q: func(q *pb.Doubt) { q.LastTerm, q.LastIndex = 8, 1 }, want: true},
	} {
		v, q := doubtful(267), doubtful(267).doubt()
		if c.view != nil {
			c.view(&v)
		}
		if c.q != nil {
			c.q(q)
		}
		var p voter
		if got := p.answer(now, "b", v, "c", q); got != c.want {
			t.Errorf("%s: agrees: %v", c.what, got)
		}
	}
}

func TestVoterGivesWayToOne(t *testing.T) {
	t.Parallel()
	now, v := time.Now(), doubtful(300)
	var p voter
	if !p.answer(now, "b", v, "c", v.doubt()) || p.answer(now, "b", v, "a", v.doubt()) || !p.answer(now, "b", v, "c", v.doubt()) {
		t.Error("whoever asked first has the vote, and keeps it")
	}
	if p.asks(now.Add(ms(199)), v) || !p.asks(now.Add(ms(200)), v) {
		t.Error("who has given way asks again when the other has had its time")
	}
	if p.asks(now.Add(ms(239)), v) || !p.asks(now.Add(ms(240)), v) {
		t.Error("it asks ten times in a time-out")
	}
}

// TestOneOfTwoWhoAskEachOtherIsElected has two voters doubt in the same moment.
func TestOneOfTwoWhoAskEachOtherIsElected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b uint64 // how long the logs are
		want string
	}{{100, 100, "a"}, {101, 100, "a"}, {100, 101, "b"}} {
		now := time.Now()
		va, vb := doubtful(400), doubtful(400)
		va.lastIndex, vb.lastIndex = c.a, c.b
		var a, b voter
		a.asks(now, va)
		b.asks(now, vb)
		now = now.Add(ms(40)) // each question is under way
		if b.answer(now, "b", vb, "a", va.doubt()) {
			a.agreed(now, va)
		}
		if a.answer(now, "a", va, "b", vb.doubt()) {
			b.agreed(now, vb)
		}
		now = now.Add(ms(40))
		if ea, eb := a.elected(now, va), b.elected(now, vb); ea != (c.want == "a") || eb != (c.want == "b") {
			t.Errorf("logs of %d and %d: a is elected: %v, b: %v", c.a, c.b, ea, eb)
		}
	}
}

func TestVoterStandsWhenTheTimeoutIsOver(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var p voter
	p.agreed(now, doubtful(300))
	if p.elected(now.Add(ms(99)), doubtful(399)) {
		t.Error("it stands before the time-out")
	}
	if !p.elected(now.Add(ms(100)), doubtful(400)) {
		t.Error("it does not stand")
	}
	if p.elected(now.Add(ms(134)), doubtful(434)) {
		t.Error("it stands though the others may have heard the leader since")
	}
	other := doubtful(400)
	other.term = 8
	if p.elected(now.Add(ms(100)), other) {
		t.Error("it stands against a leader of another term")
	}
}
