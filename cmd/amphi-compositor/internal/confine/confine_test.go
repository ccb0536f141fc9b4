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

	"go.uber.org/goleak"

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
			did("killed", syscall.Kill(os.Getppid(), 0))
		})
	}
	wg.Wait()
	if b, err := os.ReadFile(file); err != nil || string(b) != "content" {
		fmt.Println("cannot read:", err)
	}
	fmt.Println("done")
	os.Exit(0)
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
