package compose

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
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
	return p, nil
}

// start runs the process as nobody, if the node may choose. Where nobody cannot reach
// the executable, it runs as the node does, which is said once.
func (c *Child) start(p *process, childEnd *os.File) error {
	path, err := filepath.EvalSymlinks(c.cfg.Path)
	if err != nil {
		return err
	}
	p.cmd = c.command(path, childEnd)
	unprivileged := os.Geteuid() != 0
	if !unprivileged {
		if unprivileged = reachable(path); unprivileged {
			p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.cfg.Limits.UID, Gid: c.cfg.Limits.GID}
		} else {
			c.warnOnce(path)
		}
	}
	c.note(func(s *Stats) { s.Unprivileged = unprivileged })
	return p.cmd.Start()
}

func (c *Child) warnOnce(path string) {
	c.mu.Lock()
	warn := !c.warned
	c.warned = true
	c.mu.Unlock()
	if warn {
		c.log.Warn("compositor runs as root: others may not execute it", "path", path)
	}
}

// reachable says whether any user may execute path.
func reachable(path string) bool {
	for first := true; ; first = false {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm()&1 == 0 || first && st.Mode().Perm()&4 == 0 {
			return false
		}
		up := filepath.Dir(path)
		if up == path {
			return true
		}
		path = up
	}
}

func (c *Child) command(path string, childEnd *os.File) *exec.Cmd {
	cmd := c.cfg.Limits.command(context.Background(), path, c.cfg.Args...)
	cmd.Env = append(cmd.Env, c.cfg.Env...)
	cmd.ExtraFiles = []*os.File{childEnd}
	cmd.Stderr = &lines{log: c.log}
	return cmd
}

// command sets limits in a shell that the program then replaces: they hold from its
// first instruction, for any user, and setting them needs no capability.
func (l Limits) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	script := fmt.Sprintf("ulimit -c 0; ulimit -f 0; ulimit -n %d; ", l.Files)
	if l.Memory >= 0 {
		script += fmt.Sprintf("ulimit -d %d; ", l.Memory>>10)
	}
	script += fmt.Sprintf(`exec nice -n %d "$0" "$@"`, l.Nice)
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, path}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	// What the process leaves behind (it should not) must not keep Wait from returning.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // a node that is killed leaves no orphan
		Setpgid:   true,            // Ctrl-C is for the node, which then stops its children in order
	}
	return cmd
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
