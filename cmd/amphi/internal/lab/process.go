package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/peer"
	"github.com/amphi-sfu/amphi/media/netem/tun"
)

const (
	httpPort = 7880
	// dataSize is that of each node's data directory, a file system of its own.
	dataSize = "64m"
	// clockFile, in a node's directory, holds what is added to its clock, in milliseconds.
	clockFile = "clock"
	clockEnv  = "AMPHI_CLOCK_OFFSET_FILE"
	// stopTimeout is how long a node may take to end when asked to.
	stopTimeout = 15 * time.Second
)

// process is one node: its namespace, its directory, and the program while it runs.
type process struct {
	Node
	space   *tun.Namespace
	url     string
	dir     string
	program string
	args    []string
	http    *http.Client // from inside its own namespace, whatever the network is like

	mu     sync.Mutex // guards the fields below
	cmd    *exec.Cmd
	done   chan struct{}
	starts int
	paused bool
}

func newProcess(n Node, space *tun.Namespace, addr, dir, program string) (*process, error) {
	p := &process{
		Node: n, space: space, url: fmt.Sprintf("http://%s:%d", addr, httpPort), dir: filepath.Join(dir, n.ID), program: program,
		http: peer.HTTPClient(space),
	}
	if err := os.MkdirAll(p.data(), 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of %s: %w", n.ID, err)
	}
	if err := unix.Mount(mountSource, p.data(), "tmpfs", 0, "size="+dataSize); err != nil {
		return nil, fmt.Errorf("making the disk of %s: %w", n.ID, err)
	}
	return p, os.WriteFile(filepath.Join(p.dir, clockFile), []byte("0\n"), 0o600)
}

func (p *process) data() string { return filepath.Join(p.dir, "data") }

// start runs the program in its namespace; what it writes goes to log files of its own.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runningLocked() {
		return fmt.Errorf("%s runs already", p.ID)
	}
	p.starts++
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", p.ID, err)
	}
	defer log.Close()
	fmt.Fprintf(log, "--- start %d at %s\n", p.starts, time.Now().Format(time.RFC3339Nano))
	cmd := exec.Command(p.program, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.Env = append(os.Environ(), clockEnv+"="+filepath.Join(p.dir, clockFile))
	// It dies with this process, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		// The death signal is that of the thread, which stays in the namespace until the program has ended.
		err := p.space.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				_ = cmd.Wait() // how it ended is in its log, and was most often the lab's doing
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	if err := <-started; err != nil {
		<-done
		return fmt.Errorf("starting %s: %w", p.ID, err)
	}
	p.cmd, p.done, p.paused = cmd, done, false
	return nil
}

func (p *process) runningLocked() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runningLocked()
}

// signal sends one to the program, if it runs.
func (p *process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runningLocked() {
		return fmt.Errorf("%s does not run", p.ID)
	}
	switch s {
	case syscall.SIGSTOP:
		p.paused = true
	case syscall.SIGCONT:
		p.paused = false
	}
	return p.cmd.Process.Signal(s)
}

// kill ends it at once and waits.
func (p *process) kill() {
	if p.signal(syscall.SIGKILL) == nil {
		<-p.ended()
	}
}

// ended is closed when the program has.
func (p *process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// stop asks it to end, as an operator does, and waits; it fails when it had to be killed.
func (p *process) stop(timeout time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-p.ended():
		return nil
	case <-t.C:
		p.kill()
		return fmt.Errorf("%s did not end within %v", p.ID, timeout)
	}
}

// ready asks the node whether clients are welcome.
func (p *process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", p.ID, resp.Status)
	}
	return nil
}

// fillDisk leaves no room in its data directory; emptyDisk gives it back.
func (p *process) fillDisk() error {
	f, err := os.Create(p.ballast())
	if err != nil {
		return fmt.Errorf("filling the disk of %s: %w", p.ID, err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err = f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("filling the disk of %s: %w", p.ID, err)
	}
	return nil
}

func (p *process) emptyDisk() error { return os.Remove(p.ballast()) }

func (p *process) ballast() string { return filepath.Join(p.data(), "ballast") }

// stepClock sets what is added to the node's clock.
func (p *process) stepClock(d time.Duration) error {
	// Renamed into place, so that the node never reads half of it.
	name := filepath.Join(p.dir, clockFile)
	if err := os.WriteFile(name+".new", []byte(strconv.FormatInt(d.Milliseconds(), 10)+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// logTail are the last lines of its log.
func (p *process) logTail(lines int) string {
	data, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// usage is the CPU time of the program so far, 0 when it does not run.
func (p *process) usage() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runningLocked() {
		return 0
	}
	return cpuOf(p.cmd.Process.Pid)
}

// cpuOf reads user and system time, in ticks of 10 ms; proc(5).
func cpuOf(pid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}
