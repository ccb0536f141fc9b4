package refusal

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneLineASecondTellsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := New(slog.New(slog.NewTextHandler(&out, nil)), "refused")
		for range 1000 {
			c.Add("garbage", "192.0.2.1", errors.New("no TLS"))
		}
		c.Add("foreign", "192.0.2.2", nil)
		if lines := strings.Count(out.String(), "\n"); lines != 1 {
			t.Errorf("%d lines in one second", lines)
		}
		<-time.After(every)
		out.Reset()
		c.Add("garbage", "192.0.2.1", errors.New("no TLS"))
		if line := out.String(); !strings.Contains(line, "garbage=1000") || !strings.Contains(line, "foreign=1") {
			t.Errorf("the next line: %s", line)
		}
		if got := c.Totals(); got["garbage"] != 1001 || got["foreign"] != 1 {
			t.Errorf("totals %v", got)
		}
	})
}
