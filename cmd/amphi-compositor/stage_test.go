//go:build cgo

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// stage is a program in a process of its own, driven as a node would.
type stage struct {
	exited chan struct{} // closed when the process has ended
	t      testing.TB
	start  wire.Start
	epoch  time.Time
	conn   net.Conn
	cmd    *exec.Cmd
	ready  chan struct{}
	ended  chan struct{}
	err    chan error // of the process

	mu       sync.Mutex // guards the fields below
	video    [][]wire.VideoAU
	audio    []wire.AudioAU
	came     []time.Duration // arrival of variant 0, since the epoch
	heard    []time.Duration // arrival of audio
	stats    *wire.Stats
	answer   *wire.Ready
	requests map[uint32]int
}

func ladder(n int) []wire.Variant {
	return []wire.Variant{
		{Name: "720p", Width: 1280, Height: 720, Bitrate: 2_500_000},
		{Name: "480p", Width: 854, Height: 480, Bitrate: 1_000_000},
		{Name: "360p", Width: 640, Height: 360, Bitrate: 600_000},
	}[:n]
}

// startStage spawns a compositor. name is its program, the test binary when empty; wrap is a command that runs it.
func startStage(t testing.TB, name string, s wire.Start, wrap ...string) *stage {
	t.Helper()
	conn, child, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	st := &stage{
		t: t, start: s, epoch: time.Unix(0, s.EpochNS), conn: conn, video: make([][]wire.VideoAU, len(s.Variants)),
		ready: make(chan struct{}), ended: make(chan struct{}), err: make(chan error, 1), requests: make(map[uint32]int),
	}
	if name == "" {
		name = os.Args[0]
	}
	wrap = append(wrap, name)
	st.cmd = exec.Command(wrap[0], wrap[1:]...)
	st.cmd.Env = append(os.Environ(), childEnv+"=1")
	st.cmd.ExtraFiles = []*os.File{child}
	st.cmd.Stderr = os.Stderr
	if err := st.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = child.Close()
	st.exited = make(chan struct{})
	go func() {
		defer close(st.exited)
		st.err <- st.cmd.Wait()
	}()
	go st.watch()
	t.Cleanup(st.stop)
	b, err := wire.AppendStart(nil, &s)
	if err != nil {
		t.Fatal(err)
	}
	st.write(b)
	return st
}

// newStart is a program whose epoch is now.
func newStart(variants int) wire.Start {
	return wire.Start{
		EpochNS: time.Now().UnixNano(), Width: 1280, Height: 720, FPS: 30, GOPTicks: 60, PartTicks: 15,
		Variants: ladder(variants), AudioBitrate: 128_000,
	}
}

func (st *stage) stop() {
	_ = st.conn.Close()
	select {
	case <-st.ended:
	case <-time.After(10 * time.Second):
		st.t.Error("the reader did not end")
	}
	select {
	case <-st.exited:
	case <-time.After(10 * time.Second):
		_ = st.cmd.Process.Kill()
		<-st.exited
		st.t.Error("the process had to be killed")
	}
}

// exit closes the node's end and returns how the process ended.
func (st *stage) exit() error {
	_ = st.conn.Close()
	select {
	case err := <-st.err:
		return err
	case <-time.After(10 * time.Second):
		_ = st.cmd.Process.Kill()
		return fmt.Errorf("still running 10 s after EOF")
	}
}

func (st *stage) write(b []byte) {
	_, err := st.conn.Write(b)
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EPIPE) { // peers may outlive the program
		st.t.Logf("writing to the compositor: %v", err)
	}
}

func (st *stage) watch() {
	defer close(st.ended)
	r := wire.NewReader(st.conn)
	for {
		f, err := r.Next()
		if err != nil {
			return
		}
		if err := st.take(f); err != nil {
			st.t.Errorf("from the compositor: %v", err)
			return
		}
	}
}

func (st *stage) take(f wire.Frame) error {
	now := time.Since(st.epoch)
	st.mu.Lock()
	defer st.mu.Unlock()
	switch f.Type {
	case wire.TypeReady:
		r, err := f.Ready()
		st.answer = r
		close(st.ready)
		return err
	case wire.TypeVideoAU:
		au, err := f.VideoAU()
		au.Data = append([]byte(nil), au.Data...)
		st.video[au.Variant] = append(st.video[au.Variant], au)
		if au.Variant == 0 {
			st.came = append(st.came, now)
		}
		return err
	case wire.TypeAudioAU:
		au, err := f.AudioAU()
		au.Data = append([]byte(nil), au.Data...)
		st.audio = append(st.audio, au)
		st.heard = append(st.heard, now)
		return err
	case wire.TypeStats:
		s, err := f.Stats()
		st.stats = s
		return err
	case wire.TypeKeyframeRequest:
		q, err := f.KeyframeRequest()
		st.requests[q.Input]++
		return err
	}
	return fmt.Errorf("frame type %d", f.Type)
}

func (st *stage) scene(tiles ...wire.Tile) {
	b, err := wire.AppendScene(nil, &wire.Scene{Background: "#101418", Tiles: tiles})
	if err != nil {
		st.t.Fatal(err)
	}
	st.write(b)
}

// quarter is tile i of a grid of four on 1280×720.
func quarter(i int, input uint32) wire.Tile {
	return wire.Tile{Input: input, X: i % 2 * 640, Y: i / 2 * 360, W: 640, H: 360, Label: fmt.Sprintf("Peer %d", i+1),
		Placeholder: wire.Placeholder{Initials: fmt.Sprint(i + 1), Colour: "#884422"}}
}

func (st *stage) mix(inputs ...uint32) {
	var m wire.AudioMix
	for _, in := range inputs {
		m.Inputs = append(m.Inputs, wire.Gain{Input: in, Gain: 1})
	}
	b, err := wire.AppendAudioMix(nil, &m)
	if err != nil {
		st.t.Fatal(err)
	}
	st.write(b)
}

// peer is one sender: inputs id (video) and id+1000 (audio).
type peer struct {
	st     *stage
	id     uint32
	clip   *clip
	loss   float64
	jitter time.Duration
	// clock is how much slower than the node's the peer's clock runs, device how much slower than that its sound card.
	clock, device float64
	cancel        context.CancelFunc
	done          sync.WaitGroup
}

func (st *stage) announce(id uint32) {
	b, err := wire.AppendAddInput(nil, &wire.AddInput{ID: id, Kind: wire.Video, Sync: fmt.Sprint(id), Formats: []wire.Format{
		{PayloadType: 96, Codec: wire.VP8, ClockRate: 90000}, {PayloadType: 97, Codec: wire.H264, ClockRate: 90000}, {PayloadType: 98, Codec: wire.VP9, ClockRate: 90000},
		{PayloadType: 99, Codec: wire.AV1, ClockRate: 90000},
	}})
	if err != nil {
		st.t.Fatal(err)
	}
	b, err = wire.AppendAddInput(b, &wire.AddInput{ID: id + 1000, Kind: wire.Audio, Sync: fmt.Sprint(id), Formats: []wire.Format{
		{PayloadType: 111, Codec: wire.Opus, ClockRate: 48000},
	}})
	if err != nil {
		st.t.Fatal(err)
	}
	st.write(b)
}

func (st *stage) remove(id uint32) {
	st.write(wire.AppendRemoveInput(wire.AppendRemoveInput(nil, id), id+1000))
}

// send makes a peer that sends its clip until stopped: content is a function of the wall
// clock, so that all peers and all lives show the same frame number at one time.
func (st *stage) send(id uint32, c *clip, loss float64, jitter time.Duration) *peer {
	return st.run(&peer{st: st, id: id, clip: c, loss: loss, jitter: jitter})
}

// run lets a peer send until stopped.
func (st *stage) run(p *peer) *peer {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.done.Go(func() { p.sendVideo(ctx) })
	p.done.Go(func() { p.sendAudio(ctx) })
	st.t.Cleanup(p.stop)
	return p
}

func (p *peer) stop() {
	p.cancel()
	p.done.Wait()
}

func (p *peer) until(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// wall is the time at which the peer's clock says that d has passed since the epoch.
func (p *peer) wall(d time.Duration) time.Time {
	return p.st.epoch.Add(d + time.Duration(p.clock*float64(d)))
}

func ntp(t time.Time) uint64 {
	return uint64(t.Unix()+2208988800)<<32 | uint64(t.Nanosecond())<<32/1e9
}

func (p *peer) packet(input uint32, h rtp.Header, payload []byte) {
	if rand.Float64() < p.loss {
		return
	}
	b, err := wire.AppendRTP(nil, input, wire.RTPHeader{
		PayloadType: h.PayloadType, Marker: h.Marker, SequenceNumber: h.SequenceNumber, Timestamp: h.Timestamp, SSRC: h.SSRC,
	}, payload)
	if err != nil {
		p.st.t.Error(err)
	}
	p.st.write(b)
}

func (p *peer) report(input, ssrc, ts uint32, at time.Time) {
	p.st.write(wire.AppendSenderReport(nil, wire.SenderReport{Input: input, SSRC: ssrc, NTP: ntp(at), RTP: ts}))
}

func (p *peer) sendVideo(ctx context.Context) {
	var pay rtp.Payloader
	pt := uint8(96)
	switch p.clip.codec {
	case "vp8":
		pay = &codecs.VP8Payloader{EnablePictureID: true}
	case "vp9":
		pay, pt = &codecs.VP9Payloader{}, 98
	case "av1":
		pay, pt = &codecs.AV1Payloader{}, 99
	case "h264":
		pay, pt = &codecs.H264Payloader{}, 97
	}
	ssrc, ts0, seq := rand.Uint32(), rand.Uint32(), uint16(rand.Uint32())
	first := int64(time.Since(p.st.epoch)*30/time.Second) + 1
	first = (first + clipGOP - 1) / clipGOP * clipGOP // on a keyframe
	for n := first; ; n++ {
		since := time.Duration(n) * time.Second / 30
		captured, at := p.st.epoch.Add(since), p.wall(since)
		if p.jitter > 0 {
			at = at.Add(rand.N(p.jitter))
		}
		if !p.until(ctx, at) {
			return
		}
		ts := ts0 + uint32(n*3000)
		if (n-first)%30 == 0 {
			p.report(p.id, ssrc, ts, captured)
		}
		payloads := pay.Payload(1150, p.clip.video[n%clipFrames])
		for i, pl := range payloads {
			p.packet(p.id, rtp.Header{PayloadType: pt, Marker: i == len(payloads)-1, SequenceNumber: seq, Timestamp: ts, SSRC: ssrc}, pl)
			seq++
		}
	}
}

func (p *peer) sendAudio(ctx context.Context) {
	ssrc, ts0, seq := rand.Uint32(), rand.Uint32(), uint16(rand.Uint32())
	first := int64(time.Since(p.st.epoch)/(20*time.Millisecond)) + 1
	for n := first; ; n++ {
		since := time.Duration(n) * 20 * time.Millisecond
		since += time.Duration(p.device * float64(since))
		captured := p.st.epoch.Add(since)
		if !p.until(ctx, p.wall(since+20*time.Millisecond)) {
			return
		}
		ts := ts0 + uint32(n*960)
		if (n-first)%50 == 0 {
			// The codec's look-ahead of 312 samples: what is decoded at ts was captured earlier.
			p.report(p.id+1000, ssrc, ts, captured.Add(-312*time.Second/48000))
		}
		p.packet(p.id+1000, rtp.Header{PayloadType: 111, SequenceNumber: seq, Timestamp: ts, SSRC: ssrc}, p.clip.audio[n%clipPackets])
		seq++
	}
}

// forget drops what the program gave before the last keyframe.
func (st *stage) forget() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for v, aus := range st.video {
		for i := len(aus) - 1; i > 0; i-- {
			if aus[i].Key {
				st.video[v] = append([]wire.VideoAU(nil), aus[i:]...)
				if v == 0 {
					st.came = append([]time.Duration(nil), st.came[i:]...)
				}
				break
			}
		}
	}
	keep := min(len(st.audio), 150)
	st.audio = append([]wire.AudioAU(nil), st.audio[len(st.audio)-keep:]...)
	st.heard = append([]time.Duration(nil), st.heard[len(st.heard)-keep:]...)
}

// first waits for Ready and returns the program's first tick.
func (st *stage) first() int64 {
	st.t.Helper()
	select {
	case <-st.ready:
	case <-time.After(10 * time.Second):
		st.t.Fatal("not ready after 10 s")
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.answer.FirstTick
}

// wait lets the program run until its tick n is out.
func (st *stage) wait(n int64) {
	st.t.Helper()
	deadline := time.After(time.Duration(n)*time.Second/30 - time.Since(st.epoch) + 20*time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		st.mu.Lock()
		v := st.video[0]
		reached := len(v) > 0 && v[len(v)-1].Tick >= n
		st.mu.Unlock()
		if reached {
			return
		}
		select {
		case <-tick.C:
		case <-st.ended:
			st.t.Fatalf("the program ended before tick %d", n)
		case <-deadline:
			st.t.Fatalf("tick %d did not come", n)
		}
	}
}

// adts wraps AAC for a decoder that wants a file.
func adts(aus []wire.AudioAU) (out []byte) {
	for _, au := range aus {
		n := len(au.Data) + 7
		h := []byte{0xff, 0xf1, 1<<6 | 3<<2, 2<<6 | byte(n>>11), 0, 0, 0xfc}
		binary.BigEndian.PutUint16(h[4:], uint16(n<<5)|0x1f)
		out = append(append(out, h...), au.Data...)
	}
	return out
}
