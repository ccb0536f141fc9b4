package record

import (
	"testing"
	"time"
)

func TestStampsAreFoundAgain(t *testing.T) {
	t.Parallel()
	want := Stamp{Publisher: 3, Layer: 2, Count: 1 << 40, Sent: 123456789}
	payload := make([]byte, 100)
	want.Put(payload)
	if got, ok := ReadStamp(payload); !ok || got != want {
		t.Errorf("read %+v, %v; want %+v", got, ok, want)
	}
	for _, bad := range [][]byte{nil, payload[:23], payload[:99], make([]byte, 40)} {
		if _, ok := ReadStamp(bad); ok {
			t.Errorf("%d bytes without a stamp have one", len(bad))
		}
	}
}

func FuzzReadStamp(f *testing.F) {
	payload := make([]byte, StampSize)
	Stamp{Publisher: 1, Count: 2}.Put(payload)
	f.Add(payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := ReadStamp(b)
		if !ok {
			return
		}
		again := append([]byte(nil), b...)
		s.Put(again)
		if string(again) != string(b) {
			t.Error("a stamp that was read is written otherwise")
		}
	})
}

func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

// play notes audio every 20 ms but for what skip leaves out.
func play(m *Media, from, to int, skip func(ms int) bool) {
	for ms := from; ms < to; ms += 20 {
		if !skip(ms) {
			m.Add(Stamp{Publisher: 1, Layer: AudioLayer, Count: uint64(ms / 20), Sent: at(ms).UnixNano()}, at(ms+30).UnixNano())
		}
	}
}

func TestGapAndHolesAreFound(t *testing.T) {
	t.Parallel()
	var m Media
	play(&m, 0, 3000, func(ms int) bool { return ms >= 1000 && ms < 1500 || ms == 2000 })
	track := Track{Publisher: 1, Audio: true}
	w := m.Window(track, at(500), at(2800))
	if w.Gap != 520*time.Millisecond || w.GapAt != 510*time.Millisecond || w.Missing != 26 || w.Repeated != 0 || w.DelayP50 != 30*time.Millisecond {
		t.Errorf("%+v, want a gap of 520 ms and 26 missing", w)
	}
	// Repaired late: no hole, and the gap stays.
	for ms := 1000; ms < 1500; ms += 20 {
		m.Add(Stamp{Publisher: 1, Layer: AudioLayer, Count: uint64(ms / 20), Sent: at(ms).UnixNano()}, at(3100).UnixNano())
	}
	if w := m.Window(track, at(500), at(2800)); w.Gap != 520*time.Millisecond || w.Missing != 1 {
		t.Errorf("%+v, want the same gap and 1 missing", w)
	}
	if w := m.Window(track, at(2900), at(4500)); w.Gap < 1300*time.Millisecond {
		t.Errorf("the silence at the end is a gap too: %+v", w)
	}
	if m.Flows(track, at(900), at(1600), 100*time.Millisecond) || !m.Flows(track, at(1600), at(2900), 100*time.Millisecond) {
		t.Error("Flows does not see the gap, or sees one that is not there")
	}
	if w := m.Window(Track{Publisher: 9}, at(0), at(1000)); w.Gap != time.Second || w.Packets != 0 {
		t.Errorf("of a track that never came: %+v", w)
	}
}

func TestMessagesAreJudged(t *testing.T) {
	t.Parallel()
	m := NewMessages()
	m.Joined("a", at(0))
	m.Joined("b", at(0))
	m.Joined("late", at(500))
	for i, text := range []string{"one", "two", "three"} {
		m.Sent(text, at(100*i))
		m.Acked(text, uint64(i+1), at(100*i+50))
	}
	m.Sent("unknown", at(400)) // nobody was told anything
	for i, text := range []string{"one", "two", "three"} {
		m.Got("a", text, uint64(i+1), true)
	}
	m.Got("b", "one", 1, true)
	m.Got("b", "three", 3, true)
	if v := m.Verdict([]string{"a", "late"}, at(1000)); v.Lost+v.Reordered+v.Repeated != 0 || v.Acked != 3 || v.Sent != 4 {
		t.Errorf("nothing is wrong with a: %+v", v)
	}
	if v := m.Verdict([]string{"a", "b"}, at(1000)); v.Lost != 1 {
		t.Errorf("b lost one: %+v", v)
	}
	if v := m.Verdict([]string{"a", "b"}, at(140)); v.Lost != 0 {
		t.Errorf("what was acknowledged just now may still come: %+v", v)
	}
	m.Got("b", "two", 2, false) // in a snapshot after a resume
	if v := m.Verdict([]string{"a", "b"}, at(1000)); v.Lost+v.Reordered+v.Repeated != 0 {
		t.Errorf("b has everything now: %+v", v)
	}
	m.Got("a", "one", 1, true)
	m.Got("b", "unknown", 2, true)
	m.Got("a", "unknown", 7, true)
	if v := m.Verdict([]string{"a", "b"}, at(1000)); v.Repeated != 1 || v.Reordered < 2 || len(v.Examples) == 0 {
		t.Errorf("one came twice and one out of order: %+v", v)
	}
	m.Joined("a", at(600)) // as a new peer, of a new session whose numbers begin anew
	m.Sent("four", at(700))
	m.Acked("four", 1, at(750))
	m.Got("a", "four", 1, true)
	if again := m.Verdict([]string{"a"}, at(1000)); again.Reordered != 0 || again.Lost != 0 {
		t.Errorf("a new life has an order of its own: %+v", again)
	}
	if !m.AckedSince(at(150)) || m.AckedSince(at(800)) {
		t.Error("AckedSince is wrong")
	}
}
