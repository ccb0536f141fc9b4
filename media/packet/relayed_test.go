package packet

import (
	"bytes"
	"errors"
	"testing"
)

// relayed are packets of all forms.
func relayed() []*Packet {
	long := bytes.Repeat([]byte{7}, 200)
	return []*Packet{
		{ExtSeq: 1<<40 | 65535, Timestamp: 1 << 31, SSRC: 9, PayloadType: 96, Marker: true, AudioLevel: NoAudioLevel, Payload: []byte{1, 2, 3}},
		{ExtSeq: 70000, PayloadType: 111, AudioLevel: 0, Payload: []byte{4}},
		{ExtSeq: 70001, PayloadType: 111, AudioLevel: 127},
		{ExtSeq: 3, PayloadType: 45, AudioLevel: NoAudioLevel, Descriptor: []byte{1, 2, 3}, Payload: []byte{5}},
		{ExtSeq: 4, PayloadType: 45, AudioLevel: NoAudioLevel, Descriptor: long[:16], Payload: []byte{5}},
		{ExtSeq: 5, PayloadType: 45, AudioLevel: NoAudioLevel, Descriptor: long[:17], Payload: []byte{5}},
		{ExtSeq: 6, PayloadType: 45, AudioLevel: 30, Descriptor: long, Payload: long},
		{ExtSeq: 7, PayloadType: 45, AudioLevel: 30, Descriptor: long[:2], Payload: nil},
	}
}

func TestRelayedComesBackAsItWas(t *testing.T) {
	t.Parallel()
	var pool Pool
	for i, p := range relayed() {
		b := p.AppendRelayed(nil)
		q := pool.Get()
		if err := q.ParseRelayed(b, p.ExtSeq); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if q.ExtSeq != p.ExtSeq || q.Timestamp != p.Timestamp || q.SSRC != p.SSRC || q.PayloadType != p.PayloadType ||
			q.Marker != p.Marker || q.AudioLevel != p.AudioLevel || !bytes.Equal(q.Payload, p.Payload) || !bytes.Equal(q.Descriptor, p.Descriptor) {
			t.Errorf("packet %d came back as %+v", i, q)
		}
		if again := q.AppendRelayed(nil); !bytes.Equal(again, b) {
			t.Errorf("packet %d: % x written again is % x", i, b, again)
		}
		q.Release()
	}
}

func TestRelayedRefusesWhatNoNodeWrites(t *testing.T) {
	t.Parallel()
	good := relayed()[6].AppendRelayed(nil)
	with := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		b   []byte
		ext uint64
		err error
	}{
		"short":           {good[:11], 6, ErrShort},
		"long":            {make([]byte, MaxSize+1), 6, ErrLong},
		"another number":  {good, 7, ErrRelayed},
		"padding":         {with(0, 0xb0), 6, ErrRelayed},
		"sources":         {append([]byte{0x81}, append(make([]byte, 15), 1)...), 0, ErrRelayed},
		"another id":      {with(16, 3), 6, ErrRelayed},
		"a voice bit":     {with(18, 0x80|30), 6, ErrRelayed},
		"empty extension": {[]byte{0x90, 96, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xde, 0, 0}, 6, ErrRelayed},
	} {
		var pool Pool
		p := pool.Get()
		if err := p.ParseRelayed(c.b, c.ext); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		p.Release()
	}
}

func TestRelayedAllocatesNothing(t *testing.T) {
	var pool Pool
	in, out := relayed()[6].AppendRelayed(nil), make([]byte, 0, MaxSize)
	p := pool.Get()
	defer p.Release()
	if n := testing.AllocsPerRun(100, func() {
		if err := p.ParseRelayed(in, 6); err != nil {
			t.Fatal(err)
		}
		out = p.AppendRelayed(out[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzRelayed(f *testing.F) {
	for _, p := range relayed() {
		f.Add(p.AppendRelayed(nil), p.ExtSeq)
	}
	f.Fuzz(func(t *testing.T, b []byte, ext uint64) {
		var pool Pool
		p := pool.Get()
		if p.ParseRelayed(b, ext) == nil {
			if again := p.AppendRelayed(nil); !bytes.Equal(again, b) {
				t.Errorf("% x written again is % x", b, again)
			}
		}
		p.Release()
		if pool.Live() != 0 {
			t.Error("a packet is kept")
		}
	})
}

func BenchmarkRelayed(b *testing.B) {
	b.ReportAllocs()
	var pool Pool
	in, out := relayed()[0].AppendRelayed(nil), make([]byte, 0, MaxSize)
	in = append(in, make([]byte, 1100)...)
	p := pool.Get()
	defer p.Release()
	for b.Loop() {
		if err := p.ParseRelayed(in, 1<<40|65535); err != nil {
			b.Fatal(err)
		}
		out = p.AppendRelayed(out[:0])
	}
}
