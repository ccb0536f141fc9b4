package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/h264writer"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
)

// startRTMPNode starts a node that takes encoders, with a compositor built for the test.
func startRTMPNode(t *testing.T) *Node {
	t.Helper()
	if testing.Short() {
		t.Skip("runs FFmpeg for some seconds")
	}
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed: deploy/setup test")
	}
	path := filepath.Join(t.TempDir(), compositorName)
	if out, err := exec.Command("go", "build", "-o", path, "github.com/amphi-sfu/amphi/cmd/amphi-compositor").CombinedOutput(); err != nil {
		t.Fatalf("building the compositor: %v\n%s", err, out)
	}
	return startNodeWith(t, Config{RTMPAddr: "127.0.0.1:0", CompositorPath: path})
}

// publishRTMP has FFmpeg publish until the function that it returns is called.
func publishRTMP(t *testing.T, node *Node, key string, video ...string) (stop func() (stderr string)) {
	t.Helper()
	args := []string{"-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100",
		"-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-b:v", "800k"}
	args = append(append(args, video...), "-c:a", "aac", "-ac", "1", "-f", "flv", fmt.Sprintf("rtmp://%s/live/%s", node.rtmp.Addr(), key))
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ffmpeg", args...)
	var stderr bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &stderr, time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() string {
		once.Do(func() {
			cancel()
			_ = cmd.Wait()
		})
		return stderr.String()
	}
	t.Cleanup(func() { stop() })
	return stop
}

// stageViewer plays by WHEP and keeps what comes.
type stageViewer struct {
	pc       *webrtc.PeerConnection
	videoOut string
	audioOut string
	tasks    sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	video   int        // pictures
	audio   int        // packets
	codec   string
	reports map[string][2]float64 // by kind: NTP and RTP time of the last sender report, in s
}

// viewStage plays the stage.
func viewStage(t *testing.T, node *Node) *stageViewer {
	t.Helper()
	pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := &stageViewer{pc: pc, videoOut: filepath.Join(dir, "out.h264"), audioOut: filepath.Join(dir, "out.ogg"), reports: map[string][2]float64{}}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	pc.OnTrack(func(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		w.tasks.Go(func() { w.read(t, track) })
		w.tasks.Go(func() { w.listen(track, receiver) })
	})
	res, answer := whip(t, http.MethodPost, node.URL()+"/v1/whep/"+devRoom, appToken(t, "audience"), offer(t, pc))
	if res.StatusCode != http.StatusCreated {
		t.Fatalf("WHEP: %d %s", res.StatusCode, answer)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func (w *stageViewer) close() {
	_ = w.pc.Close()
	w.tasks.Wait()
}

func (w *stageViewer) read(t *testing.T, track *webrtc.TrackRemote) {
	if track.Kind() == webrtc.RTPCodecTypeVideo {
		out, err := h264writer.New(w.videoOut)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = out.Close() }()
		for {
			p, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			_ = out.WriteRTP(p)
			if p.Marker {
				w.mu.Lock()
				w.video++
				w.codec = track.Codec().MimeType
				w.mu.Unlock()
			}
		}
	}
	out, err := oggwriter.New(w.audioOut, 48000, 2)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = out.Close() }()
	for {
		p, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		_ = out.WriteRTP(p)
		w.mu.Lock()
		w.audio++
		w.mu.Unlock()
	}
}

// listen keeps the last sender report of a track.
func (w *stageViewer) listen(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	for {
		packets, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok {
				w.mu.Lock()
				w.reports[track.Kind().String()] = [2]float64{float64(sr.NTPTime) / (1 << 32), float64(sr.RTPTime) / float64(track.Codec().ClockRate)}
				w.mu.Unlock()
			}
		}
	}
}

func (w *stageViewer) counts() (video, audio int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.video, w.audio
}

// decoded has FFmpeg count what decodes of a file, and fails on any complaint.
func decoded(t *testing.T, file, stream string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	cmd := exec.Command("ffprobe", "-v", "error", "-count_frames", "-select_streams", stream, "-show_entries", "stream=codec_name,profile,width,height,sample_rate,nb_read_frames", "-of", "csv=p=0", file)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil || complaints.Len() > 0 {
		t.Errorf("decoding %s: %v\n%s", stream, err, complaints.String())
	}
	return strings.TrimSpace(out.String())
}

// roomCode is the code of a role of the demo room.
func roomCode(t *testing.T, node *Node, role string) string {
	t.Helper()
	found := ""
	node.registry.Read(func(r *amphiv1.Registry) {
		for _, c := range r.GetCodes() {
			if c.GetRoom() == devRoom && c.GetRole() == role {
				found = c.GetCode()
			}
		}
	})
	if found == "" {
		t.Fatalf("no code for %s", role)
	}
	return found
}

// peersIn counts the peers with media in the demo room.
func peersIn(node *Node) (n int) {
	for _, room := range node.Status("").GetRooms() {
		for _, p := range room.GetPeers() {
			if len(p.GetUp()) > 0 {
				n++
			}
		}
	}
	return n
}

func until(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("within %v: not %s", d, what)
		}
	}
}

func TestEncoderPublishesOverRTMP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		video []string
		key   func(*testing.T, *Node) string
		want  string // of the pictures
	}{
		{"passed on", []string{"-profile:v", "baseline"}, func(t *testing.T, n *Node) string { return roomCode(t, n, "speaker") }, "h264,Constrained Baseline,640,360,"},
		{"transcoded", []string{"-profile:v", "high", "-preset", "veryfast", "-bf", "2"}, func(t *testing.T, _ *Node) string { return appToken(t, "speaker") }, "h264,Constrained Baseline,640,360,"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			node := startRTMPNode(t)
			stop := publishRTMP(t, node, c.key(t, node), c.video...)
			until(t, 20*time.Second, "on stage", func() bool { return peersIn(node) == 1 })
			w := viewStage(t, node)
			until(t, 20*time.Second, "seen and heard for 3 s", func() bool { v, a := w.counts(); return v >= 75 && a >= 150 })
			if err := stop(); strings.Contains(err, "rror") {
				t.Logf("ffmpeg: %s", err)
			}
			until(t, 10*time.Second, "gone from the room", func() bool { return peersIn(node) == 0 })
			w.close()
			video, audio := decoded(t, w.videoOut, "v"), decoded(t, w.audioOut, "a")
			pictures, packets := w.counts()
			t.Logf("%d pictures, %d packets of sound; decoded: %s; %s; sender reports %v", pictures, packets, video, audio, w.reports)
			if !strings.HasPrefix(video, c.want) {
				t.Errorf("pictures are %q, want %q", video, c.want)
			}
			if !strings.HasPrefix(audio, "opus,48000,") && !strings.HasPrefix(audio, "opus,unknown,48000,") {
				t.Errorf("sound is %q", audio)
			}
			if len(w.reports) != 2 {
				t.Errorf("sender reports %v", w.reports)
			}
		})
	}
}

func TestEncoderWithoutTheRightIsRefused(t *testing.T) {
	t.Parallel()
	node := startRTMPNode(t)
	for i, key := range []string{appToken(t, "audience"), roomCode(t, node, "viewer"), "abc-defg-hij", "x"} {
		stop := publishRTMP(t, node, key)
		until(t, 20*time.Second, "refused", func() bool { s := node.rtmp.Stats(); return s.Accepted == int64(i+1) && s.Open == 0 })
		stop()
	}
	if s := node.rtmp.Stats(); s.Published != 0 {
		t.Errorf("%+v", s)
	}
	if n := peersIn(node); n != 0 {
		t.Errorf("%d peers", n)
	}
}

// manage calls the management API.
func manage(t *testing.T, node *Node, method, body string) {
	t.Helper()
	now := time.Now()
	token, err := auth.Signer{KeyID: devKey, Secret: devSecret}.Mint(auth.Grant{Type: auth.Management, IssuedAt: now, ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, node.URL()+"/amphi.v1."+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", method, res.StatusCode, text, err)
	}
}

// transcoders are the processes that a node's compositor runs as, by what they were started with.
func transcoders(t *testing.T, node *Node) (pids []int) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range dirs {
		line, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(line), node.cfg.CompositorPath+"\x00--transcode") {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(file, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestEncoderLosesItsTranscoderAndItsPlace: a transcoder that dies, or hangs, is replaced, at the next keyframe; an encoder that is
// removed from the room loses its connection.
func TestEncoderLosesItsTranscoderAndItsPlace(t *testing.T) {
	t.Parallel()
	node := startRTMPNode(t)
	publishRTMP(t, node, appToken(t, "speaker"), "-profile:v", "high", "-bf", "2")
	until(t, 20*time.Second, "on stage", func() bool { return peersIn(node) == 1 })
	w := viewStage(t, node)
	seen := func(n int) func() bool { return func() bool { v, a := w.counts(); return v >= n && a >= n } }
	until(t, 20*time.Second, "seen", seen(25))
	for _, c := range []struct {
		what string
		sig  syscall.Signal
		name string // of the exit in the metrics
	}{{"killed", syscall.SIGKILL, "died"}, {"stopped", syscall.SIGSTOP, "quiet"}} {
		pids := transcoders(t, node)
		if len(pids) != 1 {
			t.Fatalf("transcoders %v", pids)
		}
		if err := syscall.Kill(pids[0], c.sig); err != nil {
			t.Fatal(err)
		}
		hit := time.Now()
		until(t, 20*time.Second, "replaced", func() bool { now := transcoders(t, node); return len(now) == 1 && now[0] != pids[0] })
		before, _ := w.counts()
		until(t, 10*time.Second, "seen again", seen(before+25))
		t.Logf("25 pictures more %v after the transcoder was %s", time.Since(hit).Round(time.Millisecond), c.what)
		if got := node.encoders.transcoderExits()[c.name]; got != 1 {
			t.Errorf("%d transcoders that %s", got, c.name)
		}
	}

	manage(t, node, "PeerService/RemovePeers", `{"room":"demo","remove":{"roles":["speaker"]}}`)
	until(t, 10*time.Second, "disconnected", func() bool { return node.rtmp.Stats().Open == 0 })
	until(t, 5*time.Second, "without a transcoder", func() bool { return len(transcoders(t, node)) == 0 })
}
