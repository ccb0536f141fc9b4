package media

import (
	"encoding/binary"
	"testing"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// refresh makes the endpoint as new, with a new track.
func (f *dropFixture) refresh(t testing.TB) {
	t.Helper()
	u := newUpTrack(f.u.router, "cam", f.u.kind, "cam", f.u.origin)
	in := f.in
	in.mu.Lock()
	sections := in.sections
	in.init(in.ep)
	in.transport, in.transID = twcc.NewRecorder(in.ep.ssrc), 3
	in.limits.media.Set(publishRate(u.kind, 0), f.e.now())
	for _, s := range sections {
		s.track = u
	}
	in.sections = sections
	in.mu.Unlock()
	in.setKeys(f.context(t))
	f.send, f.u = f.context(t), u
}

// authentic encrypts what a client wants to say, or returns it as it is if no client could.
func (f *dropFixture) authentic(b []byte) []byte {
	encrypt := func() ([]byte, error) { return f.send.EncryptRTP(nil, b, nil) }
	if len(b) >= 2 && b[1] >= 192 && b[1] <= 223 {
		encrypt = func() ([]byte, error) { return f.send.EncryptRTCP(nil, b, nil) }
	}
	sealed, err := encrypt()
	if err != nil {
		return b
	}
	return sealed
}

// FuzzInbound takes authentic packets of a client, each with its length before it, all the way
// to the encoding and the worker: whatever they say, nothing is kept but what the ring holds.
func FuzzInbound(f *testing.F) {
	pack := func(packets ...[]byte) (b []byte) {
		for _, p := range packets {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
		}
		return b
	}
	media := func(change func(*rtp.Packet)) []byte {
		p := vp8Packet(1)
		p.Payload = append(p.Payload[:2], 3)
		change(p)
		raw, err := p.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		return raw
	}
	jump := func(seq uint16, ts uint32) []byte {
		return media(func(p *rtp.Packet) { p.SequenceNumber, p.Timestamp = seq, ts })
	}
	feedback, err := rtcp.Marshal([]rtcp.Packet{
		&rtcp.SenderReport{SSRC: 42, NTPTime: 1 << 63, RTPTime: 7}, &rtcp.Goodbye{Sources: []uint32{42}},
		&rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: 2, Nacks: []rtcp.NackPair{{PacketID: 1, LostPackets: 0xffff}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pack(jump(1, 1), jump(2, 1), feedback, jump(30000, 1), jump(30001, 1<<31), jump(30002, 1<<31)))
	f.Add(pack(jump(65535, 1), media(func(p *rtp.Packet) {
		p.SSRC, p.PayloadType, p.Payload = 43, 97, []byte{0xff, 0xff, 0x10, 1}
	}), jump(0, 5), jump(700, 6)))
	f.Add(pack(media(func(p *rtp.Packet) {
		p.SSRC = 9
		if err := p.SetExtension(1, []byte("0")); err != nil {
			f.Fatal(err)
		}
		if err := p.SetExtension(3, []byte{0x80, 0}); err != nil {
			f.Fatal(err)
		}
	}), jump(1, 1)))
	fixture := newDropFixture(f)
	e := fixture.e
	f.Fuzz(func(t *testing.T, b []byte) {
		fixture.refresh(t)
		for len(b) >= 2 {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			fixture.in.datagram(fixture.authentic(b[2:2+n]), e.now())
			b = b[2+n:]
		}
		fixture.in.tick(e.now() + int64(reportPeriod))
		e.workers[0].process()
		for _, enc := range fixture.u.Encodings() {
			enc.tick(e.now())
			enc.ring.Clear()
		}
		if n := e.pool.Live(); n != 0 {
			t.Fatalf("%d packets are held", n)
		}
	})
}
