package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/wire"
	"github.com/amphi-sfu/amphi/media/netem/tun"
)

// asWhat makes the test's binary another program.
const asWhat = "AMPHI_TEST_LAB"

func TestMain(m *testing.M) {
	switch os.Getenv(asWhat) {
	case "network":
		if err := wire.Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "victim":
		if err := victim(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		goleak.VerifyTestMain(m)
	}
}

func networkProcess() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asWhat+"=network")
	return cmd
}

func solo(tb testing.TB) Topology {
	tb.Helper()
	t, err := Builtin("solo")
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// newLab makes a lab with a program for its nodes; "" builds amphi.
func newLab(t *testing.T, topology Topology, program string) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if program == "" {
		program = filepath.Join(t.TempDir(), "amphi")
		cmd := exec.Command("go", "build", "-o", program, "github.com/amphi-sfu/amphi/cmd/amphi")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building amphi: %v\n%s", err, out)
		}
	}
	l, err := New(t.Context(), Config{
		Topology: topology, Seed: 3, Program: program, Switch: networkProcess, Dir: filepath.Join(t.TempDir(), "lab"),
		Prefix: fmt.Sprintf("amphi-test-%d-%s-", os.Getpid(), t.Name()[:8]),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		assertGone(t, l.cfg.Prefix, l.cfg.Dir)
	})
	return l
}

func assertGone(t *testing.T, prefix, dir string) {
	t.Helper()
	names, err := tun.NamedNamespaces(prefix)
	if err != nil || len(names) > 0 {
		t.Errorf("namespaces are left: %v, %v", names, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), dir+"/") {
		t.Errorf("file systems are left below %s (%v)", dir, err)
	}
}

// TestAnInjectedGapIsFound cuts a real node off for a known time, and finds what its clients must have noticed.
func TestAnInjectedGapIsFound(t *testing.T) {
	l := newLab(t, solo(t), "")
	f := hole("both", true, true)
	f.hold = 1500 * time.Millisecond
	rep := l.Run(t.Context(), []*Scenario{{fault: f, target: owner}}, 1, func(*Result) {})
	r := rep.Results[0]
	if r.Failed != "" || r.Skipped != "" {
		t.Fatalf("failed: %s, skipped: %s\n%s", r.Failed, r.Skipped, l.nodes[0].logTail(20))
	}
	t.Logf("%+v", r)
	for _, s := range []Spread{r.Direct.Audio, r.Direct.Video} {
		// Two publishers hear each other, a viewer hears both.
		if s.N != 4 || s.P50 < 1450*time.Millisecond || s.Max > 15*time.Second {
			t.Errorf("gaps %v of %d tracks, want over 1500 ms of 4", s, s.N)
		}
	}
	if r.Before.Audio.P50 > time.Second {
		t.Errorf("gaps of %v before anything was broken", r.Before.Audio)
	}
	if r.Messages.Lost+r.Messages.Reordered+r.Messages.Repeated > 0 || r.Messages.Acked == 0 || len(r.Store) > 0 {
		t.Errorf("messages %+v, store %v", r.Messages, r.Store)
	}
	if r.Back.N != 3 || r.Expired != 0 {
		t.Errorf("%d peers lost their node and came back, %d had to join anew; want 3 and 0", r.Back.N, r.Expired)
	}
	if rep.WriteText(io.Discard) != nil || rep.WriteJSON(io.Discard) != nil {
		t.Error("the report can't be written")
	}
}

// sleeper is a program that only waits, whatever its arguments.
func sleeper(dir string) (string, error) {
	name := filepath.Join(dir, "sleeper")
	return name, os.WriteFile(name, []byte("#!/bin/sh\necho \"$*\"\nexec sleep 600\n"), 0o755)
}

func TestANodeIsHandled(t *testing.T) {
	program, err := sleeper(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, solo(t), program)
	p := l.nodes[0]
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	err = l.await(t.Context(), 10*time.Second, func(context.Context) error {
		if tail := p.logTail(3); !strings.Contains(tail, "dev --http 10.66.1.1:7880") {
			return fmt.Errorf("its log ends with %q", tail)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if p.start() == nil {
		t.Error("a node that runs was started again")
	}
	if err := errors.Join(p.signal(syscall.SIGSTOP), p.signal(syscall.SIGCONT)); err != nil {
		t.Error(err)
	}
	if p.ready(t.Context()) == nil {
		t.Error("a program that does not listen is ready")
	}
	if err := p.stop(stopTimeout); err != nil || p.running() {
		t.Errorf("it did not end: %v", err)
	}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	p.kill()
	if p.running() {
		t.Error("it outlived kill -9")
	}
	if err := p.fillDisk(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.data(), "more"), make([]byte, 1<<16), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing to a full disk: %v", err)
	}
	if err := errors.Join(p.emptyDisk(), os.WriteFile(filepath.Join(p.data(), "more"), make([]byte, 1<<16), 0o600)); err != nil {
		t.Error(err)
	}
	if err := p.stepClock(-time.Minute); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(p.dir, clockFile)); err != nil || string(b) != "-60000\n" {
		t.Errorf("the clock's file holds %q, %v", b, err)
	}
	if _, err := New(t.Context(), l.cfg); err == nil {
		t.Error("two labs run at once")
	}
}

// victim is a lab that tells its directory and its node's process and waits to be killed.
func victim() error {
	dir := os.Getenv(asWhat + "_DIR")
	program, err := sleeper(filepath.Dir(dir))
	if err != nil {
		return err
	}
	topology, err := Builtin("solo")
	if err != nil {
		return err
	}
	l, err := New(context.Background(), Config{
		Topology: topology, Program: program, Switch: networkProcess, Dir: dir, Prefix: os.Getenv(asWhat + "_PREFIX"),
	})
	if err != nil {
		return err
	}
	if err := l.nodes[0].start(); err != nil {
		return err
	}
	fmt.Println(l.nodes[0].cmd.Process.Pid)
	select {}
}

// TestAKilledLabLeavesNothing kills a lab with -9: its nodes go with it, and the next lab removes the rest.
func TestAKilledLabLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "lab")
	prefix := fmt.Sprintf("amphi-test-%d-killed-", os.Getpid())
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asWhat+"=victim", asWhat+"_DIR="+dir, asWhat+"_PREFIX="+prefix)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	node, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if names, err := tun.NamedNamespaces(prefix); err != nil || len(names) != 2 {
		t.Errorf("namespaces %v, %v; want the node's and the clients'", names, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	deadline := time.Now().Add(10 * time.Second)
	for cpuAlive(node) {
		if time.Now().After(deadline) {
			t.Fatal("the node outlived its lab")
		}
		wait(t.Context(), 10*time.Millisecond)
	}
	if err := cleanUp(prefix, dir); err != nil {
		t.Error(err)
	}
	assertGone(t, prefix, dir)
}

// cpuAlive tells whether a process is there and no zombie.
func cpuAlive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
