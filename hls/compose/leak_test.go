package compose_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/amphi-sfu/amphi/hls/hlstest"
)

// Lives leave no descriptors behind. Not parallel: it counts those of the whole process.
func TestLivesLeaveNothing(t *testing.T) {
	before := descriptors(t)
	c := run(t, hlstest.Compositor{}, nil)
	for n := int64(1); n <= 5; n++ {
		c.poll("a life", func() bool { return c.Stats().Spawns == n && c.Stats().PID != 0 })
		if err := unix.Kill(c.Stats().PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.poll("its end", func() bool { return c.Stats().Exits == n })
	}
	c.stop()
	c.poll("as few descriptors as before", func() bool { return descriptors(t) <= before })
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
