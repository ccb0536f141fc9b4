package compose_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media/packet"
)

// The test binary is its own compositor, and its own node for the test of orphans.
func TestMain(m *testing.M) {
	hlstest.Main()
	nodeMain()
	goleak.VerifyTestMain(m)
}

// recorder is an Output.
type recorder struct {
	changed chan struct{} // has a token after every change

	mu       sync.Mutex // guards the fields below
	begins   []int64
	gone     int
	pictures int
	sounds   int
	keys     []uint32
	last     int64
	refuse   error
	disorder int
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{}, 1)} }

func (r *recorder) do(f func()) {
	r.mu.Lock()
	f()
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) Begin(ready *wire.Ready) (err error) {
	r.do(func() {
		r.begins = append(r.begins, ready.FirstTick)
		err = r.refuse
	})
	return err
}

func (r *recorder) Video(au wire.VideoAU) {
	r.do(func() {
		if au.Tick <= r.last {
			r.disorder++
		}
		r.pictures, r.last = r.pictures+1, au.Tick
	})
}
func (r *recorder) Audio(wire.AudioAU)            { r.do(func() { r.sounds++ }) }
func (r *recorder) KeyframeRequest(in uint32)     { r.do(func() { r.keys = append(r.keys, in) }) }
func (r *recorder) Gone()                         { r.do(func() { r.gone++ }) }
func (r *recorder) lastTick(time.Time) int64      { r.mu.Lock(); defer r.mu.Unlock(); return r.last + 1 }
func (r *recorder) check(f func() bool) (ok bool) { r.mu.Lock(); defer r.mu.Unlock(); return f() }

// child runs a Child whose process is the fake; it is stopped at the test's end.
type child struct {
	*compose.Child
	t    *testing.T
	out  *recorder
	stop func()
}

func run(t *testing.T, fake hlstest.Compositor, change func(*compose.Config)) *child {
	t.Helper()
	cfg := fakeConfig(fake)
	out := newRecorder()
	cfg.FirstTick = out.lastTick
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if change != nil {
		change(&cfg)
	}
	c, err := compose.New(cfg, out)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return &child{Child: c, t: t, out: out, stop: stop}
}

func fakeConfig(fake hlstest.Compositor) compose.Config {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return compose.Config{
		Logger: slog.New(slog.DiscardHandler), Path: exe, Env: []string{fake.Env()}, Epoch: time.Now(),
		Start: wire.Start{
			Width: 320, Height: 180, FPS: 30, GOPTicks: 60, PartTicks: 15, AudioBitrate: 64_000,
			Variants: []wire.Variant{{Name: "180p", Width: 320, Height: 180, Bitrate: 300_000}},
		},
		Limits: compose.Limits{Memory: -1}, // the race detector reserves terabytes
		// Generous: the machine may be busy with other tests.
		Watchdog: 5 * time.Second, ReadyTimeout: 15 * time.Second, StopTimeout: 15 * time.Second,
	}
}

// until waits for a condition on what came out; f runs under the recorder's lock.
func (c *child) until(what string, f func(r *recorder) bool) {
	c.t.Helper()
	c.poll(what, func() bool { return c.out.check(func() bool { return f(c.out) }) })
}

func (c *child) poll(what string, f func() bool) {
	c.t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline.C:
			c.t.Fatalf("%s does not come true: %+v", what, c.Stats())
		}
	}
}

func TestDelivers(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{}, nil)
	c.until("half a second of program", func(r *recorder) bool { return r.pictures >= 15 && r.sounds >= 20 })
	s := c.Stats()
	if s.State != compose.Running || s.PID == 0 || s.Spawns != 1 || s.Exits != 0 || s.FirstPicture <= 0 || s.Pictures < 15 {
		t.Errorf("%+v", s)
	}
	if !c.out.check(func() bool { return len(c.out.begins) == 1 && c.out.begins[0]%15 == 0 && c.out.disorder == 0 }) {
		t.Errorf("begins at %v", c.out.begins)
	}
	begin := time.Now()
	c.stop()
	if d := time.Since(begin); d > 15*time.Second {
		t.Errorf("stopping took %v: it had to be killed", d)
	}
	if s := c.Stats(); s.State != compose.Down || s.Exits != 0 || !c.out.check(func() bool { return c.out.gone == 1 }) {
		t.Errorf("after the stop: %+v", s)
	}
}

func TestKilledAndBack(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{}, nil)
	c.until("a picture", func(r *recorder) bool { return r.pictures > 20 })
	first := c.Stats().PID
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	c.until("another begin", func(r *recorder) bool { return r.gone == 1 && len(r.begins) == 2 })
	had := c.out.check(func() bool { return c.out.begins[1] > c.out.begins[0] })
	c.until("more pictures", func(r *recorder) bool { return r.last >= r.begins[1]+5 })
	if d := time.Since(killed); d > 10*time.Second { // 1 s is the target on a machine of its own
		t.Errorf("back after %v", d)
	}
	s := c.Stats()
	if !had || s.PID == first || s.Spawns != 2 || s.Exits != 1 || !strings.Contains(s.LastExit, "killed") {
		t.Errorf("%+v", s)
	}
	t.Logf("back after %v, first picture %v after start", time.Since(killed), s.FirstPicture)
}

func TestMisbehaviour(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fake hlstest.Compositor
		exit string
	}{
		"silent":        {hlstest.Compositor{StopTick: 10}, "silent"},
		"never ready":   {hlstest.Compositor{Mute: true}, "silent"},
		"ends":          {hlstest.Compositor{ExitTick: 5}, "hung up"},
		"talks rubbish": {hlstest.Compositor{Rubbish: true}, "unknown frame type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ch := run(t, c.fake, func(cfg *compose.Config) { cfg.ReadyTimeout, cfg.Watchdog = 2*time.Second, time.Second })
			ch.poll("a second end", func() bool { return ch.Stats().Exits >= 2 })
			if s := ch.Stats(); !strings.Contains(s.LastExit, c.exit) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestRefusedBegin(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{}, func(cfg *compose.Config) { cfg.FirstTick = func(time.Time) int64 { return 0 } })
	c.out.do(func() { c.out.refuse = errors.New("not wanted") })
	c.poll("the end", func() bool { return strings.Contains(c.Stats().LastExit, "not wanted") })
}

func TestWillNotStop(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{IgnoreEOF: true}, func(cfg *compose.Config) { cfg.StopTimeout = 300 * time.Millisecond })
	c.until("a picture", func(r *recorder) bool { return r.pictures > 0 })
	pid := c.Stats().PID
	c.stop()
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

func TestNoExecutable(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{}, func(cfg *compose.Config) {
		cfg.Path = filepath.Join(t.TempDir(), "nothing")
		cfg.MaxBackoff = 10 * time.Millisecond
	})
	c.poll("three tries", func() bool { return c.Stats().Spawns >= 3 })
	if s := c.Stats(); !strings.Contains(s.LastExit, "no such file") {
		t.Errorf("%+v", s)
	}
}

func desired(n int) compose.Desired {
	var d compose.Desired
	for i := range uint32(n) {
		d.Inputs = append(d.Inputs, wire.AddInput{ID: i + 1, Kind: wire.Video, Name: fmt.Sprint(i), Formats: []wire.Format{{PayloadType: 96, Codec: wire.VP8, ClockRate: 90000}}})
		d.Scene.Tiles = append(d.Scene.Tiles, wire.Tile{Input: i + 1, W: 100, H: 100})
		d.Mix.Inputs = append(d.Mix.Inputs, wire.Gain{Input: i + 1, Gain: 1})
	}
	return d
}

func TestSet(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{KeyframeRequests: true}, nil)
	sees := func(n int) func() bool {
		return func() bool {
			s := c.Stats().Compositor
			return s != nil && len(s.Inputs) == n && s.PaintNS == int64(n) && s.MixNS == int64(n)
		}
	}
	c.Set(desired(3)) // perhaps before the process is there
	c.poll("three inputs", sees(3))
	c.until("keyframe requests", func(r *recorder) bool { return len(r.keys) == 3 })
	c.Set(desired(1))
	c.poll("one input", sees(1))
	c.Set(desired(2))
	c.poll("two inputs", sees(2))
	if err := unix.Kill(c.Stats().PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.poll("a new life", func() bool { return c.Stats().Spawns == 2 })
	c.poll("two inputs again", sees(2))
}

func TestPackets(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{}, nil)
	c.Set(desired(2))
	c.until("a picture", func(r *recorder) bool { return r.pictures > 0 })
	before := c.Stats().Packets
	p := &packet.Packet{ExtSeq: 70_000, Payload: make([]byte, 1000)}
	for range 200 {
		c.WriteRTP(1, p)
		c.WriteSenderReport(1, packet.SenderReport{})
		c.WriteRTP(9, p)
	}
	c.poll("packets", func() bool {
		s := c.Stats().Compositor
		return s != nil && len(s.Inputs) == 2 && s.Inputs[0].Packets == 200 && s.Inputs[1].Packets == 0
	})
	c.WriteRTP(1, &packet.Packet{Payload: make([]byte, 3000)})
	if s := c.Stats(); s.Packets-before != 400 || s.Drops[compose.DropTooLong] != 1 {
		t.Errorf("%+v", s)
	}
}

// A process that reads nothing costs memory up to the bound, blocks nobody, and is
// killed in the end when control frames pile up, too.
func TestDeaf(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{Deaf: true}, func(cfg *compose.Config) { cfg.MaxQueue = 200_000 })
	c.until("a picture", func(r *recorder) bool { return r.pictures > 0 })
	p := &packet.Packet{Payload: make([]byte, 1000)}
	c.poll("a full queue", func() bool {
		for range 100 {
			c.WriteRTP(1, p)
		}
		return c.Stats().Drops[compose.DropQueueFull] > 0
	})
	c.poll("its end", func() bool {
		for i := range 50 {
			c.Set(desired(i % 2 * 60))
		}
		return c.Stats().Exits > 0
	})
	if s := c.Stats(); !strings.Contains(s.LastExit, "does not read") {
		t.Errorf("%+v", s)
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	c, err := compose.New(func() compose.Config {
		cfg := fakeConfig(hlstest.Compositor{})
		cfg.FirstTick = func(time.Time) int64 { return 0 }
		return cfg
	}(), newRecorder())
	if err != nil {
		t.Fatal(err)
	}
	c.Set(desired(1))
	c.WriteRTP(1, &packet.Packet{})
	c.WriteSenderReport(1, packet.SenderReport{})
	if s := c.Stats(); s.Drops[compose.DropNoCompositor] != 2 || s.State != compose.Down {
		t.Errorf("%+v", s)
	}
}

func TestLimitsHold(t *testing.T) {
	t.Parallel()
	c := run(t, hlstest.Compositor{}, func(cfg *compose.Config) { cfg.Limits.Memory = 1 << 40 })
	c.until("a picture", func(r *recorder) bool { return r.pictures > 0 })
	pid := c.Stats().PID
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{"Max data size": "1099511627776", "Max open files": "64", "Max core file size": "0", "Max file size": "0"} {
		found := false
		for line := range strings.Lines(string(b)) {
			found = found || strings.HasPrefix(line, what) && strings.Fields(strings.TrimPrefix(line, what))[1] == want
		}
		if !found {
			t.Errorf("%s is not %s in\n%s", what, want, b)
		}
	}
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if nice, err := unix.Getpriority(unix.PRIO_PROCESS, pid); err != nil || nice != max(1, own-5) {
		t.Errorf("priority %d of ours %d, %v", nice, own, err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err == nil && strings.Contains(string(env), "GOPATH=") || strings.Count(string(env), "\x00") > 5 {
		t.Errorf("environment %q", env)
	}
}

const nodeEnv = "AMPHI_TEST_NODE"

// nodeMain is a node that runs a compositor and prints its process id.
func nodeMain() {
	if os.Getenv(nodeEnv) == "" {
		return
	}
	out := newRecorder()
	cfg := fakeConfig(hlstest.Compositor{IgnoreEOF: true})
	cfg.FirstTick = out.lastTick
	c, err := compose.New(cfg, out)
	if err != nil {
		panic(err)
	}
	go func() { _ = c.Run(context.Background()) }()
	for range out.changed {
		fmt.Println(c.Stats().PID)
	}
}

// A node that is killed leaves no orphan, even one that ignores the end of its socket.
func TestNoOrphan(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	node := exec.Command(exe)
	node.Env = append(os.Environ(), nodeEnv+"=1")
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanln(out, &pid); err != nil || pid == 0 {
		t.Fatalf("process id %d, %v", pid, err)
	}
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for alive(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("compositor %d outlived its node", pid)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}
