package media

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/ice"
	"github.com/amphi-sfu/amphi/media/limit"
	"github.com/amphi-sfu/amphi/media/negotiate"
)

// viewer makes a client that receives one track, and waits until it does.
func viewer(t testing.TB, r *Router, id, track string) (*client, *received) {
	t.Helper()
	c := newClient(t, r, id, clientOptions{})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, track)
	rec := c.section("0")
	eventually(t, id+" receives", func() bool { return rec.count() > 50 })
	return c, rec
}

// source makes VP8 of the attacker's first track, which is sent as ssrc.
func (a *attacker) source(ssrc uint32) *vp8Source {
	src := newVP8Source(func(p *rtp.Packet) error {
		if p.SSRC != a.ssrc[0] {
			a.extension(p, a.mids[0])
		}
		raw, err := p.Marshal()
		if err != nil {
			return err
		}
		_, err = a.conn.Write(a.seal(raw))
		return err
	})
	src.ssrc = ssrc
	return src
}

// TestJumpsCloseUp lets a publisher's sequence numbers and timestamps jump: what its
// subscribers get goes on without a gap.
func TestJumpsCloseUp(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	pub, src := publishVP8(t, r, "cam", 60000)
	pub.source.Store(src)
	jump := make(chan func())
	every(t, 20*time.Millisecond, func() {
		select {
		case f := <-jump:
			f()
		default:
		}
		src.frame(t)
	})
	_, rec := viewer(t, r, "subscriber", "cam")
	jumps := []func(){
		func() { src.seq += 30000 },
		func() { src.ts += 1<<31 - 1 },
		func() { src.ts -= 600 * 90000 },
		func() { src.seq, src.ts = src.seq+20000, src.ts+1<<30 },
		func() { src.picture += 5000; src.seq += 5000 },
	}
	for i, f := range jumps {
		jump <- f
		eventually(t, "the encoding begins anew", func() bool { return r.UpTrack("cam").Stats().Encodings[0].Restarts == uint64(i+1) })
		before := rec.count()
		eventually(t, "video goes on", func() bool { return rec.count() > before+60 })
	}
	packets := rec.all()
	continuous(t, packets)
	checkVP8(t, packets)
	for i := 1; i < len(packets); i++ {
		if d := packets[i].Timestamp - packets[i-1].Timestamp; d > 30*90000 {
			t.Fatalf("timestamps jump by %d", d)
		}
	}
	if n := e.Stats().Drops["sequence_jump"]; n < uint64(len(jumps)) || n > 20 {
		t.Fatalf("%d packets dropped for %d jumps", n, len(jumps))
	}
}

// TestSSRCCollisions lets several SSRCs claim one encoding, and two clients use one SSRC.
func TestSSRCCollisions(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, cam := publishVP8(t, r, "cam", 5)
	every(t, 20*time.Millisecond, func() { cam.frame(t) })
	a, twin := newAttacker(t, r, "first", "cam"), newAttacker(t, r, "second", "cam")

	var sources [3]*vp8Source
	for i, ssrc := range []uint32{a.ssrc[0], 0x5555, 0x6666} {
		sources[i] = a.source(ssrc)
		sources[i].seq, sources[i].ts = uint16(20000*i), uint32(i)<<30
	}
	same := twin.source(a.ssrc[0]) // announced by the other client, not by this one
	var from atomic.Int32
	claim := a.source(0x7777) // while the owner is alive
	claims := make(chan struct{})
	wanted := func() bool { return r.UpTrack("firsta").Encodings()[0].gate.Count() > 0 }
	every(t, 20*time.Millisecond, func() {
		select {
		case <-claims:
			claim.frame(t)
		default:
		}
		src := sources[from.Load()]
		src.keyframe.Store(src.frames%25 == 0)
		src.frame(t)
		same.keyframe.Store(same.frames%25 == 0)
		same.frame(t)
	})
	_, rec := viewer(t, r, "subscriber", "firsta")
	_, other := viewer(t, r, "neighbour", "seconda")

	collisions := func() uint64 { return a.c.ep.Stats().Drops["ssrc_collision"] }
	for range 20 {
		claims <- struct{}{}
	}
	eventually(t, "the later claim is refused", func() bool { return collisions() == 60 })
	goesOn := func(what string) {
		t.Helper()
		before := rec.count()
		eventually(t, what, func() bool { return rec.count() > before+60 })
	}
	goesOn("the owner goes on")
	from.Store(1) // and the owner falls silent
	goesOn("another SSRC takes over")
	if _, err := a.conn.Write(a.compound(nil, &rtcp.Goodbye{Sources: []uint32{0x5555}})); err != nil {
		t.Fatal(err)
	}
	from.Store(2)
	goesOn("the SSRC after a goodbye takes over")
	if len(r.UpTrack("firsta").Encodings()) != 1 || !wanted() {
		t.Fatal("an SSRC made an encoding of its own, or no keyframe was asked for")
	}
	for _, packets := range [][]*rtp.Packet{rec.all(), other.all()} {
		continuous(t, packets)
		checkVP8(t, packets)
	}
	if n := twin.c.ep.Stats().Drops["ssrc_collision"]; n != 0 {
		t.Fatalf("%d packets of a client were refused as another has the SSRC", n)
	}
}

// TestGoodbyeEndsAnEncoding lets a publisher say goodbye: it is not live from then on, and so is
// again with the next packet.
func TestGoodbyeEndsAnEncoding(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, cam := publishVP8(t, r, "cam", 5)
	every(t, 20*time.Millisecond, func() { cam.frame(t) })
	a := newAttacker(t, r, "leaver", "cam")
	src := a.source(a.ssrc[0])
	src.frame(t)
	live := func() bool {
		u := r.UpTrack("leavera").Stats()
		return len(u.Encodings) == 1 && u.Encodings[0].Live
	}
	eventually(t, "it is live", live)
	if _, err := a.conn.Write(a.compound(nil, &rtcp.Goodbye{Sources: []uint32{1, a.ssrc[0]}})); err != nil {
		t.Fatal(err)
	}
	said := time.Now()
	eventually(t, "it is not live after its goodbye", func() bool { return !live() })
	if d := time.Since(said); d > time.Duration(liveFor)*9/10 && !raceDetector() {
		t.Fatalf("it took %v", d)
	}
	src.frame(t)
	eventually(t, "it is live again", live)
}

// TestFloodingPublisher lets two publishers send 100 times what they may, one in the room and
// one elsewhere: a subscriber gets what it got before.
func TestFloodingPublisher(t *testing.T) {
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, cam := publishVP8(t, r, "cam", 5)
	var sent atomic.Int64
	every(t, 20*time.Millisecond, func() {
		cam.frame(t)
		sent.Add(int64(cam.perFrame))
	})
	_, elsewhere := publishVP8(t, e.Router("elsewhere"), "cam2", 5)
	every(t, 20*time.Millisecond, func() { elsewhere.frame(t) })
	_, rec := viewer(t, r, "subscriber", "cam")

	// 100 times the limit of a track is more than a test machine can send, so the limit is lower.
	const allowed, seconds, flood = 50, 2, 20_000
	attackers := []*attacker{newAttacker(t, r, "near", "cam"), newAttacker(t, e.Router("elsewhere"), "far", "cam2")}
	var packets [2][][]byte
	for i, a := range attackers {
		for range flood {
			packets[i] = append(packets[i], a.packet(nil))
		}
		a.c.ep.in.mu.Lock()
		a.c.ep.in.limits.media.Set(limit.Rate{Packets: allowed, Bytes: 200 * allowed}, e.now())
		a.c.ep.in.mu.Unlock()
	}
	taken := func() int64 { return int64(rec.count()) - sent.Load() }
	lag, began, next := taken(), time.Now(), 0
	worst := int64(0)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for next < flood {
		<-tick.C
		// No more at once than the socket holds while the reader has no processor.
		due := min(int(time.Since(began)*flood/(seconds*time.Second)), flood, next+200)
		for ; next < due; next++ {
			for i, a := range attackers {
				if _, err := a.conn.Write(packets[i][next]); err != nil {
					t.Fatal(err)
				}
			}
		}
		worst = max(worst, lag-taken())
	}
	took := time.Since(began)
	for _, a := range attackers {
		eventually(t, "the flood is dropped", func() bool { return a.c.ep.Stats().Drops["rate_limit"] > flood*9/10 })
	}
	before := rec.count()
	eventually(t, "video goes on", func() bool { return rec.count() > before+60 })
	continuous(t, rec.all())
	most := 500 * time.Millisecond
	if raceDetector() {
		most = 5 * time.Second
	}
	if behind := time.Duration(worst) / time.Duration(cam.perFrame) * 20 * time.Millisecond; behind > most {
		t.Errorf("the subscriber was %v behind", behind)
	}
	// A flood that has ended costs the flooder nothing more.
	a := attackers[0]
	in := a.c.ep.Stats().PacketsIn
	eventually(t, "the flooder may send again", func() bool {
		if _, err := a.conn.Write(a.packet(nil)); err != nil {
			t.Fatal(err)
		}
		return a.c.ep.Stats().PacketsIn > in+20
	})
	t.Logf("%d packets in %v, subscriber at most %d packets behind", 2*flood, took, worst)
}

// dropFixture is an endpoint that publishes VP8, with keys but without a client or a socket.
type dropFixture struct {
	e    *Engine
	in   *inbound
	send *srtp.Context
	u    *UpTrack
}

func newDropFixture(t testing.TB) *dropFixture {
	t.Helper()
	e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	r := e.Router("room")
	ep, err := r.NewEndpoint(EndpointConfig{ID: "publisher"})
	if err != nil {
		t.Fatal(err)
	}
	f := &dropFixture{e: e, in: &ep.in}
	if f.u, err = r.addTrack("cam", codec.Video, "cam", ep.id); err != nil {
		t.Fatal(err)
	}
	vp8, _ := codec.Match("VP8", 90000, "")
	section := negotiate.Section{
		Mid: "0", Kind: codec.Video, Direction: negotiate.SendOnly, SSRCs: []uint32{42}, RTX: map[uint32]uint32{43: 42},
		Formats: []negotiate.Format{{PayloadType: 96, Codec: vp8, RTPMap: pathFormat, RTX: 97, Feedback: negotiate.Feedback{NACK: true, PLI: true, TransportCC: true}}},
	}
	section.Extensions.MID, section.Extensions.TransportCC, section.Extensions.RID = 1, 3, 4
	f.in.configure([]role{{section: &section, publish: &Publish{Mid: "0", TrackID: "cam"}}}, map[string]*UpTrack{"0": f.u})
	f.in.setKeys(f.context(t))
	f.send = f.context(t)
	return f
}

func (f *dropFixture) context(t testing.TB) *srtp.Context {
	t.Helper()
	ctx, err := srtp.CreateContext(make([]byte, 16), make([]byte, 12), srtp.ProtectionProfileAeadAes128Gcm, srtp.SRTPReplayProtection(1024), srtp.SRTCPReplayProtection(128))
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

func (f *dropFixture) seal(t testing.TB, p *rtp.Packet) []byte {
	t.Helper()
	raw, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := f.send.EncryptRTP(nil, raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func vp8Packet(seq uint16) *rtp.Packet {
	return &rtp.Packet{
		Header:  rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: seq, Timestamp: 1000, SSRC: 42},
		Payload: append([]byte{0x10, 0x01}, make([]byte, 1000)...),
	}
}

// dropCases are packets that one endpoint may be flooded with, by what they are dropped for.
func (f *dropFixture) dropCases(t testing.TB) map[string]func() []byte {
	good := f.seal(t, vp8Packet(1))
	f.in.datagram(good, f.e.now())
	forged := f.seal(t, vp8Packet(2))
	forged[len(forged)-1]++
	stranger := f.seal(t, &rtp.Packet{Header: rtp.Header{Version: 2, SSRC: 7}, Payload: make([]byte, 1000)})
	malformed := append([]byte{0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 42, 0xbe, 0xde, 0xff, 0xff}, make([]byte, 1000)...)
	same := func(b []byte) func() []byte { return func() []byte { return b } }
	return map[string]func() []byte{
		"srtp_auth": same(forged), "srtp_replay": same(good), "unknown_ssrc": same(stranger), "malformed_rtp": same(malformed),
	}
}

// BenchmarkDrop is what one bad packet costs the goroutine that reads the socket.
func BenchmarkDrop(b *testing.B) {
	for _, reason := range []string{"srtp_auth", "srtp_replay", "unknown_ssrc", "malformed_rtp", "rate_limit", "rtcp_flood"} {
		b.Run(reason, func(b *testing.B) {
			f := newDropFixture(b)
			cases := f.dropCases(b)
			now := f.e.now()
			switch reason {
			case "rate_limit":
				f.in.limits.media.Spend(1<<30, now)
				cases[reason] = cases["srtp_replay"]
			case "rtcp_flood":
				f.in.limits.control.Spend(1<<30, now)
				raw, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1}})
				if err != nil {
					b.Fatal(err)
				}
				cases[reason] = func() []byte { return raw }
			case "unknown_ssrc":
				f.in.limits.strangers = limit.NewBucket(0, 0)
			}
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				f.in.datagram(cases[reason](), now)
				n++
			}
			if got := f.in.counts.drops(); got[reason] < n-n/sampleEvery { // one in so many is decrypted all the same
				b.Fatalf("%d packets, dropped: %v", n, got)
			}
		})
	}
}

// BenchmarkStranger is what a packet of nobody known costs it.
func BenchmarkStranger(b *testing.B) {
	check := strangersCheck()
	forged := append([]byte{}, check...)
	forged[len(forged)-1]++
	media := append([]byte{0x80, 96}, make([]byte, 1000)...)
	for reason, packet := range map[string][]byte{"unknown_source": media, "stun_session": check, "malformed_stun": forged} {
		b.Run(reason, func(b *testing.B) {
			f := newDropFixture(b)
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				f.e.connector.datagram(packet, ice.Path{}, nil)
				n++
			}
			if got := f.e.drops.snapshot(); got[reason] != n {
				b.Fatalf("%d packets, dropped: %v", n, got)
			}
		})
	}
}

// BenchmarkReceive is what one good packet costs it, up to the worker's queue.
func BenchmarkReceive(b *testing.B) {
	f := newDropFixture(b)
	f.in.limits.media.Set(limit.Rate{Packets: 1 << 30, Bytes: 1 << 40}, f.e.now())
	var batch [][]byte
	seq := uint16(0)
	b.ReportAllocs()
	for b.Loop() {
		if len(batch) == 0 {
			b.StopTimer()
			for range 4096 {
				batch = append(batch, f.seal(b, vp8Packet(seq)))
				seq++
			}
			b.StartTimer()
		}
		f.in.datagram(batch[0], f.e.now())
		batch = batch[1:]
	}
}

// TestDroppingAllocatesNothing: whoever floods must not make garbage.
func TestDroppingAllocatesNothing(t *testing.T) {
	f := newDropFixture(t)
	now := f.e.now()
	for reason, packet := range f.dropCases(t) {
		if reason == "srtp_auth" || reason == "srtp_replay" {
			continue // the SRTP library makes an error with details for each
		}
		f.in.limits.strangers = limit.NewBucket(0, 0)
		if n := testing.AllocsPerRun(1000, func() { f.in.datagram(packet(), now) }); n != 0 && !raceDetector() {
			t.Errorf("%s: %v allocations", reason, n)
		}
		if f.in.counts.drops()[reason] < 1000 {
			t.Errorf("%s: %v", reason, f.in.counts.drops())
		}
	}
}

// TestPublisherWithinItsRate sends what a role allows, bursts of keyframes included.
func TestPublisherWithinItsRate(t *testing.T) {
	t.Parallel()
	const second = int64(time.Second)
	for _, maxBitrate := range []int64{150_000, 1_500_000, 8_000_000, 0} {
		var th limit.Throttle
		th.Set(publishRate(codec.Video, maxBitrate), second)
		bitrate := maxBitrate
		if bitrate == 0 {
			bitrate = 20_000_000
		}
		now, frame := second, int(bitrate/8/30)
		for i := range 30 * 60 {
			size := frame
			if i%90 == 0 { // with what is lost of it sent again
				size = 10 * frame
			}
			for ; size > 0; size -= 1200 {
				if !th.Open(now) {
					t.Fatalf("%d bit/s: a packet of frame %d is refused", bitrate, i)
				}
				th.Spend(min(size, 1200), now)
			}
			now += second / 30
		}
	}
}
