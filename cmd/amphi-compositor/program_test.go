//go:build cgo

package main

import (
	"image"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/hls/wire"
)

func looks(i int) look {
	return []look{{90, 90, 200, 600}, {120, 200, 90, 900}, {150, 60, 110, 1300}}[i]
}

func (l look) colour() av.YUV { return av.YUV{Y: l.y, U: l.u, V: l.v} }

// clips are made once, before any clock runs: encoding them takes all there is.
type clips struct{ vp8, h264, vp9, av1 *clip }

// TestProgram drives a compositor process with real RTP. Its parts run one after the
// other: each needs the time to be its own.
func TestProgram(t *testing.T) {
	c := clips{
		vp8:  makeClip(t, "vp8", 640, 360, looks(0)),
		h264: makeClip(t, "h264", 640, 360, looks(1)),
		vp9:  makeClip(t, "vp9", 320, 180, looks(2)),
		av1:  makeClip(t, "av1", 320, 180, looks(2)),
	}
	for _, part := range []struct {
		name string
		f    func(*testing.T, clips)
	}{
		{"peers", testPeers},
		{"joins, leaves, crashes, codec switches", testDynamics},
		{"looks and fades", testLooks},
		{"hostile streams", testHostile},
		{"kill and respawn", testRespawn},
		{"under a node", testUnderNode},
		{"starved of time", testStarved},
		{"forced keyframe", testForced},
		{"openh264", testOpenH264},
		{"refused messages", testRefused},
		{"nonsense from the node", testNonsense},
	} {
		t.Run(part.name, func(t *testing.T) { part.f(t, c) })
	}
}

// testPeers is the plain case: pixels of each tile, lip sync, no gap.
func testPeers(t *testing.T, c clips) {
	st := startStage(t, "", newStart(2))
	var tiles []wire.Tile
	var rects []image.Rectangle
	for i, clip := range []*clip{c.vp8, c.h264, c.vp9} {
		id := uint32(i + 1)
		tiles = append(tiles, quarter(i, id))
		rects = append(rects, tileRect(tiles[i]))
		st.announce(id)
		st.send(id, clip, 0, 0)
	}
	empty := quarter(3, 0)
	st.scene(append(tiles, empty)...)
	st.mix(1001, 1002, 1003)
	end := st.first() + 210
	st.wait(end)
	st.continuous()
	pcm, from := st.pcm()
	for v := range 2 {
		s := st.look(v, append(rects, tileRect(empty))...)
		if g := last(s[3].ground); near(g, av.YUV{Y: 16, U: 128, V: 128}) {
			t.Errorf("variant %d: no placeholder in the empty tile: %v", v, g)
		}
		if v == 0 {
			report(t, st, s, end-150, end)
		}
		for i := range rects {
			m := s[i].motion(end-150, end)
			if m.blank > 0 || m.longest > stuck {
				t.Errorf("variant %d, tile %d: %+v", v, i+1, m)
			}
			// The playout delay is 120 ms; a tick may round it up.
			if ages := s[i].ages(); ages[len(ages)/2] < 100*time.Millisecond || ages[len(ages)/2] > 200*time.Millisecond {
				t.Errorf("variant %d, tile %d: shown %v after capture", v, i+1, ages[len(ages)/2])
			}
			if g := last(s[i].ground); !near(g, looks(i).colour()) {
				t.Errorf("variant %d, tile %d: colour %v, want %v", v, i+1, g, looks(i).colour())
			}
			offsets := s[i].offsets(beepStarts(pcm, from, looks(i).beep))
			if len(offsets) < 3 {
				t.Errorf("variant %d, tile %d: %d beeps", v, i+1, len(offsets))
				continue
			}
			t.Logf("variant %d, tile %d: audio − video %.1f…%.1f ms over %d beeps", v, i+1, offsets[0]*1000, last(offsets)*1000, len(offsets))
			if mid := offsets[len(offsets)/2]; mid < -0.045 || mid > 0.045 {
				t.Errorf("variant %d, tile %d: audio − video %.1f ms", v, i+1, mid*1000)
			}
		}
	}
	if err := st.exit(); err != nil {
		t.Errorf("after EOF: %v", err)
	}
}

func last[T any](s []T) T { return s[len(s)-1] }

// testDynamics lets a second and third peer do all that peers do, and watches the first.
func testDynamics(t *testing.T, c clips) {
	st := startStage(t, "", newStart(1))
	first := st.first()
	calm, wild, lossy := quarter(0, 1), quarter(1, 2), quarter(2, 3)
	all := func() {
		st.scene(calm, wild, lossy)
		st.mix(1001, wild.Input+1000, 1003)
	}
	st.announce(1)
	st.send(1, c.vp8, 0, 0)
	st.announce(3)
	st.send(3, c.h264, 0.01, 30*time.Millisecond)
	st.announce(2)
	p := st.send(2, c.vp9, 0, 0)
	all()
	st.wait(first + 75)
	p.stop() // switches codec and SSRC on the same input
	p = st.send(2, c.h264, 0, 0)
	st.wait(first + 135)
	p.stop() // crashes: nothing more, and nobody says so
	silent := first + 140
	st.wait(first + 255)
	st.remove(2)
	for i := range 10 { // comes and goes
		id := uint32(10 + i)
		wild.Input = id
		st.announce(id)
		all()
		p = st.send(id, c.vp9, 0, 0)
		st.wait(first + 260 + int64(i)*6)
		p.stop()
		st.remove(id)
		if i%2 == 0 {
			st.scene(calm, lossy) // the tile goes as well
		}
	}
	wild.Input = 99
	st.announce(99)
	st.send(99, c.av1, 0, 0)
	all()
	end := first + 400
	st.wait(end)
	st.continuous()
	s := st.look(0, tileRect(calm), tileRect(wild), tileRect(lossy))
	report(t, st, s, first+60, end)
	if m := s[0].motion(first+60, end); m.blank > 0 || m.longest > stuck {
		t.Errorf("the calm tile: %+v", m)
	}
	if m := s[1].motion(silent+110, silent+116); m.blank == 0 {
		t.Errorf("no placeholder for a silent peer: %+v", m)
	}
	if m := s[1].motion(first+345, end); last(s[1].frames) < 0 {
		t.Errorf("the peer that came back: %+v", m)
	}
	if g := last(s[1].ground); !near(g, looks(2).colour()) {
		t.Errorf("the tile of the peer that came back: %v", g)
	}
	if m := s[2].motion(first+60, end); m.pictures-m.frozen-m.blank < m.pictures/4 {
		t.Errorf("the lossy tile: %+v", m)
	}
	if err := st.exit(); err != nil {
		t.Errorf("after EOF: %v", err)
	}
}

// testHostile feeds garbage and broken streams on inputs of their own.
func testHostile(t *testing.T, c clips) {
	st := startStage(t, "", newStart(1))
	first := st.first()
	st.announce(1)
	st.send(1, c.vp8, 0, 0)
	st.announce(2)
	st.announce(3)
	st.scene(quarter(0, 1), quarter(1, 2), quarter(2, 3))
	st.mix(1001, 1002, 1003)
	rng := rand.New(rand.NewPCG(1, 2))
	p := &peer{st: st}
	for seq := range uint16(900) {
		if seq%30 == 0 {
			st.wait(first + 30 + int64(seq)/10)
		}
		pt := uint8(96 + rng.IntN(4))
		src := [][][]byte{c.vp8.video, c.h264.video, c.vp9.video, c.av1.video}[pt-96][rng.IntN(clipFrames)]
		b := append([]byte(nil), src[:min(len(src), 1100)]...)
		if len(b) > 8 {
			for range rng.IntN(6) {
				b[4+rng.IntN(len(b)-4)] ^= byte(1 << rng.IntN(8))
			}
		}
		head := [][]byte{{0x10}, nil, {0x08}, {0x18}}[pt-96] // as the first packet of a frame
		if pt == 97 {
			for len(b) > 4 && (b[0] == 0 || b[0] == 1) {
				b = b[1:] // start codes don't travel
			}
		}
		p.packet(2, rtp.Header{PayloadType: pt, Marker: true, SequenceNumber: seq, Timestamp: uint32(seq) * 3000, SSRC: uint32(pt)}, append(head, b...))
		junk := make([]byte, rng.IntN(600))
		for i := range junk {
			junk[i] = byte(rng.Uint32())
		}
		p.packet(1002, rtp.Header{PayloadType: 111, SequenceNumber: seq, Timestamp: uint32(seq) * 960, SSRC: 9}, junk)
		p.packet(3, rtp.Header{PayloadType: uint8(rng.IntN(128)), Marker: rng.IntN(2) == 0, SequenceNumber: uint16(rng.Uint32()), Timestamp: rng.Uint32(), SSRC: uint32(rng.IntN(40))}, junk)
		st.write(wire.AppendSenderReport(nil, wire.SenderReport{Input: 2, SSRC: 97, NTP: rng.Uint64(), RTP: rng.Uint32()}))
	}
	end := first + 180
	st.wait(end)
	st.continuous()
	s := st.look(0, tileRect(quarter(0, 1)))
	report(t, st, s, first+60, end)
	if m := s[0].motion(first+75, end); m.blank > 0 || m.longest > stuck {
		t.Errorf("the good tile: %+v", m)
	}
	st.mu.Lock()
	if st.requests[2] == 0 {
		t.Error("no keyframe was asked of a broken stream")
	}
	st.mu.Unlock()
	if err := st.exit(); err != nil {
		t.Errorf("after EOF: %v", err)
	}
}

// testRespawn kills the process and goes on with another one, as the node does.
func testRespawn(t *testing.T, c clips) {
	one := startStage(t, "", newStart(1))
	one.announce(1)
	one.scene(quarter(0, 1))
	p := one.send(1, c.vp8, 0, 0)
	one.wait(one.first() + 40)
	p.stop()
	if err := one.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-one.ended
	one.mu.Lock()
	reached := last(one.video[0]).Tick
	one.mu.Unlock()

	start := one.start
	start.FirstTick = reached + 1
	spawned := time.Now()
	two := startStage(t, "", start)
	two.announce(1)
	two.scene(quarter(0, 1))
	two.send(1, c.vp8, 0, 0)
	first := two.first()
	two.wait(first)
	took := time.Since(spawned)
	t.Logf("killed at tick %d, respawned: first tick %d, first picture %v after spawn", reached, first, took)
	if took > 2*time.Second { // the target is 1 s; a shared machine gets some room
		t.Errorf("first picture %v after spawn", took)
	}
	if first <= reached || first%int64(start.PartTicks) != 0 {
		t.Errorf("first tick %d after %d", first, reached)
	}
	two.wait(first + 75)
	two.continuous()
	two.mu.Lock()
	if at := two.answer.FirstSample; at != two.audio[0].Samples || at < first*1600 || at%1024 != 0 {
		t.Errorf("audio begins at %d, announced %d, picture at %d", two.audio[0].Samples, at, first*1600)
	}
	two.mu.Unlock()
	if m := two.look(0, tileRect(quarter(0, 1)))[0].motion(first+60, first+75); m.blank > 0 {
		t.Errorf("the tile after the respawn: %+v", m)
	}
}

// testStarved stops the process for a while: it comes back to the present, and a
// keyframe that was due meanwhile is made up for.
func testStarved(t *testing.T, c clips) {
	st := startStage(t, "", newStart(1))
	st.announce(1)
	st.scene(quarter(0, 1))
	st.send(1, c.vp8, 0, 0)
	first := st.first()
	st.wait((first/60+1)*60 + 40) // two thirds of a GOP
	_ = st.cmd.Process.Signal(syscall.SIGSTOP)
	timer := time.NewTimer(1500 * time.Millisecond)
	<-timer.C
	_ = st.cmd.Process.Signal(syscall.SIGCONT)
	now := int64(time.Since(st.epoch) * 30 / time.Second)
	st.wait(now + 45)
	st.mu.Lock()
	defer st.mu.Unlock()
	gaps, key := 0, false
	for i := 1; i < len(st.video[0]); i++ {
		if a, b := st.video[0][i-1], st.video[0][i]; b.Tick != a.Tick+1 {
			gaps++
			key = b.Key
		}
	}
	if gaps == 0 || !key {
		t.Errorf("%d gaps, key %v", gaps, key)
	}
	if lag := last(st.came) - time.Duration(last(st.video[0]).Tick)*time.Second/30; lag > 300*time.Millisecond {
		t.Errorf("%v behind after the pause", lag)
	}
	for i := 1; i < len(st.audio); i++ { // sound is cheap: nothing of it is left out
		if st.audio[i].Samples != st.audio[i-1].Samples+1024 {
			t.Errorf("audio %d after %d", st.audio[i].Samples, st.audio[i-1].Samples)
		}
	}
}

func testForced(t *testing.T, _ clips) {
	st := startStage(t, "", newStart(2))
	first := st.first()
	off := (first/60)*60 + 75
	st.wait(off)
	st.write(wire.AppendForceKeyframe(nil))
	st.wait(off + 10)
	_ = st.cmd.Process.Signal(syscall.SIGTERM) // some stop it this way
	select {
	case err := <-st.err:
		if err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still running 10 s after SIGTERM")
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for v, aus := range st.video {
		n := 0
		for _, au := range aus[1:] {
			if au.Key && au.Tick%60 != 0 {
				n++
			}
		}
		if n != 1 {
			t.Errorf("variant %d: %d keyframes off the grid", v, n)
		}
	}
}

// testOpenH264 runs where this build has that encoder; where not, the program must say so and end.
func testOpenH264(t *testing.T, c clips) {
	start := newStart(2)
	start.Encoder = "openh264"
	st := startStage(t, "", start)
	select {
	case err := <-st.err:
		if err == nil {
			t.Error("ended without an error")
		}
		t.Skip("not in this build: use -tags openh264")
	case <-st.ready:
	}
	st.announce(1)
	st.scene(quarter(0, 1))
	st.send(1, c.vp8, 0, 0)
	first := st.first()
	st.wait(first + 120)
	st.continuous()
	for v := range 2 {
		s := st.look(v, tileRect(quarter(0, 1)))
		if m := s[0].motion(first+60, first+120); m.blank > 0 || m.longest > stuck || !near(last(s[0].ground), looks(0).colour()) {
			t.Errorf("variant %d: %+v, colour %v", v, m, last(s[0].ground))
		}
	}
}

// testRefused sends control messages that can't be obeyed: what was before stays.
func testRefused(t *testing.T, c clips) {
	st := startStage(t, "", newStart(1))
	first := st.first()
	st.announce(1)
	st.scene(quarter(0, 1))
	st.send(1, c.vp8, 0, 0)
	st.wait(first + 60)
	for _, typ := range []wire.Type{wire.TypeScene, wire.TypeAudioMix, wire.TypeAddInput} {
		st.write([]byte{0, 0, 0, 2, byte(typ), '{'})
	}
	st.announce(1) // twice
	st.write(wire.AppendRemoveInput(nil, 4711))
	st.wait(first + 90)
	if d := st.figures().Drops; d["control_refused"] != 3 || d["duplicate_input"] != 2 {
		t.Errorf("drops %v", d)
	}
	if m := st.look(0, tileRect(quarter(0, 1)))[0].motion(first+60, first+90); m.blank > 0 {
		t.Errorf("the tile: %+v", m)
	}
	st.continuous()
}

// testNonsense sends what no node would: the process ends with an error instead of going on.
func testNonsense(t *testing.T, _ clips) {
	for name, b := range map[string][]byte{
		"no Start":     wire.AppendForceKeyframe(nil),
		"unknown type": {0, 0, 0, 1, 99},
		"wrong way":    wire.AppendKeyframeRequest(nil, wire.KeyframeRequest{}),
		"cut packet":   {0, 0, 0, 2, byte(wire.TypeRTP), 1},
	} {
		st := startStage(t, "", newStart(1))
		if name == "no Start" {
			st.write(b) // a second Start would do as well
			st.write([]byte{0, 0, 0, 3, byte(wire.TypeStart), '{', '}'})
		} else {
			st.first()
			st.write(b)
		}
		select {
		case err := <-st.err:
			if err == nil {
				t.Errorf("%s: ended without an error", name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: goes on", name)
		}
	}
}
