package media

import (
	"testing"

	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"
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
