package bwe

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"pgregory.net/rapid"
)

func TestParseTWCCAgainstItsEncoder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 400).Draw(t, "n")
		at := time.Duration(rapid.IntRange(0, 1<<20).Draw(t, "start")) * refUnit
		want := make([]time.Duration, n)
		received := 0
		for i := range want {
			if rapid.IntRange(0, 4).Draw(t, "lost") == 0 {
				want[i] = -1
				continue
			}
			at = max(at+time.Duration(rapid.IntRange(-100, 2000).Draw(t, "delta"))*deltaUnit, 0)
			want[i] = at
			received++
		}
		base := rapid.Uint16().Draw(t, "base")
		b := encodeTWCC(base, 7, want)
		var r Report
		if err := ParseTWCC(b, &r); err != nil {
			t.Fatal(err)
		}
		if r.Base != base || r.Count != 7 || len(r.Statuses) != n {
			t.Fatalf("got base %d count %d of %d", r.Base, r.Count, len(r.Statuses))
		}
		for i, s := range r.Statuses {
			if s.Received != (want[i] >= 0) || (s.Received && r.Reference+s.Arrival != want[i]) {
				t.Fatalf("packet %d: got %v at %v, want %v", i, s.Received, r.Reference+s.Arrival, want[i])
			}
		}
		// The encoder itself is checked against another implementation.
		var other rtcp.TransportLayerCC
		if err := other.Unmarshal(b); err != nil {
			t.Fatalf("pion refuses it: %v", err)
		}
		if int(other.PacketStatusCount) != n || len(other.RecvDeltas) < received {
			t.Fatalf("pion reads %d statuses and %d deltas", other.PacketStatusCount, len(other.RecvDeltas))
		}
	})
}

// TestParseTWCCByHand reads a report written by hand from the draft's figures: a
// one-bit vector, sequences that wrap, and RTCP padding.
func TestParseTWCCByHand(t *testing.T) {
	t.Parallel()
	b, err := hex.DecodeString("afcd0006" + "00000001" + "0000abcd" + "ffff0005" + "00000102" + "b000100c" + "00000004")
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := ParseTWCC(b, &r); err != nil {
		t.Fatal(err)
	}
	want := []Status{{true, 4 * ms}, {true, 7 * ms}, {}, {}, {}}
	if r.Base != 0xffff || r.Reference != 64*ms || r.Count != 2 || len(r.Statuses) != len(want) {
		t.Fatalf("got %+v", r)
	}
	for i, s := range r.Statuses {
		if s.Received != want[i].Received || (s.Received && s.Arrival != want[i].Arrival) {
			t.Errorf("packet %d: %+v, want %+v", i, s, want[i])
		}
	}
}

func TestParseTWCCRefuses(t *testing.T) {
	t.Parallel()
	good := encodeTWCC(1, 1, []time.Duration{64 * ms, 65 * ms, -1, 66 * ms})
	change := func(f func([]byte) []byte) []byte { return f(append([]byte(nil), good...)) }
	for _, tc := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, ErrTruncated},
		{"header only", good[:twccHeader-1], ErrTruncated},
		{"cut", good[:len(good)-1], ErrTruncated},
		{"other type", change(func(b []byte) []byte { b[1] = 206; return b }), ErrNotTWCC},
		{"other format", change(func(b []byte) []byte { b[0] = 0x81; return b }), ErrNotTWCC},
		{"version", change(func(b []byte) []byte { b[0] &= 0x3f; return b }), ErrNotTWCC},
		{"length beyond", change(func(b []byte) []byte { b[3] = 200; return b }), ErrTruncated},
		{"length below", change(func(b []byte) []byte { b[3] = 2; return b }), ErrTruncated},
		{"count too high", change(func(b []byte) []byte { b[14], b[15] = 0xff, 0xff; return b }), ErrTooMany},
		{"count beyond chunks", change(func(b []byte) []byte { b[14], b[15] = 0, 100; return b }), ErrTruncated},
		{"padding too long", change(func(b []byte) []byte { b[0] |= 0x20; b[len(b)-1] = 200; return b }), ErrTruncated},
		{"padding of nothing", change(func(b []byte) []byte { b[0] |= 0x20; b[len(b)-1] = 0; return b }), ErrTruncated},
		{"run of nothing", change(func(b []byte) []byte { b[20], b[21] = 0, 0; return b }), ErrTruncated},
		{"reserved symbol", change(func(b []byte) []byte { b[20], b[21] = 0x60, 4; return b }), ErrReserved},
	} {
		r := Report{Statuses: make([]Status, 3)}
		if err := ParseTWCC(tc.b, &r); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", tc.name, err, tc.want)
		}
		if len(r.Statuses) != 0 {
			t.Errorf("%s: statuses left behind", tc.name)
		}
	}
}

func FuzzParseTWCC(f *testing.F) {
	f.Add(encodeTWCC(65530, 1, []time.Duration{64 * ms, -1, 65 * ms, 900 * ms, 66 * ms}))
	f.Add(encodeTWCC(0, 255, make([]time.Duration, 300)))
	f.Add([]byte{0x8f, 205, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Report
		err := ParseTWCC(b, &r)
		if err == nil && len(r.Statuses) > MaxStatuses {
			t.Fatalf("%d statuses", len(r.Statuses))
		}
	})
}

// FuzzFeedback lets a hostile receiver report anything: the estimate must stay
// within its bounds and no more memory be used.
func FuzzFeedback(f *testing.F) {
	f.Add(encodeTWCC(10, 1, []time.Duration{64 * ms, -1, 65 * ms, 900 * ms, 66 * ms}), uint16(20))
	f.Add(encodeTWCC(65000, 1, make([]time.Duration, 5000)), uint16(4))
	f.Fuzz(func(t *testing.T, b []byte, sent uint16) {
		e, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		e.SetDemand(Demand{Next: 1e6, Top: 2e6})
		now := time.Second
		for range sent % 600 {
			e.Sent(1000, now)
			now += 3 * ms
		}
		for range 3 {
			_, _ = e.Feedback(b, now)
			now += 100 * ms
			e.Poll(now)
			e.Sent(1000, now)
			if n := e.Padding(now); n < 0 || n > 1<<20 {
				t.Fatalf("padding of %d bytes", n)
			}
		}
		if est := e.Estimate(); est < DefaultMin || est > DefaultMax {
			t.Fatalf("estimate %d", est)
		}
	})
}

func TestHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h history
		h.next = uint64(rapid.IntRange(0, 70000).Draw(t, "start"))
		h.first = h.next
		now := time.Duration(0)
		sent := map[uint64]time.Duration{}
		for range rapid.IntRange(1, 3000).Draw(t, "n") {
			now += time.Duration(rapid.IntRange(0, 40).Draw(t, "gap")) * ms
			sent[h.add(sentPacket{sent: now})] = now
		}
		if len(h.ring) > maxHistory {
			t.Fatalf("ring of %d", len(h.ring))
		}
		for seq, at := range sent {
			if seq < h.first {
				if now-at < historyAge && len(h.ring) < maxHistory {
					t.Fatalf("packet %d of %v ago was forgotten", seq, now-at)
				}
				continue
			}
			if h.next-seq < 32768 {
				if got, ok := h.lookup(uint16(seq)); !ok || got != seq || h.at(seq).sent != at {
					t.Fatalf("packet %d is found as %d, %v", seq, got, ok)
				}
			}
		}
		if _, ok := h.lookup(uint16(h.next)); ok && h.next-h.first < 65536 {
			t.Fatal("a packet not sent yet is found")
		}
	})
}

func TestNoAllocationInSteadyState(t *testing.T) {
	e, sink, now := steady(t)
	round := func() {
		for range 15 {
			sink.receive(e.Sent(1100, *now), *now+20*ms)
			*now += 4 * ms
		}
	}
	for range 200 {
		round()
		if _, err := e.Feedback(sink.report(), *now); err != nil {
			t.Fatal(err)
		}
	}
	round()
	b := sink.report()
	if n := testing.AllocsPerRun(100, func() {
		e.Sent(1100, *now)
		if _, err := e.Feedback(b, *now); err != nil {
			t.Fatal(err)
		}
		e.Poll(*now)
		e.Padding(*now)
		*now += 4 * ms
	}); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}

func steady(tb testing.TB) (*Estimator, *receiver, *time.Duration) {
	e, err := New(Config{})
	if err != nil {
		tb.Fatal(err)
	}
	now := time.Second
	return e, &receiver{}, &now
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{Initial: -1}, {Min: 500_000, Initial: 100_000}, {Max: 100, Min: 10, Initial: 200}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// BenchmarkPerPacket is a stream of 260 packets per second with a report every
// 60 ms; one operation is one packet and its share of the feedback.
func BenchmarkPerPacket(b *testing.B) {
	e, sink, now := steady(b)
	var reports [][]byte
	for range 4096 {
		for range 16 {
			sink.receive(uint16(len(sink.at))+sink.next, *now+20*ms)
			*now += 4 * ms
		}
		reports = append(reports, sink.report())
	}
	*now = time.Second
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		e.Sent(1100, *now)
		*now += 4 * ms
		if n++; n%16 == 0 {
			if _, err := e.Feedback(reports[(n/16-1)%4096], *now); err != nil {
				b.Fatal(err)
			}
			e.Poll(*now)
		}
	}
}
