package media

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/seq"
)

func TestPacerSpreadsABurst(t *testing.T) {
	t.Parallel()
	var pool packet.Pool
	var p pacer
	p.setRate(400_000) // 1 Mbit/s: 125 bytes per millisecond
	now := int64(time.Second)
	var sent []uint64
	var lastAt int64
	const packets, size = 30, 1000
	send := func(q paced) {
		sent = append(sent, q.index)
		lastAt = now
	}
	for i := range uint64(packets) {
		pkt := pool.Get()
		pkt.Payload = make([]byte, size)
		if p.take(size, now) {
			send(paced{index: i})
		} else {
			p.hold(nil, pkt, i, seq.Meta{}, now)
		}
		pkt.Release()
	}
	if n := len(sent); n < 6 || n > 7 {
		t.Fatalf("%d packets of %d bytes left at once, want the burst of %d bytes", n, size, paceBurstMin)
	}
	start := now
	for now += int64(5 * time.Millisecond); p.release(now, send); now += int64(5 * time.Millisecond) {
	}
	if took := time.Duration(lastAt - start); took < 180*time.Millisecond || took > 200*time.Millisecond {
		t.Errorf("23 kB more took %v at 1 Mbit/s, want about 188 ms", took)
	}
	for i, index := range sent {
		if index != uint64(i) {
			t.Fatalf("packet %d left in place %d", index, i)
		}
	}
	if len(sent) != packets || pool.Live() != 0 {
		t.Errorf("%d of %d packets left, %d buffers in use", len(sent), packets, pool.Live())
	}
}

func TestPacerHoldsNothingForLong(t *testing.T) {
	t.Parallel()
	var pool packet.Pool
	var p pacer
	p.setRate(100_000)
	now := int64(time.Second)
	for i := range uint64(500) {
		pkt := pool.Get()
		pkt.Payload = make([]byte, 1000)
		if !p.take(1000, now) {
			p.hold(nil, pkt, i, seq.Meta{}, now)
		}
		pkt.Release()
	}
	if !p.release(now+int64(paceDelay)-1, func(paced) {}) {
		t.Error("500 kB left within 250 ms at 400 kbit/s")
	}
	if p.release(now+int64(paceDelay), func(paced) {}) {
		t.Errorf("%d packets wait longer than %v", p.waiting(), paceDelay)
	}
	if pool.Live() != 0 {
		t.Errorf("%d buffers in use", pool.Live())
	}
	pkt := pool.Get()
	if p.take(1000, now+int64(paceDelay)) {
		t.Error("a debt is forgotten at once")
	}
	p.hold(nil, pkt, 1, seq.Meta{}, now)
	p.clear()
	pkt.Release()
	if pool.Live() != 0 || p.waiting() != 0 {
		t.Errorf("%d buffers in use, %d waiting after clear", pool.Live(), p.waiting())
	}
	p.setRate(0)
	if !p.take(1<<20, now) {
		t.Error("held back without a limit")
	}
}
