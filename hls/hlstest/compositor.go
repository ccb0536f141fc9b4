package hlstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// Compositor is a fake: it obeys Start, sends the clip tick by tick in time, and
// misbehaves as told. The zero value behaves.
type Compositor struct {
	// StopTick is a tick, counted from its first one, after which it falls silent (but
	// goes on reading). 0: never.
	StopTick int64
	// ExitTick is a tick, counted from its first one, after which it ends. 0: never.
	ExitTick int64
	// Deaf: reads nothing after Start.
	Deaf bool
	// Mute: says nothing at all, not even Ready.
	Mute bool
	// IgnoreEOF: does not end when the node hangs up.
	IgnoreEOF bool
	// Rubbish: sends a frame that no node understands.
	Rubbish bool
	// KeyframeRequests: asks for a keyframe of each new video input.
	KeyframeRequests bool
	// Overload that it reports, as in wire.Stats. It goes on sending every tick.
	Overload int
}

// EnvName is the environment variable that Main looks for.
const EnvName = "AMPHI_FAKE_COMPOSITOR"

// Env is what makes a process that calls Main run c.
func (c *Compositor) Env() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // bools and numbers
	}
	return EnvName + "=" + string(b)
}

// Main runs the fake on the descriptor of a compositor and ends the process, when the
// environment says so; else it returns at once. To be called by TestMain, so that a
// test binary can be its own compositor.
func Main() {
	v := os.Getenv(EnvName)
	if v == "" {
		return
	}
	var c Compositor
	if err := json.Unmarshal([]byte(v), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	f := os.NewFile(wire.FD, "node")
	conn, err := net.FileConn(f)
	if err == nil {
		_ = f.Close()
		err = c.Run(conn)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake compositor:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Run speaks on conn until the other end closes it.
func (c *Compositor) Run(conn net.Conn) error {
	clip, err := Load()
	if err != nil {
		return err
	}
	r := wire.NewReader(conn)
	f, err := r.Next()
	if err != nil {
		return err
	}
	start, err := f.Start()
	if err != nil {
		return err
	}
	s := sender{c: c, clip: clip, conn: conn, start: start, stop: make(chan struct{}), stats: wire.Stats{Overload: c.Overload, Inputs: []wire.InputStats{}}}
	var wg sync.WaitGroup
	wg.Go(func() {
		s.run()
		if c.ExitTick > 0 {
			_ = conn.Close() // ends the reader below
		}
	})
	if !c.Deaf {
		err = s.read(r)
	} else {
		<-s.stop
	}
	if c.IgnoreEOF {
		select {}
	}
	s.end()
	_ = conn.Close()
	wg.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// sender is the running fake.
type sender struct {
	c     *Compositor
	clip  *Clip
	conn  net.Conn
	start *wire.Start
	once  sync.Once
	stop  chan struct{}

	mu    sync.Mutex // guards the fields below
	stats wire.Stats
	asks  []uint32
	idle  wire.Idle
}

func (s *sender) end() { s.once.Do(func() { close(s.stop) }) }

// read keeps count of what the node says; the counts go out with the statistics.
func (s *sender) read(r *wire.Reader) error {
	for {
		f, err := r.Next()
		if err != nil {
			return err
		}
		if err := s.note(f); err != nil {
			return err
		}
	}
}

func (s *sender) note(f wire.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f.Type {
	case wire.TypeAddInput:
		in, err := f.AddInput()
		if err != nil {
			return err
		}
		s.stats.Inputs = append(s.stats.Inputs, wire.InputStats{Input: in.ID, Name: in.Name, Codec: in.Formats[0].Codec})
		if in.Kind == wire.Video && s.c.KeyframeRequests {
			s.asks = append(s.asks, in.ID)
		}
	case wire.TypeRemoveInput:
		id, err := f.RemoveInput()
		if err != nil {
			return err
		}
		for i := range s.stats.Inputs {
			if s.stats.Inputs[i].Input == id {
				s.stats.Inputs = append(s.stats.Inputs[:i], s.stats.Inputs[i+1:]...)
				break
			}
		}
	case wire.TypeRTP:
		p, err := f.RTP()
		if err != nil {
			return err
		}
		for i := range s.stats.Inputs {
			if s.stats.Inputs[i].Input == p.Input {
				s.stats.Inputs[i].Packets++
			}
		}
	case wire.TypeScene:
		sc, err := f.Scene()
		if err != nil {
			return err
		}
		s.stats.PaintNS = int64(len(sc.Tiles)) // how a test sees the scene
	case wire.TypeIdle:
		idle, err := f.Idle()
		if err != nil {
			return err
		}
		s.idle = idle
	case wire.TypeAudioMix:
		m, err := f.AudioMix()
		if err != nil {
			return err
		}
		s.stats.MixNS = int64(len(m.Inputs))
	}
	return nil
}

// run sends until stopped or until the socket closes.
func (s *sender) run() {
	defer s.end()
	if s.c.Mute {
		<-s.stop
		return
	}
	if s.c.Rubbish {
		_, _ = s.conn.Write([]byte{0, 0, 0, 1, 255}) // the node hangs up
		<-s.stop
		return
	}
	epoch := time.Unix(0, s.start.EpochNS)
	tick := time.Second / time.Duration(s.start.FPS)
	now := int64(time.Since(epoch)/tick) + 1
	part := int64(s.start.PartTicks)
	first := (max(now, s.start.FirstTick) + part - 1) / part * part
	perTick := int64(48000 / s.start.FPS)
	if !s.ready(first, first*perTick) {
		return
	}
	sample := first * perTick
	lastKey := first
	for t := first; ; t++ {
		if !s.until(epoch.Add(time.Duration(t-first)*tick + time.Duration(first)*time.Second/time.Duration(s.start.FPS))) {
			return
		}
		if s.c.ExitTick > 0 && t-first >= s.c.ExitTick {
			return
		}
		if s.c.StopTick > 0 && t-first >= s.c.StopTick {
			<-s.stop
			return
		}
		if t%int64(s.start.GOPTicks) == 0 {
			lastKey = t
		}
		b := s.pictures(nil, t, int(t-lastKey)%Frames)
		for ; sample < (t+1)*perTick; sample += 1024 {
			b, _ = wire.AppendAudioAU(b, wire.AudioAU{Samples: sample, TimeNS: time.Now().UnixNano(), Data: s.clip.Audio[sample/1024%int64(len(s.clip.Audio))]})
		}
		if (t-first)%int64(s.start.FPS) == 10 {
			b = s.appendStats(b, t)
		}
		if _, err := s.conn.Write(b); err != nil {
			return
		}
	}
}

func (s *sender) ready(tick, sample int64) bool {
	b, err := wire.AppendReady(nil, &wire.Ready{FirstTick: tick, FirstSample: sample, AudioConfig: AudioConfig(), Encoder: "fake", Version: "fake"})
	if err != nil {
		return false
	}
	_, err = s.conn.Write(b)
	return err == nil
}

func (s *sender) pictures(b []byte, tick int64, i int) []byte {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	for v := range s.start.Variants {
		if idle.Has(v) && i != 0 && tick%int64(s.start.PartTicks) != 0 {
			continue
		}
		// The clip is far below the limit: no error is possible.
		b, _ = wire.AppendVideoAU(b, wire.VideoAU{Variant: v, Key: i == 0, Tick: tick, TimeNS: time.Now().UnixNano(), Data: s.clip.Video[i]})
	}
	return b
}

func (s *sender) appendStats(b []byte, tick int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Tick = tick
	for _, id := range s.asks {
		b = wire.AppendKeyframeRequest(b, wire.KeyframeRequest{Input: id})
	}
	s.asks = nil
	b, _ = wire.AppendStats(b, &s.stats) // a few inputs: never too long
	return b
}

// until waits for a time; false when stopped.
func (s *sender) until(at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}
