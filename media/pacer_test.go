package media

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/bwe"
	"github.com/amphi-sfu/amphi/media/negotiate"
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

// TestOfferWhilePacketsWait: what the pacer holds back when the client negotiates anew leaves with
// the payload type that it had.
func TestOfferWhilePacketsWait(t *testing.T) {
	t.Parallel()
	f := newPath(t, 1)
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	w := f.e.workers[0]
	for o := range w.endpoints {
		o.setPath(&path{addr: netip.MustParseAddrPort(sink.LocalAddr().String())})
		o.pacer.setRate(1)
		before := o.sent.packets
		for range 10 {
			f.frame(t)
		}
		if o.pacer.waiting() == 0 {
			t.Fatal("nothing waits")
		}
		dt := o.tracks[0]
		w.post(func() { dt.configure(dt.formats, negotiate.Extensions{TransportCC: 3}) })
		f.frame(t)
		o.pace(w.now + int64(paceDelay))
		w.sender.Flush()
		if err := sink.SetReadDeadline(time.Now().Add(deadline)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, packet.MaxSize)
		for range o.sent.packets - before {
			n, err := sink.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if pt := b[1] & 0x7f; n < 12 || pt != 96 {
				t.Fatalf("a packet of payload type %d leaves, 96 was negotiated", pt)
			}
		}
	}
}

// TestNobodyIsWokenForProbesWithoutCarrier: where no slot has retransmissions, on which padding is
// sent, a probe is left to what is sent anyway.
func TestNobodyIsWokenForProbesWithoutCarrier(t *testing.T) {
	t.Parallel()
	f := newPath(t, 1)
	w := f.e.workers[0]
	for o := range w.endpoints {
		o.bw.enable()
		est := o.bw.estimator
		reportAll(t, est, time.Duration(f.e.now()))
		f.e.start = f.e.start.Add(-3 * time.Second)
		est.SetDemand(bwe.Demand{Next: 1_000_000, Top: 2_000_000})
		est.Poll(time.Duration(f.e.now()))
		if !o.bw.probing() {
			t.Fatal("nothing is probed for")
		}
		o.tracks[0].wire.rtxPT = 0
		o.poll(f.e.now())
		o.awake = 0 // its last track has gone
		f.e.start = f.e.start.Add(-10 * time.Second)
		w.tick()
		w.probe()
		if len(w.probing) > 0 {
			t.Fatal("it is looked at every few milliseconds for ever")
		}
	}
}

// reportAll lets a few packets be sent and reported, one by one.
func reportAll(t *testing.T, est *bwe.Estimator, now time.Duration) {
	t.Helper()
	for i := range byte(30) {
		n := est.Sent(1000, now)
		report := []byte{0x8f, 205, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n), 0, 1, 0, 0, i, i, 0x20, 1, 0, 0}
		if _, err := est.Feedback(report, now+30*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		now += 64 * time.Millisecond
	}
}

// TestAnotherAddressIsAnotherWay: what is known of the way to the client is forgotten when its address
// changes, but not with another port, which a NAT may have chosen.
func TestAnotherAddressIsAnotherWay(t *testing.T) {
	t.Parallel()
	f := newPath(t, 1)
	for o := range f.e.workers[0].endpoints {
		o.bw.enable()
		o.setPath(&path{addr: netip.MustParseAddrPort("127.0.0.1:9")})
		reportAll(t, o.bw.estimator, time.Duration(f.e.now()))
		known := o.bw.estimator.Stats().RTT
		if known != 30*time.Millisecond {
			t.Fatalf("round trip of %v", known)
		}
		o.setPath(&path{addr: netip.MustParseAddrPort("127.0.0.1:10")})
		if rtt := o.bw.estimator.Stats().RTT; rtt != known {
			t.Errorf("round trip of %v instead of %v by another port", rtt, known)
		}
		o.setPath(&path{addr: netip.MustParseAddrPort("127.0.0.2:9")})
		if rtt := o.bw.estimator.Stats().RTT; rtt == known {
			t.Error("the round trip to another address is that to the one before")
		}
	}
}
