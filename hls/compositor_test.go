package hls

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtp/codecs"

	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

// buildCompositor makes the real one.
func buildCompositor(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "amphi-compositor")
	cmd := exec.Command("go", "build", "-o", path, "github.com/amphi-sfu/amphi/cmd/amphi-compositor")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the compositor: %v\n%s", err, out)
	}
	return path
}

// camera sends the clip over and over as RTP, in time.
func camera(ctx context.Context, t *testing.T, e *encoding) {
	clip, err := hlstest.Load()
	if err != nil {
		t.Error(err)
		return
	}
	payloader := codecs.H264Payloader{}
	ticker := time.NewTicker(time.Second / hlstest.FPS)
	defer ticker.Stop()
	for n := 0; ; n++ {
		i := n % hlstest.Frames
		payloads := payloader.Payload(1200, clip.Video[i])
		for k, b := range payloads {
			e.send(&packet.Packet{
				Timestamp: uint32(n) * 3000, Marker: k == len(payloads)-1, Keyframe: i == 0 && k == 0, StartOfFrame: k == 0, Payload: b,
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// send numbers a packet and gives it to the sinks.
func (e *encoding) send(p *packet.Packet) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	p.ExtSeq, p.SSRC, p.PayloadType, p.AudioLevel = e.seq, e.ssrc, e.codec.PayloadType, 255
	for _, s := range e.sinks {
		s.WriteRTP(p)
	}
}

// The real compositor, from RTP to pictures that an independent decoder shows, through
// a kill -9.
func TestRealCompositor(t *testing.T) {
	t.Parallel()
	r := &room{}
	cam := &encoding{codec: codec.ByPayloadType(102), ssrc: 7, w: hlstest.Width, h: hlstest.Height}
	r.set("cam", cam)
	path := buildCompositor(t)
	s := runOrigin(t, r, func(c *Config) { c.CompositorPath, c.CompositorEnv = path, nil })
	ctx, cancel := context.WithCancel(context.Background())
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		camera(ctx, t, cam)
	}()
	t.Cleanup(func() { cancel(); <-sent })
	s.start(StartRequest{
		Room: "demo", Stream: "main", Settings: Settings{Width: 640, Height: 360},
		Stage: Stage{Peers: []StagePeer{{ID: "p", Name: "Pia", Video: StageTrack{ID: "cam"}}}},
	})
	const list = "/v1/hls/demo/main/360p/"
	eventually(t, "a colourful picture", func() bool { return s.colours(list) > 24 })
	if err := syscall.Kill(s.Programs()[0].Composer.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a colourful picture behind a discontinuity", func() bool {
		p := s.playlist(list + "index.m3u8")
		if p == nil {
			return false
		}
		for i := range p.Segments {
			if p.Segments[i].Discontinuity && i+1 < len(p.Segments) {
				return s.colours(list) > 24
			}
		}
		return false
	})
	st := s.Programs()[0]
	t.Logf("first picture %v after start, latency %v, CPU %.2f, %d restarts", st.Composer.FirstPicture, st.Composer.MaxLatency, st.CPU, st.Composer.Exits)
	if st.Malformed != 0 {
		t.Errorf("%d access units refused: %v", st.Malformed, st.Packager.Drops)
	}
}

// colours decodes the newest segment's last picture and counts its colours, coarsely:
// the clip has many, a placeholder few.
func (s *station) colours(list string) int {
	s.t.Helper()
	p := s.playlist(list + "index.m3u8")
	if p == nil || len(p.Segments) == 0 || p.Map == nil {
		return 0
	}
	_, init := s.get(list + p.Map.URI)
	_, seg := s.get(list + p.Segments[len(p.Segments)-1].URI)
	cmd := exec.Command("ffmpeg", "-v", "error", "-i", "-", "-vf", "scale=64:36", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
	cmd.Stdin = bytes.NewReader([]byte(init + seg))
	cmd.Stderr = os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		s.t.Fatal(err)
	}
	const frame = 64 * 36 * 3
	if len(raw) < frame {
		return 0
	}
	seen := map[[3]byte]bool{}
	last := raw[len(raw)-frame:]
	for i := 0; i+2 < len(last); i += 3 {
		seen[[3]byte{last[i] >> 5, last[i+1] >> 5, last[i+2] >> 5}] = true
	}
	return len(seen)
}
