package push

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/packager"
)

// eventually waits for a condition.
func eventually(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("within %v: not %s", d, what)
		}
	}
}

// need skips a test on a machine without a program that it needs.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed: deploy/setup test", name)
		}
	}
}

// freePort is a port that nobody had a moment ago.
func freePort(t *testing.T, network string) int {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// process is a server that a test started.
type process struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return startTo(t, nil, name, args...)
}

func startTo(t *testing.T, out *os.File, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...)}
	if out != nil {
		p.cmd.Stdout = out
	}
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// stop kills it and waits; it may be called twice.
func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// ends waits for the end of a process that ends by itself, for what it has buffered.
func (p *process) ends(t *testing.T) {
	t.Helper()
	timer := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	_ = p.cmd.Wait()
}

// rtmpServer is an nginx that records what is pushed to rtmp://127.0.0.1:port/live/<key>.
type rtmpServer struct {
	*process
	port int
	dir  string
}

func startNginx(t *testing.T, port int) *rtmpServer {
	t.Helper()
	nginx := "/usr/sbin/nginx"
	need(t, nginx)
	dir := t.TempDir()
	config := fmt.Sprintf(`
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log info;
events { worker_connections 64; }
rtmp { server { listen 127.0.0.1:%[2]d; chunk_size 4096; ping 1s; ping_timeout 2s;
  application live { live on; record all; record_path %[1]s; record_suffix -%%s.flv; record_unique on; } } }
`, dir, port)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &rtmpServer{start(t, nginx, "-c", file, "-p", dir), port, dir}
	eventually(t, 10*time.Second, "listening: nginx", func() bool {
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return s
}

func (s *rtmpServer) url(key string) string {
	return fmt.Sprintf("rtmp://127.0.0.1:%d/live/%s", s.port, key)
}

// recordings are the files of a key, in the order of their connections.
func (s *rtmpServer) recordings(t *testing.T, key string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, key+"-*.flv"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// startSRT listens for one caller and writes what it sends into a file.
func startSRT(t *testing.T, port int, params string) (*process, string) {
	t.Helper()
	need(t, "srt-live-transmit")
	file, err := os.Create(filepath.Join(t.TempDir(), "out.ts"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	listener := fmt.Sprintf("srt://127.0.0.1:%d?mode=listener%s", port, params)
	return startTo(t, file, "srt-live-transmit", "-q", "-a:no", listener, "file://con"), file.Name()
}

// packet is one of a file's, as ffprobe sees it.
type packet struct {
	video, key bool
	at         float64
}

func probe(t *testing.T, file string) []packet {
	t.Helper()
	need(t, "ffprobe")
	out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "packet=codec_type,pts_time,flags", "-of", "json", file).Output()
	if err != nil {
		t.Fatalf("ffprobe of %s: %v", file, err)
	}
	var r struct {
		Packets []struct {
			Type  string `json:"codec_type"`
			PTS   string `json:"pts_time"`
			Flags string `json:"flags"`
		} `json:"packets"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	var list []packet
	for _, p := range r.Packets {
		at, err := strconv.ParseFloat(p.PTS, 64)
		if err != nil {
			t.Fatalf("time of a packet: %v", err)
		}
		list = append(list, packet{p.Type == "video", strings.HasPrefix(p.Flags, "K"), at})
	}
	return list
}

// decodes has ffmpeg decode a file to its end, and fails on any complaint.
func decodes(t *testing.T, file string) {
	t.Helper()
	need(t, "ffmpeg")
	out, err := exec.Command("ffmpeg", "-v", "error", "-i", file, "-f", "null", "-").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("decoding %s: %v\n%s", file, err, out)
	}
}

// checkMedia checks pictures and sound: first a keyframe, steady, beside each other.
func checkMedia(t *testing.T, packets []packet, minPictures int) {
	t.Helper()
	var pictures, sounds int
	var firstV, lastV, firstA, lastA, gap float64
	for _, p := range packets {
		if p.video {
			if pictures == 0 {
				firstV = p.at
				if !p.key {
					t.Error("the first picture is no keyframe")
				}
			} else {
				gap = max(gap, p.at-lastV)
				if p.at <= lastV {
					t.Errorf("time of pictures goes from %v to %v", lastV, p.at)
				}
			}
			lastV = p.at
			pictures++
			continue
		}
		if sounds == 0 {
			firstA = p.at
		}
		lastA = p.at
		sounds++
	}
	t.Logf("%d pictures %.3f–%.3f s, longest gap %.3f; %d sounds %.3f–%.3f", pictures, firstV, lastV, gap, sounds, firstA, lastA)
	if pictures < minPictures {
		t.Errorf("%d pictures, want %d", pictures, minPictures)
	}
	if gap > 0.05 {
		t.Errorf("gap of %.3f s between pictures", gap)
	}
	if d := firstA - firstV; d < -0.001 || d > 0.05 {
		t.Errorf("sound begins %.3f s after the pictures", d)
	}
	if d := lastA - lastV; d < -0.1 || d > 0.1 {
		t.Errorf("sound ends %.3f s after the pictures", d)
	}
}

// program is a program made of the clip, in real time.
type program struct {
	clip  *hlstest.Clip
	run   packager.Run
	tick  int64 // the next one
	sound int64 // the next sample
	taps  []*Pusher
	// longest is how long one tick's calls took at most.
	longest time.Duration
}

const gop = 30 // ticks; the clip is cut short

func newProgram(t *testing.T, taps ...*Pusher) *program {
	t.Helper()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{clip: clip, taps: taps, tick: 300, sound: 300 * packager.AudioRate / hlstest.FPS}
	p.run = packager.Run{
		FPS: hlstest.FPS, Epoch: time.Now().Add(-10 * time.Second), FirstTick: p.tick,
		AudioConfig: hlstest.AudioConfig(), Variants: []packager.Variant{{Name: "a"}, {Name: "b"}},
	}
	p.begin()
	return p
}

func (p *program) begin() {
	for _, tap := range p.taps {
		tap.Begin(p.run)
	}
}

// step sends one tick.
func (p *program) step() {
	began := time.Now()
	for _, tap := range p.taps {
		data := p.clip.Video[p.tick%gop]
		tap.Video(0, p.tick, data)
	}
	end := (p.tick + 1) * packager.AudioRate / hlstest.FPS
	for ; p.sound < end; p.sound += 1024 {
		for _, tap := range p.taps {
			tap.Audio(p.sound, p.clip.Audio[p.sound/1024%int64(len(p.clip.Audio))])
		}
	}
	p.tick++
	p.longest = max(p.longest, time.Since(began))
}

// play sends in real time until ctx ends.
func (p *program) play(ctx context.Context) {
	tick := time.NewTicker(time.Second / hlstest.FPS)
	defer tick.Stop()
	first, began := p.tick, time.Now()
	for ctx.Err() == nil {
		for p.tick < first+int64(time.Since(began)*hlstest.FPS/time.Second) {
			p.step()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// playUntil sends until something is so.
func (p *program) playUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { p.play(ctx) })
	eventually(t, 30*time.Second, what, ok)
}

// playing sends beside the test until the function that it returns is called.
func (p *program) playing(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.play(ctx) })
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// running is a Pusher that runs.
type running struct {
	*Pusher
	done   chan error
	cancel context.CancelFunc

	mu     sync.Mutex
	states []State
}

func run(t *testing.T, cfg Config) *running {
	t.Helper()
	r := &running{done: make(chan error, 1)}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	cfg.OnState = func(s State) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.states = append(r.states, s)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Pusher = p
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// ends waits for the end of Run.
func (r *running) ends(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(15 * time.Second):
		t.Fatal("Run does not return")
		return nil
	}
}

// phases are those that were told, in order.
func (r *running) phases() []Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Phase
	for _, s := range r.states {
		if len(list) == 0 || list[len(list)-1] != s.Phase {
			list = append(list, s.Phase)
		}
	}
	return list
}
