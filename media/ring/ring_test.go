package ring

import (
	"testing"

	"github.com/amphi-sfu/amphi/media/packet"
)

func put(t *testing.T, r *Ring, pool *packet.Pool, ext uint64, key bool) Verdict {
	t.Helper()
	p := pool.Get()
	defer p.Release()
	p.ExtSeq, p.Keyframe = ext, key
	return r.Put(p)
}

func TestPutRefusesDuplicatesAndTheTooOld(t *testing.T) {
	t.Parallel()
	var pool packet.Pool
	r := New(16)
	for ext := uint64(100); ext < 120; ext++ {
		if v := put(t, r, &pool, ext, false); v != Stored {
			t.Fatalf("packet %d: %v", ext, v)
		}
	}
	if v := put(t, r, &pool, 119, false); v != Duplicate {
		t.Fatalf("duplicate: %v", v)
	}
	if v := put(t, r, &pool, 103, false); v != TooOld {
		t.Fatalf("too old: %v", v)
	}
	if r.Packet(103) != nil {
		t.Fatal("packet 103 is still there")
	}
	p := r.Packet(104)
	if p == nil || p.ExtSeq != 104 {
		t.Fatal("packet 104 is not there")
	}
	p.Release()
	if pool.Live() != 16 {
		t.Fatalf("%d packets held, want 16", pool.Live())
	}
	r.Clear()
	if pool.Live() != 0 {
		t.Fatalf("%d packets held after Clear", pool.Live())
	}
}

func TestSinceKeyframe(t *testing.T) {
	t.Parallel()
	var pool packet.Pool
	r := New(32)
	if got := r.SinceKeyframe(nil, 10); len(got) != 0 {
		t.Fatal("keyframe in an empty ring")
	}
	for ext := uint64(1); ext <= 9; ext++ {
		put(t, r, &pool, ext, ext == 5)
	}
	if ext, ok := r.Keyframe(10); !ok || ext != 5 {
		t.Fatalf("the newest keyframe is %d, %v", ext, ok)
	}
	if _, ok := r.Keyframe(4); ok {
		t.Fatal("a keyframe that is too long ago")
	}
	got := r.SinceKeyframe(nil, 10)
	if len(got) != 5 || got[0].ExtSeq != 5 || got[4].ExtSeq != 9 {
		t.Fatalf("%d packets", len(got))
	}
	for _, p := range got {
		p.Release()
	}
	if got := r.SinceKeyframe(nil, 4); len(got) != 0 {
		t.Fatal("limit not kept")
	}
	put(t, r, &pool, 11, false) // 10 is missing
	if got := r.SinceKeyframe(nil, 10); len(got) != 0 {
		t.Fatal("replay with a hole")
	}
	for ext := uint64(12); ext <= 40; ext++ {
		put(t, r, &pool, ext, false)
	}
	if got := r.SinceKeyframe(nil, 100); len(got) != 0 {
		t.Fatal("keyframe has left the ring")
	}
	r.Clear()
	if pool.Live() != 0 {
		t.Fatalf("%d packets leaked", pool.Live())
	}
}

func TestPutAllocatesNothing(t *testing.T) {
	var pool packet.Pool
	r := New(64)
	ext := uint64(1)
	if n := testing.AllocsPerRun(1000, func() {
		p := pool.Get()
		p.ExtSeq = ext
		r.Put(p)
		p.Release()
		ext++
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestHasTimestamp(t *testing.T) {
	t.Parallel()
	var pool packet.Pool
	r := New(16)
	if r.HasTimestamp(0, 8) {
		t.Fatal("an empty ring has one")
	}
	for ext := uint64(1000); ext < 1020; ext++ {
		if ext == 1015 {
			continue
		}
		p := pool.Get()
		p.ExtSeq, p.Timestamp = ext, uint32(ext)*960
		r.Put(p)
		p.Release()
	}
	for ext, want := range map[uint32]bool{1019: true, 1012: true, 1011: false, 1015: false, 1020: false, 1003: false} {
		if got := r.HasTimestamp(ext*960, 8); got != want {
			t.Errorf("packet %d: %v", ext, got)
		}
	}
	r.Clear()
}
