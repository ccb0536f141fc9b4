package record

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// crashDir tells the test's child process where to record until it is killed.
const crashDir = "AMPHI_RECORD_CRASH_DIR"

// H10: a process that records in real time is killed with SIGKILL. What it had composed is there but for the last 2 s, before anybody has
// touched the files, and after Recover.
func TestKilledProcessLosesTwoSecondsAtMost(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv(crashDir); dir != "" {
		recordUntilKilled(t, dir)
		return
	}
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	composed := 0
	for lines := bufio.NewScanner(out); composed < 187 && lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "tick "); ok {
			composed, _ = strconv.Atoi(n)
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	if composed < 187 {
		t.Fatalf("the child composed %d pictures", composed)
	}
	video, audio := frames(t, filepath.Join(dir, "rec1", rawName("720p", 0)))
	s := &states{}
	r, _ := run(t, Config{Source: newProgram(t, "720p"), Dir: dir}, s)
	if found, err := r.Recover(); err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Stopped })
	video2, audio2 := frames(t, filepath.Join(dir, "rec1", "720p.mp4"))
	lost := time.Duration(composed-len(video)) * time.Second / 30
	t.Logf("composed %d pictures, %d are there: %v lost", composed, len(video), lost)
	if lost > 2*time.Second {
		t.Errorf("%v lost", lost)
	}
	if len(video2) != len(video) || len(audio2) != len(audio) || len(audio) < len(video)*3/2 {
		t.Errorf("as it was left: %d and %d frames; recovered: %d and %d", len(video), len(audio), len(video2), len(audio2))
	}
	decodes(t, filepath.Join(dir, "rec1", "720p.mp4"))
	decodes(t, filepath.Join(dir, "rec1", "720p.m3u8"))
}

// recordUntilKilled composes and records in real time, and says how far it is.
func recordUntilKilled(t *testing.T, dir string) {
	p := newProgram(t, "720p")
	r, _ := run(t, Config{Source: p, Dir: dir}, &states{})
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Second / 30)
	defer tick.Stop()
	for n := range 3600 {
		<-tick.C
		p.play(1)
		fmt.Printf("tick %d\n", n+1)
	}
}
