package storage

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	accessKey = "amphi"
	secretKey = "secret-of-the-test"
	bucket    = "recordings"
)

// binary is the S3 server that tests start: versitygw, built from a module of its own, once.
func binary(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	path := filepath.Join(root, ".cache", "bin", "versitygw")
	buildOnce.Do(func() {
		if _, err := os.Stat(path); err == nil {
			return
		}
		build := exec.Command("go", "build", "-o", path, "github.com/versity/versitygw/cmd/versitygw")
		build.Dir = filepath.Join(root, "deploy", "tools")
		if out, err := build.CombinedOutput(); err != nil {
			t.Errorf("building the S3 server: %v\n%s", err, out)
		}
	})
	return path
}

var buildOnce sync.Once

// server is a real S3 server, in front of which a relay counts bytes and can be cut.
type server struct {
	t       *testing.T
	dir     string
	beside  string // what it knows of objects
	address string // of the server
	process *exec.Cmd
	log     *bytes.Buffer
}

// startServer starts a server with an empty bucket that keeps its objects in dir.
func startServer(t *testing.T) *server {
	t.Helper()
	return startServerIn(t, t.TempDir())
}

func startServerIn(t *testing.T, dir string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, beside: t.TempDir(), address: l.Addr().String()}
	_ = l.Close()
	if err := os.MkdirAll(filepath.Join(s.dir, bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.log = &bytes.Buffer{}
	s.process = exec.Command(binary(s.t), "--port", s.address, "posix", "--sidecar", s.beside, s.dir)
	s.process.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey)
	s.process.Stdout, s.process.Stderr = s.log, s.log
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the S3 server", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

// stop kills the server; start brings it back.
func (s *server) stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	_ = s.process.Wait() // it was killed
	s.process = nil
}

func (s *server) config(address string) S3Config {
	return S3Config{Endpoint: "http://" + address, Bucket: bucket, AccessKey: accessKey, SecretKey: secretKey, PathStyle: true, PartSize: minPart}
}

func (s *server) store(change func(*S3Config)) *S3 {
	s.t.Helper()
	cfg := s.config(s.address)
	if change != nil {
		change(&cfg)
	}
	store, err := NewS3(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(store.Close)
	return store
}

// relay passes connections on and counts what goes to the server; beyond limit bytes it cuts them.
type relay struct {
	address string
	sent    atomic.Int64
	limit   atomic.Int64
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: l.Addr().String()}
	r.limit.Store(1 << 60)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.pass(in, to) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); r.limit.Store(0); wg.Wait() })
	return r
}

func (r *relay) pass(in net.Conn, to string) {
	out, err := net.Dial("tcp", to)
	if err != nil {
		_ = in.Close()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}()
	b := make([]byte, 32<<10)
	for {
		_ = in.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := in.Read(b)
		if r.sent.Add(int64(n)) > r.limit.Load() {
			break
		}
		if _, werr := out.Write(b[:n]); werr != nil {
			break
		}
		if err != nil && !os.IsTimeout(err) {
			break
		}
	}
	_ = out.Close()
	_ = in.Close()
	<-done
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not in time", what)
		}
	}
}
