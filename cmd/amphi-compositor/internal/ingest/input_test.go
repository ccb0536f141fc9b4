package ingest

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"github.com/amphi-sfu/amphi/hls/wire"
)

func video() *wire.AddInput {
	return &wire.AddInput{ID: 1, Kind: wire.Video, Formats: []wire.Format{
		{PayloadType: 96, Codec: wire.VP8, ClockRate: 90000}, {PayloadType: 97, Codec: wire.H264, ClockRate: 90000},
	}}
}

func audio() *wire.AddInput {
	return &wire.AddInput{ID: 2, Kind: wire.Audio, Formats: []wire.Format{{PayloadType: 111, Codec: wire.Opus, ClockRate: 48000}}}
}

// source makes packets of one stream.
type source struct {
	pt   uint8
	ssrc uint32
	seq  uint16
	pay  rtp.Payloader
}

func vp8Source(ssrc uint32) *source {
	return &source{pt: 96, ssrc: ssrc, seq: 65530, pay: &codecs.VP8Payloader{EnablePictureID: true}}
}

func (s *source) frame(ts uint32, data []byte) (packets [][]byte) {
	parts := [][]byte{data}
	if s.pay != nil {
		parts = s.pay.Payload(100, data)
	}
	for i, pl := range parts {
		p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: s.pt, SSRC: s.ssrc, SequenceNumber: s.seq, Timestamp: ts, Marker: i == len(parts)-1}, Payload: pl}
		s.seq++
		b, err := p.Marshal()
		if err != nil {
			panic(err)
		}
		packets = append(packets, b)
	}
	return packets
}

// picture is a VP8 frame of n bytes as far as its first bit tells.
func picture(key bool, n int, mark byte) []byte {
	b := bytes.Repeat([]byte{mark}, n)
	b[0] = 1
	if key {
		b[0] = 0
	}
	return b
}

func frames(in *Input) (out []Frame) {
	for {
		f, ok := in.Next()
		if !ok {
			return out
		}
		out = append(out, f)
	}
}

func pushAll(in *Input, now time.Duration, packets ...[]byte) {
	for _, p := range packets {
		in.Push(p, now)
	}
}

func TestFramesOfManyPackets(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	s := vp8Source(5)
	key, delta := picture(true, 450, 1), picture(false, 250, 2)
	k := s.frame(1000, key)
	k[1], k[3] = k[3], k[1] // out of order
	pushAll(in, 0, k...)
	pushAll(in, 33*ms, s.frame(4000, delta)...)
	got := frames(in)
	if len(got) != 2 || !bytes.Equal(got[0].Data, key) || !bytes.Equal(got[1].Data, delta) {
		t.Fatalf("%d frames", len(got))
	}
	if !got[0].Key || !got[0].Fresh || got[1].Key || got[1].Fresh || got[0].Codec != wire.VP8 {
		t.Fatalf("%+v %+v", got[0].Key, got[1].Key)
	}
	if d := got[1].Due - got[0].Due; d < 33*ms || d > 34*ms {
		t.Fatalf("due %v apart", d)
	}
	if got[0].Due != MinDelay {
		t.Fatalf("due %v", got[0].Due)
	}
}

func TestH264(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	s := &source{pt: 97, ssrc: 7, pay: &codecs.H264Payloader{}}
	nal := func(typ byte, n int) []byte {
		return append([]byte{0, 0, 0, 1, typ}, bytes.Repeat([]byte{0xab}, n)...)
	}
	key := append(append(nal(0x67, 10), nal(0x68, 4)...), nal(0x65, 700)...)
	pushAll(in, 0, s.frame(0, nal(0x61, 300))...) // nothing to begin with
	pushAll(in, 33*ms, s.frame(3000, key)...)
	pushAll(in, 66*ms, s.frame(6000, nal(0x61, 300))...)
	broken := s.frame(9000, nal(0x61, 300))
	pushAll(in, 99*ms, append(broken[:1:1], broken[2:]...)...)
	in.Poll(200 * ms)
	pushAll(in, 200*ms, s.frame(12000, nal(0x61, 300))...)
	got := frames(in)
	if len(got) != 2 || !got[0].Key || got[1].Key {
		t.Fatalf("%d frames", len(got))
	}
	for _, typ := range []byte{0x67, 0x68, 0x65} {
		if !bytes.Contains(got[0].Data, []byte{0, 0, 1, typ}) {
			t.Errorf("no NAL unit %x in the key frame", typ)
		}
	}
	c := in.Counters()
	if c.Lost != 1 || c.Drops[DropNoKeyframe] != 2 || c.Drops[DropIncomplete] != 1 {
		t.Fatalf("%+v", c)
	}
}

func TestLossAsksForAKeyframe(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	if ssrc, ok := in.KeyframeWanted(0); !ok || ssrc != 0 {
		t.Fatal("asks when it is added")
	}
	if _, ok := in.KeyframeWanted(time.Second); ok {
		t.Fatal("asks again though nobody sends")
	}
	s := vp8Source(5)
	pushAll(in, time.Second, s.frame(0, picture(true, 50, 1))...)
	if _, ok := in.KeyframeWanted(1100 * ms); ok {
		t.Fatal("asks though it has one")
	}
	s.frame(3000, picture(false, 50, 2)) // lost
	pushAll(in, 1066*ms, s.frame(6000, picture(false, 50, 3))...)
	if n := len(frames(in)); n != 1 {
		t.Fatalf("%d frames while it waits", n)
	}
	at, waits := in.Deadline()
	if !waits || at != 1066*ms+MinDelay/2 {
		t.Fatalf("deadline %v", at)
	}
	in.Poll(at)
	if n := len(frames(in)); n != 0 {
		t.Fatal("shows what refers to a lost frame")
	}
	asked := 0
	for now := at; now < at+4*time.Second; now += 50 * ms {
		pushAll(in, now, s.frame(uint32(now/ms)*90, picture(false, 50, 4))...)
		if ssrc, ok := in.KeyframeWanted(now); ok {
			asked++
			if ssrc != 5 {
				t.Fatalf("of stream %d", ssrc)
			}
		}
	}
	if asked < 6 || asked > 9 {
		t.Fatalf("asked %d times in 4 s", asked)
	}
	pushAll(in, 6*time.Second, s.frame(6*90000, picture(true, 50, 5))...)
	if n := len(frames(in)); n != 1 {
		t.Fatal("the keyframe does not show")
	}
	if _, ok := in.KeyframeWanted(7 * time.Second); ok {
		t.Fatal("still asks")
	}
	in.Undecodable()
	if _, ok := in.KeyframeWanted(7 * time.Second); !ok {
		t.Fatal("the decoder failed, nobody asks")
	}
}

// A retransmission that comes within the hold time repairs the frame.
func TestRetransmission(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	s := vp8Source(5)
	pushAll(in, 0, s.frame(0, picture(true, 50, 1))...)
	missing := s.frame(3000, picture(false, 50, 2))
	pushAll(in, 66*ms, s.frame(6000, picture(false, 50, 3))...)
	pushAll(in, 110*ms, missing...)
	if got := frames(in); len(got) != 3 || got[1].Data[1] != 2 {
		t.Fatalf("%d frames", len(got))
	}
	if c := in.Counters(); c.Lost != 0 {
		t.Fatalf("%+v", c)
	}
}

// Repairs that come when they were given up cost the picture until a keyframe; so they are waited for longer, and soon cost nothing.
func TestRepairsAreWaitedForAsLongAsTheyTake(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{90 * ms, 130 * ms, 180 * ms} {
		sync := NewSync()
		in, s := New(video(), sync), vp8Source(5)
		var key bool
		var keyAt time.Duration
		var repairs [][]byte
		var repairAt time.Duration
		shown := map[bool]int{} // in the last 20 s or before
		const rate, length = 30, 40
		for i, now := 0, time.Duration(0); now < length*time.Second; now += ms {
			if keyAt > 0 && now >= keyAt {
				key, keyAt = true, 0
			}
			if now >= time.Duration(i)*time.Second/rate {
				packets := s.frame(uint32(i)*90000/rate, picture(key || i == 0, 50, byte(i)))
				switch {
				case i%15 == 14 && !key: // every half second one is lost, and comes so long after the next one
					repairs, repairAt = packets, now+time.Second/rate+took
				default:
					pushAll(in, now, packets...)
				}
				i, key = i+1, false
			}
			if repairs != nil && now >= repairAt {
				pushAll(in, now, repairs...)
				repairs = nil
			}
			in.Poll(now)
			if _, ok := in.KeyframeWanted(now); ok && keyAt == 0 {
				keyAt = now + 100*ms
			}
			for _, f := range frames(in) {
				if f.Due < now {
					t.Fatalf("a frame is %v late", now-f.Due)
				}
				shown[now >= (length-20)*time.Second]++
			}
		}
		t.Logf("repair after %v: delay %v, %d of %d pictures at first, then %d of %d", took, sync.Delay(), shown[false], (length-20)*rate, shown[true], 20*rate)
		if shown[true] < 20*rate-1 {
			t.Errorf("repair after %v: %d pictures of %d", took, shown[true], 20*rate)
		}
	}
}

func TestLipSync(t *testing.T) {
	t.Parallel()
	sync := NewSync()
	vi, ai := New(video(), sync), New(audio(), sync)
	v, a := vp8Source(5), &source{pt: 111, ssrc: 6}
	// The sender's clock is far from ours; video takes 80 ms, audio 30.
	capture := time.Hour
	vi.Report(wire.SenderReport{Input: 1, SSRC: 5, NTP: ntpOf(capture), RTP: 1_000_000}, 0)
	ai.Report(wire.SenderReport{Input: 2, SSRC: 6, NTP: ntpOf(capture), RTP: 500}, 0)
	var dueV, dueA []time.Duration
	for i := range 250 {
		at := time.Duration(i) * 20 * ms
		pushAll(ai, at+30*ms, a.frame(500+uint32(i)*960, []byte{1, 2})...)
		for _, f := range frames(ai) {
			dueA = append(dueA, f.Due)
		}
		pushAll(vi, at+80*ms, v.frame(1_000_000+uint32(i)*1800, picture(i == 0, 50, 1))...)
		for _, f := range frames(vi) {
			dueV = append(dueV, f.Due)
		}
	}
	if len(dueA) != 250 || len(dueV) != 250 {
		t.Fatalf("%d and %d", len(dueA), len(dueV))
	}
	for i := 10; i < 250; i++ {
		if d := dueA[i] - dueV[i]; d > 5*ms || d < -5*ms {
			t.Fatalf("at %d: audio %v, video %v", i, dueA[i], dueV[i])
		}
		if want := time.Duration(i)*20*ms + 30*ms + MinDelay; dueA[i]-want > 5*ms || want-dueA[i] > 5*ms {
			t.Fatalf("at %d: due %v, want %v", i, dueA[i], want)
		}
	}
	if !vi.Synced() || !ai.Synced() {
		t.Fatal("not synced")
	}
}

// Over five minutes of a clock that runs 200 ppm fast neither sync nor delay moves.
func TestDrift(t *testing.T) {
	t.Parallel()
	sync := NewSync()
	in := New(audio(), sync)
	a := &source{pt: 111, ssrc: 6}
	const ppm = 200
	worst := time.Duration(0)
	for i := range 15000 {
		sent := time.Duration(i) * 20 * ms
		if i%250 == 0 {
			in.Report(wire.SenderReport{SSRC: 6, NTP: ntpOf(sent + sent*ppm/1_000_000), RTP: uint32(i) * 960}, sent)
		}
		pushAll(in, sent+30*ms, a.frame(uint32(i)*960, []byte{1})...)
		for _, f := range frames(in) {
			if i > 100 {
				worst = max(worst, (f.Due - (sent + 30*ms + MinDelay)).Abs())
			}
		}
	}
	if worst > 8*ms {
		t.Fatalf("off by %v", worst)
	}
}

func TestPlaysBeforeTheFirstReport(t *testing.T) {
	t.Parallel()
	in := New(audio(), NewSync())
	a := &source{pt: 111, ssrc: 6}
	for i := range 50 {
		at := time.Duration(i)*20*ms + time.Second
		pushAll(in, at, a.frame(uint32(i)*960, []byte{1})...)
		for _, f := range frames(in) {
			if f.Due != at+MinDelay {
				t.Fatalf("due %v, came %v", f.Due, at)
			}
		}
	}
	if in.Synced() {
		t.Fatal("synced")
	}
}

// Another SSRC (a layer, a codec) takes over with its first keyframe, not before.
func TestStreamSwitch(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	low, high := vp8Source(5), vp8Source(6)
	pushAll(in, 0, low.frame(0, picture(true, 50, 1))...)
	pushAll(in, 33*ms, high.frame(0, picture(false, 50, 2))...)
	pushAll(in, 33*ms, low.frame(3000, picture(false, 50, 1))...)
	if got := frames(in); len(got) != 2 || got[1].Data[1] != 1 {
		t.Fatal("the old stream goes on")
	}
	if ssrc, ok := in.KeyframeWanted(40 * ms); !ok || ssrc != 6 {
		t.Fatalf("asks stream %d", ssrc)
	}
	pushAll(in, 66*ms, high.frame(3000, picture(true, 50, 2))...)
	pushAll(in, 66*ms, low.frame(6000, picture(true, 50, 1))...)
	pushAll(in, 99*ms, high.frame(6000, picture(false, 50, 2))...)
	got := frames(in)
	if len(got) != 2 || got[0].Data[1] != 2 || got[1].Data[1] != 2 || !got[0].Fresh {
		t.Fatalf("%d frames", len(got))
	}
	if in.Counters().Drops[DropInactive] != 1 {
		t.Fatalf("%+v", in.Counters())
	}
	// The new one falls silent: the old one may come back, with a keyframe.
	pushAll(in, 3*time.Second, low.frame(9000, picture(false, 50, 1))...)
	pushAll(in, 3*time.Second, low.frame(12000, picture(true, 50, 1))...)
	if got := frames(in); len(got) != 1 || !got[0].Key {
		t.Fatalf("%d frames", len(got))
	}
}

func TestCodecSwitchOnOneStream(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	s := vp8Source(5)
	pushAll(in, 0, s.frame(0, picture(true, 50, 1))...)
	s.pt, s.pay = 97, &codecs.H264Payloader{}
	pushAll(in, 33*ms, s.frame(3000, []byte{0, 0, 0, 1, 0x65, 1, 2, 3})...)
	got := frames(in)
	if len(got) != 2 || got[1].Codec != wire.H264 || !got[1].Fresh || in.Codec() != wire.H264 {
		t.Fatalf("%d frames", len(got))
	}
}

func TestAudioLoss(t *testing.T) {
	t.Parallel()
	in := New(audio(), NewSync())
	a := &source{pt: 111, ssrc: 6}
	pushAll(in, 0, a.frame(0, []byte{1})...)
	a.frame(960, nil)
	a.frame(1920, nil)
	pushAll(in, 60*ms, a.frame(2880, []byte{4})...)
	in.Poll(200 * ms)
	got := frames(in)
	if len(got) != 2 || got[1].Lost != 2 || got[1].Due-got[0].Due != 60*ms {
		t.Fatalf("%+v", got)
	}
}

func TestDropsHaveNames(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	in.Push([]byte{1, 2, 3}, 0)
	s := vp8Source(5)
	s.pt = 77
	pushAll(in, 0, s.frame(0, picture(true, 10, 1))...)
	s.pt = 96
	first := s.frame(0, picture(true, 10, 1))
	pushAll(in, 0, first...)
	pushAll(in, 0, first...)
	s.seq += 5000
	pushAll(in, 0, s.frame(3000, picture(true, 10, 1))...)
	for i := range uint32(20) {
		pushAll(in, 0, vp8Source(100+i).frame(0, picture(false, 10, 1))...)
	}
	c := in.Counters()
	for _, reason := range []string{DropMalformed, DropPayloadType, DropLate, DropJump, DropStreams, DropNoKeyframe} {
		if c.Drops[reason] == 0 {
			t.Errorf("no %s in %v", reason, c.Drops)
		}
	}
	if len(in.streams) > maxStreams {
		t.Errorf("%d streams", len(in.streams))
	}
	in.Close()
	if n := len(in.sync.members); n != 0 {
		t.Errorf("%d members left in the sync", n)
	}
}

// Streams that fell silent make room for new ones.
func TestStreamsComeAndGo(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	for i := range uint32(100) {
		now := time.Duration(i) * 2 * time.Second
		pushAll(in, now, vp8Source(i).frame(0, picture(true, 10, 1))...)
		if got := frames(in); len(got) != 1 {
			t.Fatalf("stream %d: %d frames", i, len(got))
		}
	}
}

// A frame that never ends takes no more than its limit.
func TestEndlessFrame(t *testing.T) {
	t.Parallel()
	in := New(video(), NewSync())
	s := &source{pt: 97, ssrc: 7}
	fu := append([]byte{0x7c, 0x85}, bytes.Repeat([]byte{1}, 1400)...) // FU-A, start, no end ever
	for i := range 2 * maxFrame / 1400 {
		b := s.frame(0, fu)[0]
		b[1] &^= 0x80 // no marker
		in.Push(b, time.Duration(i)*ms/10)
		fu[1] = 0x05
	}
	for _, st := range in.streams {
		if st.asm.size < maxFrame || !st.asm.broken || len(st.asm.frame.data) != 0 {
			t.Fatalf("%d bytes, broken %v", st.asm.size, st.asm.broken)
		}
	}
	pushAll(in, time.Second, s.frame(3000, []byte{0x65, 1, 2, 3})...)
	if got := frames(in); len(got) != 1 {
		t.Fatalf("%d frames after it", len(got))
	}
}

func BenchmarkVideo(b *testing.B) {
	in := New(video(), NewSync())
	s := vp8Source(5)
	s.pay = &codecs.VP8Payloader{}
	now := time.Duration(0)
	ts := uint32(0)
	pushAll(in, 0, s.frame(0, picture(true, 100, 1))...)
	b.ReportAllocs()
	for b.Loop() {
		now += 33 * ms
		ts += 3000
		pushAll(in, now, s.frame(ts, picture(false, 90, 1))...)
		if len(frames(in)) == 0 {
			b.Fatal("no frame")
		}
	}
}

func FuzzInput(f *testing.F) {
	s := vp8Source(5)
	var seed []byte
	for _, p := range append(s.frame(0, picture(true, 250, 1)), s.frame(3000, picture(false, 50, 2))...) {
		seed = append(append(seed, byte(len(p))), p...)
	}
	f.Add(seed)
	h := &source{pt: 97, ssrc: 7, pay: &codecs.H264Payloader{}}
	f.Add(append([]byte{40}, h.frame(0, bytes.Repeat([]byte{0, 0, 1, 0x65}, 10))[0]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		add := video()
		add.Formats = append(add.Formats, wire.Format{PayloadType: 98, Codec: wire.VP9, ClockRate: 90000}, wire.Format{PayloadType: 99, Codec: wire.AV1, ClockRate: 90000})
		in := New(add, NewSync())
		now := time.Duration(0)
		for len(b) > 1 {
			n := min(int(b[0]), len(b)-1)
			in.Push(bytes.Clone(b[1:1+n]), now)
			b = b[1+n:]
			now += 7 * ms
			in.Poll(now)
			for _, f := range frames(in) {
				if len(f.Data) == 0 || len(f.Data) > maxFrame {
					t.Fatalf("frame of %d bytes", len(f.Data))
				}
			}
			in.KeyframeWanted(now)
			if at, ok := in.Deadline(); ok && at <= now {
				t.Fatal(fmt.Sprint("deadline in the past: ", at, now))
			}
		}
		if len(in.streams) > maxStreams {
			t.Fatal("too many streams")
		}
	})
}
