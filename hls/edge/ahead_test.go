package edge_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/amphi-sfu/amphi/hls/edge"
)

// While players take the parts, the next one is asked for before it exists; while they only look at the playlist, it is not. No part
// is asked for twice either way.
func TestTheNextPartIsAskedForAhead(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(8)
	w := newWorld(t, edge.Config{}, m)
	part := func(k int) string { return fmt.Sprintf("720p/9-%d.%d.m4s", 100+k/4, k%4) }
	reload := func(k int) {
		t.Helper()
		later := w.later(fmt.Sprintf("720p/index.m3u8?_HLS_msn=%d&_HLS_part=%d", 100+k/4, k%4))
		m.parts(1)
		if a := <-later; a.Code != http.StatusOK {
			t.Fatalf("part %d: %d %s", k, a.Code, a.Body)
		}
	}
	w.get("720p/index.m3u8")
	for k := 8; k < 12; k++ {
		reload(k)
	}
	if n := m.count(base + part(12)); n > 0 {
		t.Errorf("a part that nobody would want was asked for %d times", n)
	}
	for k := 12; k < 20; k++ {
		reload(k)
		if a := w.get(part(k)); a.Code != http.StatusOK {
			t.Fatalf("part %d: %d", k, a.Code)
		}
	}
	reload(20) // part 19 was taken
	w.until("part 21 is asked for", func() bool { return m.count(base+part(21)) == 1 })
	later := w.later(part(21))
	m.parts(1)
	if a := <-later; a.Code != http.StatusOK || a.Body.Len() == 0 {
		t.Fatalf("the part that was asked for ahead: %d", a.Code)
	}
	for k := 12; k < 22; k++ {
		if n := m.count(base + part(k)); n > 1 {
			t.Errorf("part %d was asked for %d times", k, n)
		}
	}
}
