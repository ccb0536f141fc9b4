package rtmp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib"
	"github.com/bluenviron/gortmplib/pkg/bytecounter"
	"github.com/bluenviron/gortmplib/pkg/codecs"
	"github.com/bluenviron/gortmplib/pkg/message"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/hls/hlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage admits the key "good" and keeps what comes.
type stage struct {
	mu       sync.Mutex // guards the fields below
	format   Format
	video    int
	audio    int
	keys     int
	last     time.Duration
	back     int // pictures earlier than the one before
	closed   int
	sets     bool // every keyframe had parameter sets
	requests []Request
	gone     chan struct{}
}

func newStage() *stage { return &stage{sets: true, gone: make(chan struct{})} }

func (s *stage) Publish(_ context.Context, r Request) (Publication, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	if r.Key != "good" {
		return nil, errors.New("no such key")
	}
	return s, nil
}

func (s *stage) Begin(_ context.Context, f Format) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.format = f
	return nil
}

func (s *stage) Video(pts time.Duration, key bool, annexB []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.video++; pts < s.last {
		s.back++
	}
	s.last = pts
	if key {
		s.keys++
		s.sets = s.sets && bytes.Contains(annexB, s.format.SPS) && bytes.Contains(annexB, s.format.PPS)
	}
}

func (s *stage) Audio(time.Duration, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audio++
}

func (s *stage) Gone() <-chan struct{} { return s.gone }

func (s *stage) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
}

func (s *stage) counts() (video, audio, closed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.video, s.audio, s.closed
}

func serve(t *testing.T, cfg Config, st Stage) *Server {
	t.Helper()
	cfg.Addr, cfg.Logger = "127.0.0.1:0", slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := New(cfg, st)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not " + what)
		}
	}
}

// client publishes with the library's own client.
type client struct {
	*gortmplib.Client
	*gortmplib.Writer
	video, audio *gortmplib.Track
	clip         *hlstest.Clip
}

func publish(t *testing.T, s *Server, key string) *client {
	t.Helper()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(fmt.Sprintf("rtmp://%s/live#%s", s.Addr(), key))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{Client: &gortmplib.Client{URL: u, Publish: true}, clip: clip}
	if err := c.Initialize(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	var au h264.AnnexB
	if err := au.Unmarshal(clip.Video[0]); err != nil {
		t.Fatal(err)
	}
	var asc mpeg4audio.AudioSpecificConfig
	if err := asc.Unmarshal(hlstest.AudioConfig()); err != nil {
		t.Fatal(err)
	}
	h := &codecs.H264{}
	for _, n := range au {
		switch n[0] & 0x1f {
		case 7:
			h.SPS = n
		case 8:
			h.PPS = n
		}
	}
	c.video, c.audio = &gortmplib.Track{Codec: h}, &gortmplib.Track{Codec: &codecs.MPEG4Audio{Config: &asc}}
	c.Writer = &gortmplib.Writer{Conn: c.Client, Tracks: []*gortmplib.Track{c.video, c.audio}}
	_ = c.Writer.Initialize() // fails where the server has refused
	return c
}

func (c *client) Initialize(ctx context.Context) error { return c.Client.Initialize(ctx) }

// send sends a picture and its sound.
func (c *client) send(i int) error {
	var au h264.AnnexB
	if err := au.Unmarshal(c.clip.Video[i%hlstest.Frames]); err != nil {
		return err
	}
	at := time.Duration(i) * time.Second / hlstest.FPS
	if err := c.WriteH264(c.video, at, at, au); err != nil {
		return err
	}
	return c.WriteMPEG4Audio(c.audio, at, c.clip.Audio[i%len(c.clip.Audio)])
}

func TestPublish(t *testing.T) {
	t.Parallel()
	st := newStage()
	s := serve(t, Config{}, st)
	c := publish(t, s, "good")
	for i := range 3 * hlstest.Frames {
		if err := c.send(i); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "taken", func() bool { v, a, _ := st.counts(); return v == 3*hlstest.Frames && a == 3*hlstest.Frames })
	c.Close()
	eventually(t, "closed", func() bool { _, _, n := st.counts(); return n == 1 && s.Stats().Open == 0 })
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.keys != 3 || !st.sets || st.back != 0 {
		t.Errorf("%d keyframes, parameter sets %v, %d times back", st.keys, st.sets, st.back)
	}
	if st.format.Width != hlstest.Width || st.format.Height != hlstest.Height || !bytes.Equal(st.format.AudioConfig, hlstest.AudioConfig()) {
		t.Errorf("format %+v", st.format)
	}
	if r := st.requests[0]; r.App != "live" || r.Key != "good" || r.Remote == "" {
		t.Errorf("request %+v", r)
	}
}

func TestPublicationThatNobodyTakesAnyMore(t *testing.T) {
	t.Parallel()
	st := newStage()
	s := serve(t, Config{}, st)
	c := publish(t, s, "good")
	if err := c.send(0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "taken", func() bool { v, _, _ := st.counts(); return v == 1 })
	close(st.gone)
	eventually(t, "closed", func() bool { return s.Stats().Open == 0 })
}

// TestBadConnections: each ends alone, in time, while a good one goes on.
func TestBadConnections(t *testing.T) {
	t.Parallel()
	st := newStage()
	s := serve(t, Config{Handshake: time.Second, Idle: time.Second, MaxBitrate: 4_000_000, MaxPerAddress: 4}, st)
	good := publish(t, s, "good")
	n := 0
	step := func() {
		if err := good.send(n); err != nil {
			t.Fatalf("the good connection: %v", err)
		}
		n++
	}
	step()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	closes := func(what string, c net.Conn) {
		t.Helper()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, c)
		}()
		deadline := time.After(8 * time.Second)
		for {
			select {
			case <-ended:
				return
			case <-time.After(30 * time.Millisecond):
				step()
			case <-deadline:
				t.Errorf("%s is not closed", what)
				return
			}
		}
	}
	closes("silence", dial())
	c := dial()
	_, _ = c.Write(bytes.Repeat([]byte{3, 0xff, 7}, 30_000))
	closes("garbage", c)
	c = dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"+strings.Repeat("x", 4000))
	closes("HTTP", c)
	closes("a wrong key", publish(t, s, "bad").NetConn())
	closes("nothing published", publish(t, s, "good").NetConn())
	flood := publish(t, s, "good")
	for i := range 5000 { // at once, far above the bit rate
		if flood.send(i) != nil {
			break
		}
	}
	closes("too many bits", flood.NetConn())
	eventually(t, "alone", func() bool { return s.Stats().Open == 1 })
	var many []net.Conn
	for range 6 {
		many = append(many, dial())
	}
	closes("too many connections", many[5])
	if s.Stats().Refused == 0 {
		t.Error("nobody was refused")
	}
	step()
	eventually(t, "all taken", func() bool { v, _, _ := st.counts(); return v >= n })
}

func TestTimeline(t *testing.T) {
	t.Parallel()
	var l timeline
	last := time.Duration(-1)
	for _, c := range []struct{ in, out time.Duration }{
		{1000, 0}, {1040, 40}, {1030, 30}, {1080, 80}, {5, 180}, {45, 220}, {4_000_000, 320}, {4_000_040, 360},
	} {
		last = l.at(c.in * time.Millisecond)
		if last != c.out*time.Millisecond {
			t.Errorf("%v becomes %v, want %v", c.in, last, c.out)
		}
	}
}

func TestAnnexB(t *testing.T) {
	t.Parallel()
	sps, pps := []byte{0x67, 1}, []byte{0x68, 2}
	au := []byte{0, 0, 0, 2, 9, 0xf0, 0, 0, 0, 2, 0x67, 9, 0, 0, 0, 3, 0x65, 7, 8, 0, 0, 0, 2, 0x65, 6}
	got, key, err := appendAnnexB(nil, au, sps, pps)
	want := []byte{0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 7, 8, 0, 0, 0, 1, 0x65, 6}
	if err != nil || !key || !bytes.Equal(got, want) {
		t.Errorf("%x, %v, %v", got, key, err)
	}
	for _, bad := range [][]byte{{0}, {0, 0, 0, 9, 1}, {0xff, 0xff, 0xff, 0xff, 1}} {
		if _, _, err := appendAnnexB(nil, bad, sps, pps); err == nil {
			t.Errorf("%x passes", bad)
		}
	}
	if got, _, err := appendAnnexB(nil, []byte{0, 0, 0, 2, 9, 0xf0}, sps, pps); err != nil || len(got) != 0 {
		t.Errorf("without a slice: %x, %v", got, err)
	}
}

func FuzzAnnexB(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 0x65, 7, 8})
	f.Fuzz(func(t *testing.T, au []byte) {
		got, key, err := appendAnnexB(nil, au, []byte{0x67}, []byte{0x68})
		if err != nil && len(got) > 0 || len(got) > len(au)+10+10*len(au) || key && len(got) == 0 {
			t.Errorf("%x: %x, %v, %v", au, got, key, err)
		}
	})
}

// FuzzMessages feeds chunks, as they come after the handshake.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{6, 0, 0, 0, 0, 0, 9, 9, 1, 0, 0, 0, 0x17, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{4, 0, 0, 0, 0, 0, 4, 8, 1, 0, 0, 0, 0xaf, 0, 0x11, 0x90})
	f.Fuzz(func(_ *testing.T, b []byte) {
		r := bytes.NewReader(b)
		counter := bytecounter.NewReader(r)
		messages := message.NewReader(counter, counter, func(uint32) error { return nil })
		d := &demux{to: newStage()}
		for {
			m, err := messages.Read()
			if err != nil {
				return
			}
			if _, err := d.take(context.Background(), m); err != nil {
				return
			}
		}
	})
}
