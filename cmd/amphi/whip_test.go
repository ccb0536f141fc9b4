package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// session is what testdata/gst_session.py reports.
type session struct {
	Status int      `json:"status"`
	Ended  int      `json:"ended"`
	Frames int      `json:"frames"`
	Colour []int    `json:"colour"`
	Level  *float64 `json:"level"`
	Error  string   `json:"error"`
	States []string `json:"states"`
}

// gstreamer runs the independent client in the background; its report comes when it ends.
func gstreamer(t *testing.T, args ...string) (answered <-chan struct{}, report <-chan session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	// Debian's own Python: GStreamer's bindings are installed for that one.
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", append([]string{"testdata/gst_session.py"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first, reports := make(chan struct{}), make(chan session, 1)
	finished := make(chan struct{})
	t.Cleanup(func() { cancel(); <-finished })
	go func() {
		defer close(finished)
		var last session
		once := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if line := lines.Text(); strings.HasPrefix(line, "{") {
				_ = json.Unmarshal([]byte(line), &last)
			} else if line == "answered" && !once {
				once = true
				close(first)
			}
		}
		if err := cmd.Wait(); err != nil && last.Error == "" {
			last.Error = err.Error() + ": " + stderr.String()
		}
		reports <- last
	}()
	return first, reports
}

// needGStreamer skips on machines without the bindings; CI installs them.
func needGStreamer(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs GStreamer for some seconds")
	}
	if err := exec.Command("/usr/bin/python3", "-c", "import gi; gi.require_version('GstWebRTC', '1.0')").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("GStreamer's Python bindings are missing: %v", err)
		}
		t.Skip("GStreamer's Python bindings are not installed: deploy/setup test")
	}
}

func TestGStreamerPublishesByWHIPAndPlaysByWHEP(t *testing.T) {
	t.Parallel()
	needGStreamer(t)
	node := startNode(t)
	publishing, published := gstreamer(t, "publish", node.URL()+"/v1/whip/"+devRoom, appToken(t, "speaker"), "vp8", "16")
	select {
	case <-publishing:
	case early := <-published:
		t.Fatalf("publishing failed: %+v", early)
	}
	_, played := gstreamer(t, "play", node.URL()+"/v1/whep/"+devRoom, appToken(t, "audience"), "-", "9")
	player := <-played
	if player.Status != 201 || player.Error != "" {
		t.Fatalf("playing failed: %+v", player)
	}
	if player.Frames < 60 {
		t.Errorf("%d frames decoded in 9 s, want at least 60", player.Frames)
	}
	if c := player.Colour; len(c) != 3 || c[0] < 180 || c[1] > 70 || c[2] > 70 {
		t.Errorf("the picture is %v, want red", c)
	}
	if player.Level == nil || *player.Level < -40 {
		t.Errorf("the sound's level is %v dB, want a tone", player.Level)
	}
	if player.Ended != 200 {
		t.Errorf("DELETE of the WHEP session answered %d", player.Ended)
	}
	publisher := <-published
	if publisher.Error != "" || publisher.Ended != 200 {
		t.Errorf("the publisher ended with %+v", publisher)
	}
}

func TestGStreamerPublishesH264(t *testing.T) {
	t.Parallel()
	needGStreamer(t)
	node := startNode(t)
	publishing, published := gstreamer(t, "publish", node.URL()+"/v1/whip/"+devRoom, appToken(t, "speaker"), "h264", "8")
	select {
	case <-publishing:
	case early := <-published:
		t.Fatalf("publishing failed: %+v", early)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		for _, room := range node.Status("").GetRooms() {
			for _, peer := range room.GetPeers() {
				for _, up := range peer.GetUp() {
					if e := up.GetEncodings(); strings.HasPrefix(up.GetCodec(), "H264") && len(e) == 1 && e[0].GetWidth() == 320 && e[0].GetPackets() > 100 {
						if end := <-published; end.Error != "" {
							t.Fatalf("the publisher ended with %+v", end)
						}
						return
					}
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no H.264 track of 320 pixels arrived: %v", node.Status("").GetRooms())
		}
		<-time.After(100 * time.Millisecond)
	}
}

func TestAudienceMayNotPublishByWHIP(t *testing.T) {
	t.Parallel()
	needGStreamer(t)
	node := startNode(t)
	_, published := gstreamer(t, "publish", node.URL()+"/v1/whip/"+devRoom, appToken(t, "audience"), "vp8", "8")
	if got := <-published; got.Status != 403 || !strings.Contains(got.Error, "permission_denied") {
		t.Fatalf("got %+v, want 403 permission_denied", got)
	}
}
