package hls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	parser "github.com/bluenviron/gohlslib/v2/pkg/playlist"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/layout"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// station is a running Origin behind an HTTP server.
type station struct {
	*Origin
	t    *testing.T
	url  string
	stop func()

	mu     sync.Mutex // guards the field below
	states []string
}

func runOrigin(t *testing.T, source Source, change func(*Config)) *station {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &station{t: t}
	cfg := Config{
		Logger: slog.New(slog.DiscardHandler), CompositorPath: exe, CompositorEnv: []string{(&hlstest.Compositor{}).Env()},
		Limits:   compose.Limits{Memory: -1}, // the race detector reserves terabytes
		Watchdog: 10 * time.Second,           // the machine may be busy with other tests
		OnState: func(room, stream string, st State, why string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.states = append(s.states, fmt.Sprintf("%s/%s %s", room, stream, st))
		},
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if change != nil {
		change(&cfg)
	}
	if s.Origin, err = New(cfg, source); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	srv := httptest.NewServer(s.Handler())
	s.url = srv.URL
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			srv.Close()
			http.DefaultClient.CloseIdleConnections()
		})
	}
	t.Cleanup(s.stop)
	return s
}

func (s *station) start(r StartRequest) Info {
	s.t.Helper()
	if r.Settings.Width == 0 {
		r.Settings.Width, r.Settings.Height = 320, 180
	}
	info, err := s.Start(context.Background(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	return info
}

func (s *station) get(path string) (int, string) {
	s.t.Helper()
	resp, err := http.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (s *station) playlist(path string) *parser.Media {
	s.t.Helper()
	code, body := s.get(path)
	if code == 503 {
		return nil
	}
	m := new(parser.Media)
	if err := m.Unmarshal([]byte(body)); err != nil && strings.Contains(body, "#EXTINF") || code != 200 {
		s.t.Fatalf("%s: %d %v\n%s", path, code, err, body)
	}
	return m
}

const mainList = "/v1/hls/demo/main/180p/index.m3u8"

func TestProgramIsServed(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, nil)
	info := s.start(StartRequest{Room: "demo", Stream: "main"})
	if info.Path != "/v1/hls/demo/main/index.m3u8" || info.Epoch == 0 {
		t.Errorf("%+v", info)
	}
	code, body := s.get(info.Path) // waits for the first part
	if code != 200 || !strings.Contains(body, "180p/index.m3u8") {
		t.Fatalf("%d %s", code, body)
	}
	if code, _ := s.get("/v1/hls/DEMO/main/index.m3u8"); code != 200 {
		t.Errorf("room in capitals: %d", code)
	}
	// Follow the playlist part by part, as a player does.
	_, body = s.get(mainList)
	hint := regexp.MustCompile(`PRELOAD-HINT:TYPE=PART,URI="(\d+)-(\d+)\.(\d+)\.m4s"`)
	for range 6 {
		m := hint.FindStringSubmatch(body)
		if m == nil {
			t.Fatalf("no hint in\n%s", body)
		}
		if code, part := s.get("/v1/hls/demo/main/180p/" + m[1] + "-" + m[2] + "." + m[3] + ".m4s"); code != 200 || !strings.Contains(part, "moof") {
			t.Fatalf("hinted part: %d", code)
		}
		if code, body = s.get(mainList + "?_HLS_msn=" + m[2] + "&_HLS_part=" + m[3]); code != 200 {
			t.Fatalf("reload: %d %s", code, body)
		}
	}
	eventually(t, "live", func() bool { return len(s.Programs()) == 1 && s.Programs()[0].State == Live })
	st := s.Programs()[0]
	if st.Composer.State != compose.Running || st.Packager.Parts == 0 || st.Malformed != 0 || st.Latency < 500*time.Millisecond {
		t.Errorf("%+v", st)
	}
	if p := st.Status(); p.Room != "demo" || p.Stream.State != amphiv1.StreamState_STREAM_STATE_LIVE || p.Frames == 0 || len(p.Variants) != 1 {
		t.Errorf("%v", p)
	}
}

func TestEpochsAreNotGuessed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	seen := map[uint64]bool{}
	for range 16 {
		e := newEpoch(now)
		seen[e] = true
		if later := newEpoch(now.Add(time.Millisecond)); later <= e || e>>22 != uint64(now.UnixMilli()) {
			t.Errorf("%d, later %d", e, later)
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d of 16 epochs of one moment differ", len(seen))
	}
}

func TestCompositorKilled(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, nil)
	s.start(StartRequest{Room: "demo", Stream: "main"})
	s.get("/v1/hls/demo/main/index.m3u8")
	eventually(t, "two segments", func() bool { p := s.playlist(mainList); return p != nil && len(p.Segments) >= 2 })
	pid := s.Programs()[0].Composer.PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	var p *parser.Media
	at := -1
	eventually(t, "a segment behind a discontinuity", func() bool {
		if p = s.playlist(mainList); p == nil {
			return false
		}
		for i, seg := range p.Segments {
			if seg.Discontinuity {
				at = i
			}
		}
		return at > 0
	})
	before := p.Segments[at-1]
	gap := p.Segments[at].DateTime.Sub(before.DateTime.Add(before.Duration))
	t.Logf("program gap %v, seen after %v, first picture %v after start", gap, time.Since(killed), s.Programs()[0].Composer.FirstPicture)
	if gap <= 0 || gap > 10*time.Second { // 2.5 s is the target on a machine of its own
		t.Errorf("program gap %v", gap)
	}
	audio := s.playlist("/v1/hls/demo/main/audio/index.m3u8")
	found := false
	for i, seg := range audio.Segments {
		found = found || seg.Discontinuity && audio.MediaSequence+i == p.MediaSequence+at
	}
	if !found {
		t.Errorf("audio's discontinuity is elsewhere than %d", p.MediaSequence+at)
	}
	eventually(t, "running again", func() bool { return s.Programs()[0].Composer.State == compose.Running })
	if st := s.Programs()[0].State; st != Live {
		t.Errorf("state %s", st)
	}
	if st := s.Programs()[0].Composer; st.Exits != 1 || st.PID == pid {
		t.Errorf("%+v", st)
	}
}

func TestStopAndStartAgain(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, nil)
	s.start(StartRequest{Room: "demo", Stream: "main"})
	if _, err := s.Start(context.Background(), StartRequest{Room: "Demo", Stream: "main"}); !errors.Is(err, ErrRunning) {
		t.Errorf("second start: %v", err)
	}
	s.get("/v1/hls/demo/main/index.m3u8")
	eventually(t, "a segment", func() bool { p := s.playlist(mainList); return p != nil && len(p.Segments) >= 1 })
	eventually(t, "live", func() bool { return s.Programs()[0].State == Live })
	if err := s.Stop(context.Background(), "demo", "main"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end in the playlist", func() bool { p := s.playlist(mainList); return p.Endlist })
	last := s.playlist(mainList)
	if err := s.Stop(context.Background(), "demo", "main"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second stop: %v", err)
	}
	s.start(StartRequest{Room: "demo", Stream: "main"})
	s.get("/v1/hls/demo/main/index.m3u8")
	eventually(t, "another segment", func() bool { p := s.playlist(mainList); return p != nil && len(p.Segments) >= 1 })
	next := s.playlist(mainList)
	if next.MediaSequence < last.MediaSequence+len(last.Segments) || !next.Segments[0].Discontinuity || next.Endlist {
		t.Errorf("goes on at %d after %d+%d", next.MediaSequence, last.MediaSequence, len(last.Segments))
	}
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.states, ", "); !strings.HasPrefix(got, "demo/main starting, demo/main live, demo/main stopped, demo/main starting") || !strings.HasSuffix(got, "stopped") {
		t.Errorf("states %s", got)
	}
}

func TestLinger(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, func(c *Config) { c.Linger = time.Nanosecond })
	s.start(StartRequest{Room: "demo", Stream: "main"})
	if err := s.Stop(context.Background(), "demo", "main"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "forgotten", func() bool {
		s.forget(time.Now())
		code, _ := s.get("/v1/hls/demo/main/index.m3u8")
		return code == 404
	})
}

func TestStageReachesCompositor(t *testing.T) {
	t.Parallel()
	r := &room{}
	cam, mic := video(1, 320, 180), audio(2)
	r.set("cam", cam)
	r.set("mic", mic)
	s := runOrigin(t, r, func(c *Config) { c.CompositorEnv = []string{(&hlstest.Compositor{KeyframeRequests: true}).Env()} })
	s.start(StartRequest{Room: "demo", Stream: "main"})
	stage := Stage{Peers: []StagePeer{{ID: "p", Name: "Pia", Audio: StageTrack{ID: "mic"}, Video: StageTrack{ID: "cam"}}}}
	if err := s.SetStage("demo", "main", stage); err != nil {
		t.Fatal(err)
	}
	eventually(t, "packets in the compositor", func() bool {
		cam.push(true, make([]byte, 500))
		mic.push(false, make([]byte, 50))
		c := s.Programs()[0].Composer.Compositor
		return c != nil && len(c.Inputs) == 2 && c.Inputs[0].Packets > 10 && c.Inputs[1].Packets > 10
	})
	// One request comes with attaching, another from the compositor.
	eventually(t, "a keyframe request", func() bool { return cam.keyframesAsked() >= 2 })
	if err := s.SetLayout("demo", "main", layout.Single, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SetLayout("demo", "main", "cinema", nil)); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
	if err := s.SetStage("demo", "other", stage); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.SetStage("demo", "main", Stage{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing attached", func() bool { return cam.attached() == 0 && mic.attached() == 0 })
	if got := s.Programs()[0].Settings.Layout; got != layout.Single {
		t.Errorf("layout %q", got)
	}
}

func TestCompositorThatCannotRun(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, func(c *Config) { c.CompositorPath = "/nonexistent/amphi-compositor" })
	s.start(StartRequest{Room: "demo", Stream: "main"})
	eventually(t, "failed", func() bool { return s.Programs()[0].State == Failed })
	st := s.Programs()[0]
	if p := st.Status(); !strings.Contains(p.Stream.Failure, "no such file") {
		t.Errorf("%v", p)
	}
}

func TestStartRefused(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, func(c *Config) { c.MaxPrograms = 1 })
	for _, r := range []StartRequest{
		{Room: "", Stream: "main"}, {Room: "a/b", Stream: "main"}, {Room: "..", Stream: "main"}, {Room: "demo", Stream: strings.Repeat("x", 65)},
		{Room: "demo", Stream: "main", Settings: Settings{Width: 1281, Height: 720}},
		{Room: "demo", Stream: "main", Settings: Settings{FPS: 7}},
		{Room: "demo", Stream: "main", Settings: Settings{Part: time.Hour}},
		{Room: "demo", Stream: "main", Settings: Settings{Layout: "cinema"}},
		{Room: "demo", Stream: "main", Settings: Settings{Encoder: "magic"}},
		{Room: "demo", Stream: "main", Settings: Settings{Background: "black"}},
	} {
		if _, err := s.Start(context.Background(), r); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	s.start(StartRequest{Room: "demo", Stream: "main"})
	if _, err := s.Start(context.Background(), StartRequest{Room: "demo", Stream: "second"}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	s.stop()
	if _, err := s.Start(context.Background(), StartRequest{Room: "demo", Stream: "third"}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := New(Config{}, nil); err == nil {
		t.Error("an origin of nothing")
	}
}

func TestSettingsOf(t *testing.T) {
	t.Parallel()
	s, err := SettingsOf(&amphiv1.StreamSettings{
		Width: 1920, Height: 1080, Framerate: 29, PartMs: 333, SegmentMs: 2000, AudioBitrateKbps: 96, Layout: amphiv1.LayoutKind_LAYOUT_KIND_SCREEN,
		Variants: []*amphiv1.StreamVariant{{Name: "1080p", Width: 1920, Height: 1080, BitrateKbps: 4500}, {Width: 640, Height: 360, BitrateKbps: 600}},
	})
	if err != nil {
		t.Fatal(err)
	}
	part, segment := s.grid()
	if s.FPS != 25 || part != 8 || segment != 48 || s.Variants[1].Name != "360p" || s.Layout != layout.ScreenShare || s.AudioBitrate != 96_000 {
		t.Errorf("%+v, %d, %d", s, part, segment)
	}
	start := s.start()
	start.EpochNS = 1
	if start.Validate() != nil {
		t.Errorf("%+v: %v", start, start.Validate())
	}
	if s, err := SettingsOf(nil); err != nil || s.Width != 1280 || s.Variants[0].Name != "720p" {
		t.Errorf("%+v, %v", s, err)
	}
}
