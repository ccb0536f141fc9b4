//go:build cgo

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes the test binary be the compositor itself, so that tests drive a
// real process, with the race detector where it is on.
const childEnv = "AMPHI_COMPOSITOR_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "compositor child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestVersionNamesTheLicence(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run([]string{"--version"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"GNU General Public License", "libavcodec 59", "libopus"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q misses %q", out.String(), want)
		}
	}
}

func TestUnknownFlag(t *testing.T) {
	t.Parallel()
	if err := run([]string{"--nonsense"}, nil, &bytes.Buffer{}); err == nil {
		t.Fatal("accepted")
	}
}
