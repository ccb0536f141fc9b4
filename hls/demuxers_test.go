package hls

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
)

// player runs a program of others on a stream; it is skipped where that is not installed, but not in CI.
func player(t *testing.T, name string, args ...string) (out []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, stderr.String())
	}
	if s := strings.TrimSpace(stderr.String()); s != "" {
		t.Logf("%s says: %s", name, s)
	}
	return out
}

func needPlayer(t *testing.T, name string, check ...string) {
	t.Helper()
	if err := exec.Command(name, check...).Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: %v", name, err)
		}
		t.Skipf("%s is not installed: deploy/setup test", name)
	}
}

// Players that know nothing of low latency play the same URL, while it runs and after its end: FFmpeg's demuxer, ffprobe,
// and GStreamer's.
func TestPlainPlayers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs players for some seconds")
	}
	s := runOrigin(t, &room{}, nil)
	s.start(StartRequest{Room: "demo", Stream: "main", Settings: Settings{Segment: time.Second, Part: 250 * time.Millisecond, Captions: []string{"en"},
		Variants: []packager.Variant{{Name: "180p", Width: 320, Height: 180, Bitrate: 500_000}}}})
	url := s.url + "/v1/hls/demo/main/index.m3u8"
	eventually(t, "a few segments", func() bool { p := s.playlist(mainList); return p != nil && len(p.Segments) >= 6 })
	live := time.Now()
	if err := s.AddCue("demo", "main", packager.Cue{ID: "a", Type: "x", Text: "y", At: live}); err != nil {
		t.Fatal(err)
	}
	t.Run("ffmpeg, live", func(t *testing.T) {
		needPlayer(t, "ffmpeg", "-version")
		out := player(t, "ffmpeg", "-v", "warning", "-nostdin", "-i", url, "-map", "0:v", "-map", "0:a", "-t", "4", "-f", "framecrc", "-")
		frames, sounds := 0, 0
		for line := range strings.Lines(string(out)) {
			switch {
			case strings.HasPrefix(line, "0,"):
				frames++
			case strings.HasPrefix(line, "1,"):
				sounds++
			}
		}
		if frames < 115 || sounds < 180 {
			t.Errorf("%d pictures, %d frames of sound in 4 s", frames, sounds)
		}
	})
	if err := s.Stop(context.Background(), "demo", "main"); err != nil {
		t.Fatal(err)
	}
	list := s.playlist(mainList)
	length := time.Duration(0)
	for _, seg := range list.Segments {
		length += seg.Duration
	}
	want := int(length.Seconds()*30 + 0.5)
	t.Run("ffprobe", func(t *testing.T) {
		needPlayer(t, "ffprobe", "-version")
		out := player(t, "ffprobe", "-v", "warning", "-select_streams", "v", "-count_packets", "-show_entries", "stream=codec_name,width,height,nb_read_packets", "-of", "json", url)
		var got struct {
			Streams []struct {
				Codec   string `json:"codec_name"`
				Width   int
				Height  int
				Packets string `json:"nb_read_packets"`
			}
		}
		if err := json.Unmarshal(out, &got); err != nil || len(got.Streams) != 1 {
			t.Fatalf("%v %s", err, out)
		}
		st := got.Streams[0]
		if n, _ := strconv.Atoi(st.Packets); st.Codec != "h264" || st.Width != 320 || st.Height != 180 || n != want {
			t.Errorf("%+v, want %d pictures", st, want)
		}
	})
	t.Run("gstreamer", func(t *testing.T) {
		needPlayer(t, "/usr/bin/python3", "-c", "import gi; gi.require_version('Gst', '1.0')")
		out := player(t, "/usr/bin/python3", "testdata/gst_hls.py", url, "30")
		var got struct {
			Video, Audio   int
			Demuxer, Error string
			Ended          bool
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		t.Logf("%+v of %d pictures", got, want)
		if got.Error != "" || !got.Ended || got.Video < want*9/10 || got.Audio < want || !strings.HasPrefix(got.Demuxer, "hlsdemux") {
			t.Errorf("%+v, want %d pictures", got, want)
		}
	})
}
