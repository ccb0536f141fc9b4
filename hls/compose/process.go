package compose

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is the running child.
type process struct {
	cmd    *exec.Cmd
	killed atomic.Bool
	state  atomic.Pointer[os.ProcessState]
}

// spawn starts the process. dead is closed when it has ended and been waited for.
//
// A death signal is sent when the parent *thread* ends, so the thread that starts the
// process belongs to it alone and stays until it is gone.
func (c *Child) spawn(childEnd *os.File, dead chan struct{}) (*process, error) {
	p := &process{}
	started := make(chan error, 1)
	go func() { // waited for through dead
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(dead)
		err := c.start(p, childEnd)
		started <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait() // how it ended is in ProcessState
		p.state.Store(p.cmd.ProcessState)
	}()
	if err := <-started; err != nil {
		<-dead
		return nil, fmt.Errorf("starting the compositor: %w", err)
	}
	c.limit(p.cmd.Process.Pid)
	return p, nil
}

// start tries as nobody first, if the node may choose. Where the executable cannot be
// reached as nobody, it runs as the node does, which is said once.
func (c *Child) start(p *process, childEnd *os.File) error {
	l := c.cfg.Limits
	p.cmd = c.command(childEnd)
	if os.Geteuid() != 0 {
		c.note(func(s *Stats) { s.Unprivileged = true })
		return p.cmd.Start()
	}
	p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: l.UID, Gid: l.GID}
	err := p.cmd.Start()
	if err == nil {
		c.note(func(s *Stats) { s.Unprivileged = true })
		return nil
	}
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	c.mu.Lock()
	warn := !c.warned
	c.warned = true
	c.stats.Unprivileged = false
	c.mu.Unlock()
	if warn {
		c.log.Warn("compositor runs as root: no permission to start it as another user", "path", c.cfg.Path, "uid", l.UID, "err", err)
	}
	p.cmd = c.command(childEnd)
	return p.cmd.Start()
}

func (c *Child) command(childEnd *os.File) *exec.Cmd {
	cmd := exec.Command(c.cfg.Path, c.cfg.Args...)
	cmd.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LANG=C.UTF-8"}, c.cfg.Env...)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{childEnd}
	cmd.Stderr = &lines{log: c.log}
	// What the process leaves behind (it should not) must not keep Wait from returning.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // a node that is killed leaves no orphan
		Setpgid:   true,            // Ctrl-C is for the node, which then stops its children in order
	}
	return cmd
}

// limit bounds the process from outside. That it fails is no reason not to go on: the
// process may have ended already.
func (c *Child) limit(pid int) {
	l := c.cfg.Limits
	set := func(what string, err error) {
		if err != nil && !errors.Is(err, unix.ESRCH) {
			c.log.Warn("compositor is not limited", "what", what, "err", err)
		}
	}
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil { // the system call returns 20 - nice
		err = unix.Setpriority(unix.PRIO_PROCESS, pid, min(19, 20-nice+l.Nice))
	}
	set("nice", err)
	for _, r := range []struct {
		what     string
		resource int
		n        uint64
	}{
		{"memory", unix.RLIMIT_DATA, uint64(max(0, l.Memory))},
		{"files", unix.RLIMIT_NOFILE, l.Files},
		{"core", unix.RLIMIT_CORE, 0},
		{"file size", unix.RLIMIT_FSIZE, 0},
	} {
		if r.resource == unix.RLIMIT_DATA && l.Memory < 0 {
			continue
		}
		set(r.what, unix.Prlimit(pid, r.resource, &unix.Rlimit{Cur: r.n, Max: r.n}, nil))
	}
}

func (p *process) kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill() // only fails when it is gone already
}

// exit says how the process ended, unless by our own hand.
func (p *process) exit() string {
	st := p.state.Load()
	if st == nil || p.killed.Load() && !st.Exited() {
		return ""
	}
	return st.String()
}

// lines logs what the process prints, whole lines of bounded length and number.
type lines struct {
	log *slog.Logger

	mu    sync.Mutex // guards the fields below
	buf   []byte
	left  int
	since time.Time
}

const (
	maxLine        = 512
	linesPerSecond = 20
)

// Write implements io.Writer and never fails.
func (w *lines) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, b...)
	for {
		i := bytes.IndexByte(w.buf, '\n')
		if i < 0 {
			if len(w.buf) < maxLine {
				return len(b), nil
			}
			i = maxLine - 1
		}
		w.line(string(w.buf[:min(i, maxLine)]))
		w.buf = append(w.buf[:0], w.buf[i+1:]...)
	}
}

func (w *lines) line(s string) {
	if now := time.Now(); now.Sub(w.since) >= time.Second {
		w.left, w.since = linesPerSecond, now
	}
	if w.left--; w.left >= 0 {
		w.log.Info("compositor says", "line", s)
	}
}
