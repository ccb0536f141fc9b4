package trunk

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/bwe"
	"github.com/amphi-sfu/amphi/media/netem"
)

// TestReportsAreReadAsWritten: whatever came, bwe reads it, to the resolution of reports.
func TestReportsAreReadAsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a arrivals
		came := map[uint16]int64{}
		now, number := int64(time.Hour), rapid.Uint64Range(0, 1<<40).Draw(t, "first")
		got := map[uint16]time.Duration{}
		var r bwe.Report
		for range rapid.IntRange(1, 400).Draw(t, "records") {
			now += rapid.Int64Range(0, 40).Draw(t, "pause") * ms
			number += rapid.SampledFrom([]uint64{1, 1, 1, 1, 2, 5, 40}).Draw(t, "step")
			a.take(number, now, true)
			came[uint16(number)] = now
			if _, twice := came[uint16(number-1)]; !twice && rapid.Bool().Draw(t, "late") {
				a.take(number-1, now, true)
				came[uint16(number-1)] = now
			}
			ready, _ := a.ready(now)
			for ready {
				var b []byte
				b, ready = a.report(nil, now)
				if err := bwe.ParseTWCC(b, &r); err != nil {
					t.Fatalf("%x: %v", b, err)
				}
				if len(b) > 1250 || !r.Statuses[len(r.Statuses)-1].Received {
					t.Fatalf("a report of %d bytes ends in %+v", len(b), r.Statuses[len(r.Statuses)-1])
				}
				for i, s := range r.Statuses {
					if s.Received {
						got[r.Base+uint16(i)] = r.Reference + s.Arrival
					}
				}
			}
		}
		for n, at := range got {
			if d := came[n] - int64(at); d < -ms || d > ms {
				t.Fatalf("record %d came at %v, reported at %v", n, time.Duration(came[n]), at)
			}
		}
	})
}

// TestQueueOrder: classes first, in order within a class.
func TestQueueOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var next, sent [classes]uint64
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "push") {
				c := Class(rapid.IntRange(0, int(classes)-1).Draw(t, "class"))
				next[c]++
				if !q.push(c, queued{label: uint32(c), ext: next[c], typ: record.Media}, make([]byte, c)) {
					t.Fatal("no room")
				}
				continue
			}
			p, c, ok := q.pop()
			if !ok {
				if q.bytes != 0 || q.packets != 0 {
					t.Fatalf("%d bytes, %d packets in an empty queue", q.bytes, q.packets)
				}
				continue
			}
			sent[c]++
			if p.ext != sent[c] || len(p.data) != int(c) {
				t.Fatalf("packet %d of class %d instead of %d", p.ext, c, sent[c])
			}
			for before := range c {
				if next[before] != sent[before] {
					t.Fatalf("class %d before %d", c, before)
				}
			}
			q.giveBack(p)
		}
	})
}

func TestQueueDropsOneLabel(t *testing.T) {
	t.Parallel()
	var q queue
	for ext := range uint64(40) {
		q.push(Base, queued{label: uint32(ext % 2), ext: 100 + ext, typ: record.Media}, make([]byte, 10))
	}
	q.push(Base, queued{label: 1, ext: 50, typ: record.Repair}, make([]byte, 10))
	if n, lowest := q.drop(Base, 1); n != 20 || lowest != 101 || q.packets != 21 {
		t.Errorf("%d dropped from %d on, %d left", n, lowest, q.packets)
	}
	last := uint64(0)
	for range 20 {
		p, _, _ := q.pop()
		if p.label != 0 || p.ext <= last {
			t.Fatalf("then %d of label %d", p.ext, p.label)
		}
		last = p.ext
	}
	q.trim()
}

// TestShedsInOrder: whatever the rates and the budget, no label is sent that counts less than
// one that is shed, audio always is, and what is sent fits.
func TestShedsInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s shedder
		now := int64(time.Hour)
		n := rapid.IntRange(1, 12).Draw(t, "labels")
		class := rapid.SliceOfN(rapid.Uint8Range(0, uint8(classes)-1), n, n).Draw(t, "classes")
		size := rapid.SliceOfN(rapid.IntRange(100, 50_000), n, n).Draw(t, "sizes")
		shed := map[uint32]bool{}
		for range rapid.IntRange(5, 40).Draw(t, "slots") {
			now += rateSlot
			for i := range n {
				s.offer(uint32(i), Class(class[i]), size[i], now)
			}
			s.roll(now)
			budget := rapid.Int64Range(0, 40_000_000).Draw(t, "budget")
			s.decide(budget, now)
			var kept, audio int64
			worst, best := Class(0), classes
			for _, l := range s.labels {
				switch {
				case l.class == Audio:
					audio += l.rate
					if l.shed {
						t.Fatal("audio is shed")
					}
				case l.shed:
					best = min(best, l.class)
				case l.rate > 0:
					worst = max(worst, l.class)
					kept += l.rate
				}
			}
			if worst > best {
				t.Fatalf("class %d is sent, %d shed", worst, best)
			}
			if kept > 0 && kept+audio > budget {
				t.Fatalf("%d and %d of audio for a budget of %d", kept, audio, budget)
			}
			for _, ch := range s.changes {
				if shed[ch.label] == ch.shed {
					t.Fatalf("label %d: told twice", ch.label)
				}
				shed[ch.label] = ch.shed
			}
			s.changes = nil
			for _, l := range s.labels {
				if l.shed != shed[l.label] {
					t.Fatalf("label %d: not told", l.label)
				}
			}
		}
	})
}

func TestRequestsAreParsedAsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Uint64Range(1<<20, 1<<40).Draw(t, "base")
		wanted := rapid.SliceOfNDistinct(rapid.Uint64Range(0, 500), 1, 100, rapid.ID).Draw(t, "wanted")
		slices.Sort(wanted)
		var wire []uint16
		for _, w := range wanted {
			wire = append(wire, uint16(base+w))
		}
		list := appendRequests(nil, 9, base+500, wire)
		var b []byte
		for _, r := range list {
			b = r.append(b)
		}
		var got []uint64
		for len(b) > 0 {
			k := min(len(b), maxEntries*requestSize)
			parsed, ok := parseRequests(b[:k], nil)
			if !ok {
				t.Fatalf("%x is refused", b[:k])
			}
			b = b[k:]
			for _, r := range parsed {
				for i := range uint64(requestSpan) {
					if i == 0 || r.mask&(1<<(i-1)) != 0 {
						got = append(got, r.ext+i-base)
					}
				}
			}
		}
		if !slices.Equal(got, wanted) {
			t.Fatalf("wanted %v, got %v", wanted, got)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, frameHello, hello{1, 2, 3}.append(nil)))
	f.Add(appendFrame(appendFrame(nil, frameMessage, []byte("x")), frameBye, []byte("why")))
	f.Add([]byte{frameMessage, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			at := len(b) - r.Len()
			kind, body, err := readFrame(r, 1<<16)
			if err != nil {
				return
			}
			if again := appendFrame(nil, kind, body); !bytes.Equal(again, b[at:at+len(again)]) {
				t.Fatalf("%x is read as %x", b[at:], again)
			}
			if kind == frameHello {
				if h, err := parseHello(body); err == nil && !bytes.Equal(h.append(nil), body) {
					t.Fatalf("hello %x is read as %+v", body, h)
				}
			}
		}
	})
}

// FuzzRecords gives a line genuine records with any payloads: what they do to it is bounded.
func FuzzRecords(f *testing.F) {
	f.Add(byte(record.Request), request{7, 100, 0xffff}.append(nil))
	f.Add(byte(record.Gone), gone{7, 100, 1 << 40}.append(nil))
	f.Add(byte(record.Probe), make([]byte, probeSize))
	f.Add(byte(record.Echo), bytes.Repeat([]byte{0xff}, probeSize))
	f.Add(byte(record.Report), []byte{0x8f, 205, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x20, 1, 0, 0})
	f.Add(byte(record.Media), []byte{0x80, 96})
	f.Fuzz(func(t *testing.T, typ byte, payload []byte) {
		w := newWorld(t, netem.Params{Delay: time.Millisecond}, netem.Params{Delay: time.Millisecond}, 1, nil)
		s := &source{label: 7, class: Base, size: 500, n: 2, period: 20 * ms}
		w.every = func() { s.send(w.a) }
		w.run(50 * time.Millisecond)
		h := record.Header{Type: record.Type(typ), Number: w.a.opener.Highest() + 1, Label: 9, Ext: 5}
		if h.Type == record.Request {
			_ = w.a.answer(h, payload, w.now, func(label uint32, ext uint64) []byte { return w.a.store[label][ext] })
		} else {
			_, _ = w.a.took(h, payload, w.now)
		}
		if len(w.a.announced) > maxGone || w.a.queue.packets > maxQueued || len(w.a.echoes) > maxEchoes || len(w.a.repairs.labels) > 1 {
			t.Fatalf("%d announced, %d queued, %d echoes, %d labels", len(w.a.announced), w.a.queue.packets, len(w.a.echoes), len(w.a.repairs.labels))
		}
		w.run(50 * time.Millisecond)
		if w.a.live.state == dead {
			t.Fatal("the line is dead of it")
		}
	})
}

// TestScreenThatScrolledComesBack: a label is shed for what it was for a moment, and with it all that
// count less. They are sent again soon after it has become what the budget carries.
func TestScreenThatScrolledComesBack(t *testing.T) {
	t.Parallel()
	var s shedder
	const budget = 5_000_000
	now := int64(time.Hour)
	slot := func(screen int) (shed int) {
		now += rateSlot
		s.offer(1, Screen, screen, now)
		s.offer(2, Base, 12_500, now) // 1 Mbit/s
		s.roll(now)
		s.decide(budget, now)
		return s.count
	}
	for range 20 {
		if slot(2500) != 0 {
			t.Fatal("shed although it fits")
		}
	}
	for range 10 {
		slot(100_000) // 8 Mbit/s
	}
	if s.count != 2 {
		t.Fatalf("%d shed of 8 Mbit/s, with less important ones, for 5", s.count)
	}
	back := 0
	for back = range 300 {
		if slot(2500) == 0 {
			break
		}
	}
	if took := time.Duration(back) * time.Duration(rateSlot); took > 10*time.Second {
		t.Errorf("nothing but audio for %v with 1.2 Mbit/s to send on a path of 5", took)
	}
}
