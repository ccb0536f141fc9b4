package media

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/media/ice"
	"github.com/amphi-sfu/amphi/media/limit"
)

// attacker is a client that has joined, published two tracks and subscribed to one, and whose
// SRTP keys the test knows, so that it can say anything.
type attacker struct {
	t            testing.TB
	c            *client
	conn         *net.UDPConn
	rtp, control *srtp.Context
	mids         [2]string
	ssrc         [2]uint32
	rtx          [2]uint32
	slot         uint32 // of what it receives
	seq          uint16
	ts           uint32
	rng          *rand.Rand
}

func newAttacker(t testing.TB, r *Router, id string, watch string) *attacker {
	t.Helper()
	std, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	var silent atomic.Bool
	link := lossyNet{Net: std, loseOut: func(b []byte) bool { return silent.Load() && isMedia(b) }}
	opts := clientOptions{setting: func(s *webrtc.SettingEngine) { s.SetNet(link) }}
	a := &attacker{t: t, c: newClient(t, r, id, opts), rng: rand.New(rand.NewPCG(5, 6)), ts: 1 << 20, seq: 1000}
	a.c.recvOnly(0, 1)
	publish := map[*webrtc.RTPTransceiver]string{}
	var sections [2]*webrtc.RTPTransceiver
	for i := range sections {
		_, sections[i] = a.c.send(webrtc.MimeTypeVP8)
		publish[sections[i]] = id + string(rune('a'+i))
	}
	subscribeAll(a.c.ep, watch)
	a.c.negotiate(publish)
	a.c.connected()
	for i, tr := range sections {
		coding := tr.Sender().GetParameters().Encodings[0]
		a.mids[i], a.ssrc[i], a.rtx[i] = tr.Mid(), uint32(coding.SSRC), uint32(coding.RTX.SSRC)
	}
	eventually(t, "the attacker receives", func() bool { return a.c.ep.Stats().PacketsOut > 10 })
	a.c.ep.mu.Lock()
	a.slot = a.c.ep.slots[0].ssrc
	a.c.ep.mu.Unlock()
	// Its own reports are not authentic from now on: they would count among what is thrown, as
	// of unknown SSRCs once too many such have come.
	silent.Store(true)
	key, salt := make([]byte, 16), make([]byte, 12)
	context := func() *srtp.Context {
		ctx, err := srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes128Gcm, srtp.SRTPReplayProtection(1024), srtp.SRTCPReplayProtection(128))
		if err != nil {
			t.Fatal(err)
		}
		return ctx
	}
	a.rtp, a.control = context(), context()
	a.c.ep.in.setKeys(context())
	a.conn = dialEngine(t, r.e)
	r.e.connector.claim(ice.Path{Addr: netip.MustParseAddrPort(a.conn.LocalAddr().String())}, a.c.ep.transport, true)
	return a
}

func dialEngine(t testing.TB, e *Engine) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(e.UDPAddr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// packet is the next good packet of the first track, as change makes it, encrypted.
func (a *attacker) packet(change func(*rtp.Packet)) []byte { return a.seal(a.plain(change)) }

// lying is the next packet with bytes changed before it was encrypted.
func (a *attacker) lying(change func(raw []byte)) []byte {
	raw := a.plain(nil)
	change(raw)
	return a.seal(raw)
}

func (a *attacker) plain(change func(*rtp.Packet)) []byte {
	a.seq++
	p := &rtp.Packet{
		Header:  rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: a.seq, Timestamp: a.ts, SSRC: a.ssrc[0]},
		Payload: append([]byte{0x10, 0x01}, make([]byte, 100)...),
	}
	if change != nil {
		change(p)
	}
	raw, err := p.Marshal()
	if err != nil {
		a.t.Fatal(err)
	}
	return raw
}

func (a *attacker) seal(raw []byte) []byte {
	sealed, err := a.rtp.EncryptRTP(nil, raw, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return sealed
}

// compound is RTCP of these packets, as change makes it, encrypted.
func (a *attacker) compound(change func([]byte), pkts ...rtcp.Packet) []byte {
	raw, err := rtcp.Marshal(pkts)
	if err != nil {
		a.t.Fatal(err)
	}
	if change != nil {
		change(raw)
	}
	sealed, err := a.control.EncryptRTCP(nil, raw, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return sealed
}

// seen is how many of the attacker's packets were decrypted or dropped.
func (a *attacker) seen() uint64 {
	s := a.c.ep.Stats()
	n := s.PacketsIn
	for _, d := range s.Drops {
		n += d
	}
	return n
}

// bad is one kind of input that has to be dropped.
type bad struct {
	name   string
	count  int
	reason string
	// some may pass: the first of a flood.
	pass int
	make func(i int) []byte
}

// outside are packets of somebody who has no keys.
func outside(rng *rand.Rand) []bad {
	return []bad{
		{"from nobody", 1500, "unknown_source", 0, func(int) []byte {
			b := make([]byte, 12+rng.IntN(1200))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			b[0] = 0x80 | b[0]&0x3f
			return b
		}},
		{"no STUN", 500, "malformed_stun", 0, func(i int) []byte {
			b := make([]byte, 20+rng.IntN(500))
			b[1], b[3] = 1, byte(rng.Uint32())|1
			return b
		}},
		{"a check of no session", 500, "stun_session", 0, func(int) []byte { return strangersCheck() }},
	}
}

// strangersCheck is a well-formed STUN request (RFC 8489) for a session that does not exist.
func strangersCheck() []byte {
	m := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("nobody:stranger"), stun.NewShortTermIntegrity("none"), stun.Fingerprint)
	return m.Raw
}

// spoofed are packets with the attacker's address but not its keys.
func (a *attacker) spoofed() []bad {
	header := func(first byte, rest ...byte) []byte {
		return append([]byte{first, 96, 0, 1, 0, 0, 0, 1, byte(a.ssrc[0] >> 24), byte(a.ssrc[0] >> 16), byte(a.ssrc[0] >> 8), byte(a.ssrc[0])}, rest...)
	}
	junk := make([]byte, 100)
	return []bad{
		{"forged media", 1500, "srtp_auth", 0, func(i int) []byte {
			b := append(header(0x80), junk...)
			binary.BigEndian.PutUint16(b[2:], uint16(30000+i))
			return b
		}},
		{"csrc count lies", 500, "malformed_rtp", 0, func(i int) []byte { return header(0x8f, junk[:i%40]...) }},
		{"extension length lies", 500, "malformed_rtp", 0, func(int) []byte { return append(header(0x90, 0xbe, 0xde, 0xff, 0xff), junk...) }},
		{"extension element lies", 500, "malformed_rtp", 0, func(int) []byte {
			return append(header(0x90, 0x10, 0, 0, 1, 1, 200, 0, 0), junk...)
		}},
		{"extensions without end", 500, "malformed_rtp", 0, func(int) []byte {
			return append(header(0x90, 0xbe, 0xde, 0x01, 0x20), make([]byte, 4*0x120+40)...)
		}},
		{"header only", 300, "malformed_rtp", 0, func(int) []byte { return header(0x80) }},
	}
}

// media are packets that are authentic, but wrong.
func (a *attacker) media() []bad {
	again := a.packet(nil)
	far := uint16(0)
	return []bad{
		{"replay", 600, "srtp_replay", 1, func(int) []byte { return again }},
		{"padding lies", 300, "malformed_rtp", 0, func(int) []byte {
			return a.lying(func(raw []byte) { raw[0] |= 0x20; raw[len(raw)-1] = 250 })
		}},
		{"payload type not negotiated", 300, "payload_type", 0, func(int) []byte {
			return a.packet(func(p *rtp.Packet) { p.PayloadType = 55 })
		}},
		{"no VP8", 300, "payload", 0, func(int) []byte {
			return a.packet(func(p *rtp.Packet) { p.Payload = []byte{0xff} })
		}},
		{"ssrc of another section", 300, "ssrc_collision", 0, func(int) []byte {
			return a.packet(func(p *rtp.Packet) { a.extension(p, a.mids[1]) })
		}},
		{"second ssrc of a section", 300, "ssrc_collision", 0, func(i int) []byte {
			if i%50 == 0 { // its owner is alive
				if _, err := a.conn.Write(a.packet(nil)); err != nil {
					a.t.Fatal(err)
				}
			}
			return a.packet(func(p *rtp.Packet) { p.SSRC = 0x01020304; a.extension(p, a.mids[0]) })
		}},
		{"nobody's ssrc", 600, "unknown_ssrc", 0, func(i int) []byte {
			return a.packet(func(p *rtp.Packet) { p.SSRC = uint32(0x10000000 + i) })
		}},
		{"timestamps to and fro", 400, "sequence_jump", 0, func(i int) []byte {
			return a.packet(func(p *rtp.Packet) { p.Timestamp += uint32(i%5+1) * 400_000_000 })
		}},
		{"retransmission of nothing", 300, "sequence_jump", 0, func(i int) []byte {
			return a.packet(func(p *rtp.Packet) {
				p.SSRC, p.PayloadType, p.SequenceNumber = a.rtx[0], 97, uint16(i)
				p.Payload = binary.BigEndian.AppendUint16(nil, a.seq+10000+uint16(i))
			})
		}},
		// The last of these leaves the numbers wherever it leaves them.
		{"sequence jumps", 600, "sequence_jump", 0, func(int) []byte {
			if far += 20011; int16(far) <= 3100 && int16(far) >= -1000 {
				far += 5000
			}
			return a.packet(func(p *rtp.Packet) { a.seq--; p.SequenceNumber = a.seq + far })
		}},
	}
}

// extension says in a header extension which section the packet is of.
func (a *attacker) extension(p *rtp.Packet, mid string) {
	a.c.ep.in.mu.Lock()
	id := a.c.ep.in.sections[a.mids[0]].ext.MID
	a.c.ep.in.mu.Unlock()
	if err := p.SetExtension(id, []byte(mid)); err != nil {
		a.t.Fatal(err)
	}
}

// feedback is RTCP that is wrong, or too much.
func (a *attacker) feedback() []bad {
	const me = 77
	pairs := make([]rtcp.NackPair, 253)
	for i := range pairs {
		pairs[i] = rtcp.NackPair{PacketID: uint16(17 * i), LostPackets: 0xffff}
	}
	return []bad{
		{"rtcp length lies", 200, "malformed_rtcp", 0, func(int) []byte {
			return a.compound(func(b []byte) { b[3]++ }, &rtcp.PictureLossIndication{SenderSSRC: me, MediaSSRC: a.slot})
		}},
		{"rtcp count lies", 200, "malformed_rtcp", 0, func(int) []byte {
			return a.compound(func(b []byte) { b[0] |= 31 }, &rtcp.ReceiverReport{SSRC: me})
		}},
		{"feedback of nothing sent", 200, "malformed_rtcp", 0, func(int) []byte {
			return a.compound(func(b []byte) { b[20], b[21] = 0, 0 }, &rtcp.TransportLayerCC{
				Header:     rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5},
				SenderSSRC: me, PacketStatusCount: 1, PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: 1, RunLength: 1}},
				RecvDeltas: []*rtcp.RecvDelta{{Type: 1}},
			})
		}},
		{"forged rtcp", 200, "srtp_auth", 0, func(int) []byte {
			b := a.compound(nil, &rtcp.ReceiverReport{SSRC: me})
			b[len(b)-6]++
			return b
		}},
		{"nack of an unknown ssrc", 200, "feedback_ssrc", 0, func(int) []byte {
			return a.compound(nil, &rtcp.TransportLayerNack{SenderSSRC: me, MediaSSRC: 1, Nacks: pairs[:1]})
		}},
		{"absurd sender report", 200, "sender_report", 0, func(i int) []byte {
			return a.compound(nil, &rtcp.SenderReport{SSRC: a.ssrc[0], NTPTime: 1 << (i % 64), RTPTime: a.ts + 1<<31})
		}},
		{"a million nacks", 240, "nack_flood", 100, func(int) []byte {
			return a.compound(nil, &rtcp.TransportLayerNack{SenderSSRC: me, MediaSSRC: a.slot, Nacks: pairs})
		}},
		{"pli flood", 400, "keyframe_flood", 20, func(int) []byte {
			return a.compound(nil, &rtcp.PictureLossIndication{SenderSSRC: me, MediaSSRC: a.slot})
		}},
		{"fir flood", 20, "keyframe_flood", 1, func(int) []byte {
			return a.compound(nil, &rtcp.FullIntraRequest{SenderSSRC: me, MediaSSRC: a.slot, FIR: slices.Repeat([]rtcp.FIREntry{{SSRC: a.slot}}, 100)})
		}},
	}
}

// throw sends one kind of input, no faster than it is taken, and checks that all of it was
// dropped for the reason that it should be.
func (b bad) throw(t *testing.T, e *Engine, conn *net.UDPConn, chunk int) {
	t.Helper()
	count := func() uint64 { return e.Stats().Drops[b.reason] }
	before := count()
	for i := range b.count {
		if _, err := conn.Write(b.make(i)); err != nil {
			t.Fatal(err)
		}
		if (i+1)%chunk == 0 || i+1 == b.count {
			want := before + uint64(max(i+1-b.pass, 0))
			eventually(t, b.name+" is dropped as "+b.reason, func() bool { return count() >= want })
		}
	}
	if got := count() - before; b.pass == 0 && b.reason != "srtp_auth" && got != uint64(b.count) {
		t.Errorf("%s: %d of %d dropped as %s", b.name, got, b.count, b.reason)
	}
}

// TestBadInput throws all kinds of bad input at an engine in which a room is well.
func TestBadInput(t *testing.T) {
	e := startEngine(t, Config{})
	r := e.Router("room")
	pub, src := publishVP8(t, r, "cam", 5)
	pub.source.Store(src)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	sub := newClient(t, r, "subscriber", clientOptions{})
	sub.recvOnly(0, 1)
	sub.negotiate(nil)
	subscribeAll(sub.ep, "cam")
	rec := sub.section("0")
	eventually(t, "video arrives", func() bool { return rec.count() > 50 })
	a := newAttacker(t, r, "attacker", "cam")
	if _, err := a.conn.Write(a.packet(nil)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the attacker's good packet is taken", func() bool { return len(r.UpTrack("attackera").Encodings()) == 1 })
	stranger := dialEngine(t, e)

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines, pooled, asked := runtime.NumGoroutine(), e.pool.Live(), r.UpTrack("cam").Encodings()[0].stats(e.now()).KeyframeRequests
	total := 0
	throw := func(kinds []bad, conn *net.UDPConn, chunk int) {
		for _, b := range kinds {
			b.throw(t, e, conn, chunk)
			total += b.count - b.pass
		}
	}
	throw(outside(a.rng), stranger, 50)
	throw(a.spoofed(), a.conn, 50)
	throw(a.feedback(), a.conn, 8)
	throw(a.media(), a.conn, 50)
	total += a.floods()
	if total < 10_000 {
		t.Errorf("only %d inputs were thrown", total)
	}

	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := runtime.NumGoroutine(); n > goroutines+2 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if n := e.pool.Live(); n > pooled+2*videoRing {
		t.Errorf("%d packets are held, %d before", n, pooled)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if n := r.UpTrack("cam").Encodings()[0].stats(e.now()).KeyframeRequests - asked; n > 30 {
		t.Errorf("the publisher was asked for %d keyframes", n)
	}
	got := rec.count()
	eventually(t, "video goes on", func() bool { return rec.count() > got+50 })
	continuous(t, rec.all())
	checkVP8(t, rec.all())
	t.Logf("%d bad inputs, drops: %v", total, e.Stats().Drops)
}

// floods sends good packets, but far too many, and returns how many were dropped.
func (a *attacker) floods() (dropped int) {
	e := a.c.ep.router.e
	limits := &a.c.ep.in.limits
	flood := func(n, atLeast int, reason string, make func() []byte) {
		a.t.Helper()
		before := e.Stats().Drops[reason]
		for i := range n {
			seen := a.seen()
			if _, err := a.conn.Write(make()); err != nil {
				a.t.Fatal(err)
			}
			if i%200 == 199 { // what the socket cannot hold would not be counted
				eventually(a.t, "the flood is taken", func() bool { return a.seen() > seen })
			}
		}
		eventually(a.t, "the flood is dropped as "+reason, func() bool { return e.Stats().Drops[reason]-before >= uint64(atLeast) })
		dropped += atLeast
	}
	// Low limits: how fast this machine can send under the race detector is not the point.
	a.c.ep.in.mu.Lock()
	limits.media.Set(limit.Rate{Packets: 100, Bytes: 100_000}, e.now())
	limits.control.Set(limit.Rate{Packets: 100, Bytes: 100_000}, e.now())
	a.c.ep.in.mu.Unlock()
	flood(4000, 1000, "rate_limit", func() []byte { return a.packet(func(p *rtp.Packet) { p.SSRC = a.ssrc[1] }) })
	flood(4000, 1000, "rtcp_flood", func() []byte { return a.compound(nil, &rtcp.ReceiverReport{SSRC: 77}) })
	return dropped
}
