package media

import (
	"testing"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"

	"github.com/amphi-sfu/amphi/media/bwe"
	"github.com/amphi-sfu/amphi/media/packet"
)

// TestFeedbackAllocatesLittle: hundreds of clients report ten times a second each. What is
// left is the additional data that pion/srtp puts together to open a report.
func TestFeedbackAllocatesLittle(t *testing.T) {
	f := newPath(t, 1)
	key, salt := make([]byte, 16), make([]byte, 12)
	client, err := srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	server, err := srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	w := f.e.workers[0]
	var ep *Endpoint
	for o := range w.endpoints {
		o.bw.enable()
		ep = o.ep
	}
	ep.in.setKeys(server)
	const rounds = 300
	var datagrams [][]byte
	for i := range rounds + 1 {
		raw, err := (&rtcp.TransportLayerCC{
			Header:            rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5},
			PacketStatusCount: 1, BaseSequenceNumber: uint16(i), FbPktCount: uint8(i),
			PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: 1, RunLength: 1}},
			RecvDeltas:   []*rtcp.RecvDelta{{Type: 1}},
		}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := client.EncryptRTCP(nil, raw, nil)
		if err != nil {
			t.Fatal(err)
		}
		datagrams = append(datagrams, sealed)
	}
	for range 2 * videoRing / loadPackets { // until the ring gives back as many packets as it takes
		f.advance()
		f.write()
		w.process()
	}
	at := 0
	allocs := testing.AllocsPerRun(rounds, func() {
		f.advance()
		f.write()
		ep.in.datagram(datagrams[at], f.e.now())
		w.process()
		at++
	})
	if n := ep.out.bw.estimator.Stats().Feedbacks; n < rounds/2 {
		t.Fatalf("%d of %d reports were of use", n, rounds)
	}
	if allocs > 1 && !raceDetector() {
		t.Fatalf("%v allocations for a report", allocs)
	}
}

// TestLateTransportNumbersAreReported: packets that others overtake on their way here are reported to
// the publisher as having come, before and after those that overtook them were, so that it does not
// take them for lost; across the wrap of the numbers.
func TestLateTransportNumbersAreReported(t *testing.T) {
	t.Parallel()
	f := newPath(t, 0)
	ep, err := f.e.Router("room").NewEndpoint(EndpointConfig{ID: "publisher"})
	if err != nil {
		t.Fatal(err)
	}
	in := &ep.in
	in.transID, in.transport = 3, twcc.NewRecorder(ep.ssrc)
	now := int64(time.Second)
	take := func(numbers ...uint16) {
		for _, n := range numbers {
			now += int64(time.Millisecond)
			h, err := packet.ParseHeader([]byte{0x90, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0xbe, 0xde, 0, 1, 0x31, byte(n >> 8), byte(n), 0})
			if err != nil {
				t.Fatal(err)
			}
			in.noteTransport(&h, now)
		}
	}
	got := map[uint16]bool{}
	report := func() {
		for _, p := range in.transport.BuildFeedbackPacket() {
			raw, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			var r bwe.Report
			if err := bwe.ParseTWCC(raw, &r); err != nil {
				t.Fatal(err)
			}
			for i, s := range r.Statuses {
				got[r.Base+uint16(i)] = got[r.Base+uint16(i)] || s.Received
			}
		}
	}
	take(65530, 65531, 65533, 65532, 65534, 0, 1, 65535)
	report()
	take(3, 4, 7)
	report()
	take(6, 2, 8, 5)
	report()
	for n := uint16(65530); n != 9; n++ {
		if !got[n] {
			t.Errorf("packet %d came and is reported as lost", n)
		}
	}
}

// TestNoReportBeforeTheOutputGoesOn: when a publisher's stream begins anew, its sender reports are about
// the new one at once; subscribers are told nothing until a keyframe of it has said how their numbers
// go on.
func TestNoReportBeforeTheOutputGoesOn(t *testing.T) {
	t.Parallel()
	f := newPath(t, 1)
	w := f.e.workers[0]
	for o := range w.endpoints {
		dt := o.tracks[0]
		report := func(ntp uint64) uint64 {
			f.enc.writeReport(packet.SenderReport{NTP: ntp << 32, RTP: f.src.ts, ArrivalNS: f.e.now()})
			w.process()
			return uint64(dt.counts.reportNTP >> 16)
		}
		if got := report(1); got != 1 {
			t.Fatalf("report %d was passed on, 1 came", got)
		}
		f.enc.expect() // another SSRC takes over
		f.src.ts += 1 << 30
		f.frame(t)
		if got := report(2); got != 1 {
			t.Errorf("report %d was passed on, in numbers that the client knows nothing of", got)
		}
		f.src.keyframe.Store(true)
		f.frame(t)
		if got := report(3); got != 3 {
			t.Errorf("report %d was passed on, 3 came after the keyframe", got)
		}
	}
}
