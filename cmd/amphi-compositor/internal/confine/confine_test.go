package confine_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/confine"
)

const childEnv = "AMPHI_CONFINE_TEST_CHILD"

// TestMain is also the process that gets confined: what it could still do is on its standard output.
func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		goleak.VerifyTestMain(m) // exits
	}
	if err := confine.Apply(); err != nil {
		fmt.Println("apply:", err)
		os.Exit(3)
	}
	file := filepath.Join(dir, "there")
	did := func(what string, err error) {
		if err == nil {
			fmt.Println(what)
		}
	}
	// On several threads: the filter must hold on all of them.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			did("ran a program", exec.Command("/bin/true").Run())
			c, err := net.Dial("udp", "127.0.0.1:9")
			did("made a socket", err)
			if err == nil {
				_ = c.Close()
			}
			did("wrote a file", os.WriteFile(filepath.Join(dir, "new"), []byte("x"), 0o600))
			did("removed a file", os.Remove(file))
			did("renamed a file", os.Rename(file, file+"2"))
			did("changed a file's mode", os.Chmod(file, 0o777))
			node := os.Getppid()
			did("killed", syscall.Kill(node, 0))
			did("killed a thread", unix.Tgkill(node, node, 0))
			did("killed a thread by its number alone", call(unix.SYS_TKILL, uintptr(node), 0, 0, 0))
			info := unix.Siginfo{Code: -1} // SI_QUEUE
			did("queued a signal", call(unix.SYS_RT_SIGQUEUEINFO, uintptr(node), 0, uintptr(unsafe.Pointer(&info)), 0))
			var limit unix.Rlimit
			did("reached another's limits", unix.Prlimit(node, unix.RLIMIT_NOFILE, nil, &limit))
			var cpus unix.CPUSet
			cpus.Set(0)
			did("chose another's processors", unix.SchedSetaffinity(node, &cpus))
			nice, _ := unix.Getpriority(unix.PRIO_PROCESS, node) // 20 less the value
			did("set another's priority", unix.Setpriority(unix.PRIO_PROCESS, node, 20-nice))
			if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
				fmt.Println("cannot ask for its own limits:", err)
			}
			if err := unix.Tgkill(os.Getpid(), unix.Gettid(), 0); err != nil {
				fmt.Println("cannot interrupt its own threads:", err)
			}
		})
	}
	wg.Wait()
	if b, err := os.ReadFile(file); err != nil || string(b) != "content" {
		fmt.Println("cannot read:", err)
	}
	fmt.Println("done")
	os.Exit(0)
}

func call(number, a, b, c, d uintptr) error {
	if _, _, errno := unix.Syscall6(number, a, b, c, d, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func TestConfined(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 3 {
		t.Skipf("this kernel cannot: %s", out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.TrimSpace(string(out)); got != "done" {
		t.Errorf("a confined process: %s", got)
	}
}
