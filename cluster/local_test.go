package cluster_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	gproto "google.golang.org/protobuf/proto"
)

func open(t testing.TB, dir string, compact int64) *cluster.Local {
	t.Helper()
	l, err := cluster.NewLocal(cluster.Config{Dir: dir, CompactBytes: compact})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func putRoom(name, metadata string) *pb.RegistryCommand {
	return &pb.RegistryCommand{Body: &pb.RegistryCommand_PutRoom{PutRoom: &pb.Room{Name: name, Template: "t", Metadata: metadata}}}
}

func propose(t testing.TB, l *cluster.Local, cmd *pb.RegistryCommand) {
	t.Helper()
	if err := l.Propose(context.Background(), cmd); err != nil {
		t.Fatal(err)
	}
}

func registryOf(l *cluster.Local) *pb.Registry {
	var r *pb.Registry
	l.Read(func(reg *pb.Registry) { r = gproto.Clone(reg).(*pb.Registry) })
	return r
}

func TestMemoryOnly(t *testing.T) {
	t.Parallel()
	l := open(t, "", 0)
	propose(t, l, putRoom("demo", ""))
	if err := l.Propose(context.Background(), putRoom("a/b", "")); proto.CodeOf(err) != proto.InvalidArgument {
		t.Errorf("bad room: %v", err)
	}
	if len(registryOf(l).GetRooms()) != 1 {
		t.Error("the room is not there")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Propose(context.Background(), putRoom("x", "")); proto.CodeOf(err) != proto.Shutdown {
		t.Errorf("after close: %v", err)
	}
}

func TestReopenWithAndWithoutCompaction(t *testing.T) {
	t.Parallel()
	for _, compact := range []int64{1 << 20, 2000, 1} {
		dir := t.TempDir()
		var want *pb.Registry
		for round := range 5 {
			l := open(t, dir, compact)
			if round > 0 && !gproto.Equal(registryOf(l), want) {
				t.Fatalf("compact at %d, round %d: got %v, want %v", compact, round, registryOf(l), want)
			}
			for i := range 40 {
				propose(t, l, putRoom(fmt.Sprint("room", i%7), strings.Repeat("m", i)))
			}
			_ = l.Propose(context.Background(), putRoom("", "")) // refused, but in the log
			want = registryOf(l)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTornLog cuts the log at every byte: what was whole before the cut is there, what follows is set aside, and the
// registry can be written again.
func TestTornLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, 1<<20)
	var sizes []int64
	for i := range 4 {
		propose(t, l, putRoom(fmt.Sprint("room", i), ""))
		info, err := os.Stat(filepath.Join(dir, "registry.log"))
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "registry.log"))
	if err != nil {
		t.Fatal(err)
	}
	for cut := range log {
		torn := t.TempDir()
		if err := os.WriteFile(filepath.Join(torn, "registry.log"), log[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		whole := 0
		for _, s := range sizes {
			if int64(cut) >= s {
				whole++
			}
		}
		l := open(t, torn, 1<<20)
		if n := len(registryOf(l).GetRooms()); n != whole {
			t.Fatalf("cut at %d: %d rooms, want %d", cut, n, whole)
		}
		propose(t, l, putRoom("after", ""))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, torn, 1<<20)
		if n := len(registryOf(l).GetRooms()); n != whole+1 {
			t.Fatalf("cut at %d, written on: %d rooms, want %d", cut, n, whole+1)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, 1)
	propose(t, l, putRoom("demo", ""))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "registry.snapshot")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.NewLocal(cluster.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir, 0)
	if _, err := cluster.NewLocal(cluster.Config{Dir: dir}); err == nil {
		t.Error("a second registry opened the same directory")
	}
}

func TestConcurrentProposals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, 3000)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				if err := l.Propose(context.Background(), putRoom(fmt.Sprintf("r%d-%d", w, i), "")); err != nil {
					t.Error(err)
				}
				l.Read(func(r *pb.Registry) {
					if r.GetRooms()[fmt.Sprintf("r%d-%d", w, i)] == nil {
						t.Error("an acknowledged room cannot be read")
					}
				})
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(registryOf(open(t, dir, 0)).GetRooms()); n != 400 {
		t.Errorf("%d rooms, want 400", n)
	}
}

// TestFullDisk fills a real file system while the registry is written: what does not fit is refused, and when there is room again
// the registry goes on, without a restart, behind what it had acknowledged.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l := open(t, dir, 64<<10)
	propose(t, l, putRoom("before", ""))
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
	// Larger than what is left of a page: a part of it fits.
	large := strings.Repeat("m", 10_000)
	for range 3 {
		if err := l.Propose(context.Background(), putRoom("refused", large)); !proto.CodeOf(err).Retryable() {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // with snapshots among them
		propose(t, l, putRoom(fmt.Sprint("after", i%3), large))
	}
	want := registryOf(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, 64<<10)
	got := registryOf(l)
	if !gproto.Equal(got, want) || len(got.GetRooms()) != 4 {
		t.Errorf("%d rooms, want before and three after", len(got.GetRooms()))
	}
	if torn, _ := filepath.Glob(filepath.Join(dir, "*.torn-*")); len(torn) > 0 {
		t.Errorf("what did not fit was left behind: %v", torn)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// childDir tells the test binary to be the process that is killed.
const childDir = "AMPHI_TEST_REGISTRY_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		goleak.VerifyTestMain(m)
	}
	l, err := cluster.NewLocal(cluster.Config{Dir: dir, CompactBytes: 2000})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var base uint64
	l.Read(func(r *pb.Registry) { base = r.GetRevision() })
	for i := base; ; i++ {
		if err := l.Propose(context.Background(), putRoom("demo", fmt.Sprint(i))); err != nil {
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

// TestKilled kills a process that writes, again and again: whatever it had acknowledged is there afterwards.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		guard := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		last, lines := "", bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			last = lines.Text()
			if n == 37+round*13 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		guard.Stop()
		l := open(t, dir, 2000)
		got := registryOf(l).GetRooms()["demo"].GetMetadata()
		var have, acknowledged int
		if _, err := fmt.Sscan(got+" "+last, &have, &acknowledged); err != nil || have < acknowledged {
			t.Fatalf("round %d: the registry has %q, acknowledged was %q (%v)", round, got, last, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzLog opens whatever bytes as a log: it may be refused, or cut, but never crashes, and what is opened can be
// written and read back.
func FuzzLog(f *testing.F) {
	dir := f.TempDir()
	l := open(f, dir, 1<<20)
	for i := range 3 {
		propose(f, l, putRoom(fmt.Sprint("r", i), ""))
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "registry.log"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(log)
	f.Add(log[:len(log)-3])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "registry.log"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := cluster.NewLocal(cluster.Config{Dir: dir})
		if err != nil {
			return
		}
		propose(t, l, putRoom("demo", ""))
		want := registryOf(l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if got := registryOf(open(t, dir, 0)); !gproto.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func BenchmarkPropose(b *testing.B) {
	l := open(b, b.TempDir(), 0)
	b.ReportAllocs()
	for b.Loop() {
		propose(b, l, putRoom("demo", ""))
	}
}
