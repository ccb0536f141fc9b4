package control

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
)

var block = rtcp.ReceptionReport{
	SSRC: 4, FractionLost: 5, TotalLost: 0x060708, LastSequenceNumber: 9, Jitter: 10, LastSenderReport: 11, Delay: 12,
}

// samples are one packet of every kind.
func samples(t testing.TB) map[Kind][]byte {
	t.Helper()
	all := map[Kind][]byte{}
	for kind, p := range map[Kind]rtcp.Packet{
		SenderReport:   &rtcp.SenderReport{SSRC: 1, NTPTime: 2 << 40, RTPTime: 3, Reports: []rtcp.ReceptionReport{block, block}},
		ReceiverReport: &rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{block}},
		Goodbye:        &rtcp.Goodbye{Sources: []uint32{7, 8}, Reason: "done"},
		NACK:           &rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: 2, Nacks: []rtcp.NackPair{{PacketID: 7, LostPackets: 0x8001}, {PacketID: 9}}},
		PLI:            &rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: 2},
		FIR:            &rtcp.FullIntraRequest{SenderSSRC: 1, MediaSSRC: 2, FIR: []rtcp.FIREntry{{SSRC: 5}, {SSRC: 6, SequenceNumber: 3}}},
		TransportWide: &rtcp.TransportLayerCC{
			Header: rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5}, PacketStatusCount: 1,
			PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: 1, RunLength: 1}}, RecvDeltas: []*rtcp.RecvDelta{{Type: 1}},
		},
		Other: &rtcp.ReceiverEstimatedMaximumBitrate{SenderSSRC: 1, Bitrate: 1e6, SSRCs: []uint32{1}},
	} {
		raw, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		all[kind] = raw
	}
	return all
}

func TestReadsWhatPionWrites(t *testing.T) {
	t.Parallel()
	all := samples(t)
	var compound []byte
	for kind := Other; kind <= TransportWide; kind++ {
		compound = append(compound, all[kind]...)
	}
	if err := Check(compound); err != nil {
		t.Fatal(err)
	}
	rest := compound
	for kind := Other; kind <= TransportWide; kind++ {
		p, after, ok := Next(rest)
		if !ok || p.Kind() != kind || !bytes.Equal(p, all[kind]) {
			t.Fatalf("packet of kind %d is read as %d, %v", kind, p.Kind(), ok)
		}
		rest = after
	}
	sr := Packet(all[SenderReport])
	if ssrc, ntp, rtp := sr.Sender(); ssrc != 1 || ntp != 2<<40 || rtp != 3 || sr.Reports() != 2 {
		t.Fatalf("sender report: %d %d %d, %d blocks", ssrc, ntp, rtp, sr.Reports())
	}
	for _, got := range []rtcp.ReceptionReport{sr.Report(1), Packet(all[ReceiverReport]).Report(0)} {
		if diff := cmp.Diff(block, got); diff != "" {
			t.Fatal(diff)
		}
	}
	if p := Packet(all[Goodbye]); p.Sources() != 2 || p.Source(0) != 7 || p.Source(1) != 8 {
		t.Fatalf("goodbye of %d", p.Sources())
	}
	nack := Packet(all[NACK])
	if first, following := nack.Pair(0); nack.Media() != 2 || nack.Pairs() != 2 || first != 7 || following != 0x8001 {
		t.Fatalf("nack: %d pairs, %d %x", nack.Pairs(), first, following)
	}
	if p := Packet(all[FIR]); p.Targets() != 2 || p.Target(0) != 5 || p.Target(1) != 6 {
		t.Fatalf("fir of %d", p.Targets())
	}
	if Packet(all[PLI]).Media() != 2 {
		t.Fatal("pli")
	}
}

func TestRefusesWhatLies(t *testing.T) {
	t.Parallel()
	all := samples(t)
	for kind, raw := range all {
		longer, version := slices.Clone(raw), slices.Clone(raw)
		longer[3]++
		version[0] &= 0x3f
		cases := [][]byte{raw[:len(raw)-1], raw[:3], longer, version, append(slices.Clone(raw), 0x80)}
		if kind != Other && kind != Goodbye {
			header := slices.Clone(raw[:8])
			header[2], header[3] = 0, 1
			cases = append(cases, header) // a length that is true, but too short for the kind
		}
		if kind == SenderReport || kind == ReceiverReport || kind == Goodbye {
			count := slices.Clone(raw)
			count[0] |= 0x1f
			cases = append(cases, count)
		}
		for i, b := range cases {
			if kind == ReceiverReport && i == 5 {
				b[0] |= 1
			}
			if err := Check(b); !errors.Is(err, ErrMalformed) {
				t.Errorf("kind %d, case %d: accepted", kind, i)
			}
		}
	}
	if Check(nil) == nil {
		t.Error("nothing is accepted")
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	all := samples(t)
	var compound []byte
	for _, raw := range all {
		compound = append(compound, raw...)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if Check(compound) != nil {
			t.Fatal("refused")
		}
		use(compound)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// use reads everything there is, and returns how much that was.
func use(b []byte) (n int) {
	for {
		p, rest, ok := Next(b)
		if !ok {
			return n
		}
		b = rest
		switch p.Kind() {
		case SenderReport, ReceiverReport:
			for i := range p.Reports() {
				n += int(p.Report(i).SSRC & 1)
			}
			if p.Kind() == SenderReport {
				p.Sender()
			}
		case Goodbye:
			for i := range p.Sources() {
				n += int(p.Source(i) & 1)
			}
		case NACK:
			n += int(p.Media() & 1)
			for i := range p.Pairs() {
				first, _ := p.Pair(i)
				n += int(first)
			}
		case PLI:
			n += int(p.Media() & 1)
		case FIR:
			for i := range p.Targets() {
				n += int(p.Target(i) & 1)
			}
		}
	}
}

// FuzzControl reads anything. What our reader and pion's both take they understand alike.
func FuzzControl(f *testing.F) {
	for _, raw := range samples(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Check(b) != nil {
			return
		}
		use(b)
		pkts, err := rtcp.Unmarshal(b)
		if err != nil {
			return
		}
		for _, want := range pkts {
			p, rest, ok := Next(b)
			if !ok {
				t.Fatal("checked, but not read")
			}
			b = rest
			agree(t, p, want)
		}
	})
}

func agree(t *testing.T, p Packet, want rtcp.Packet) {
	t.Helper()
	same := true
	switch want := want.(type) {
	case *rtcp.ReceiverReport:
		same = p.Kind() == ReceiverReport && p.Reports() == len(want.Reports)
		for i := range want.Reports {
			same = same && p.Report(i) == want.Reports[i]
		}
	case *rtcp.SenderReport:
		ssrc, ntp, ts := p.Sender()
		same = p.Kind() == SenderReport && ssrc == want.SSRC && ntp == want.NTPTime && ts == want.RTPTime
	case *rtcp.PictureLossIndication:
		same = p.Kind() == PLI && p.Media() == want.MediaSSRC
	case *rtcp.TransportLayerNack:
		same = p.Kind() == NACK && p.Media() == want.MediaSSRC && p.Pairs() == len(want.Nacks)
		for i, n := range want.Nacks {
			first, following := p.Pair(i)
			same = same && first == n.PacketID && following == uint16(n.LostPackets)
		}
	}
	if !same {
		t.Fatalf("%x is not %v", []byte(p), want)
	}
}

func BenchmarkControl(b *testing.B) {
	var compound []byte
	for _, raw := range samples(b) {
		compound = append(compound, raw...)
	}
	b.ReportAllocs()
	for b.Loop() {
		use(compound)
	}
}
