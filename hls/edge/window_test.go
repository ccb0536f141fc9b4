package edge_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/amphi-sfu/amphi/hls/edge"
	"github.com/amphi-sfu/amphi/hls/serve"
)

// The whole playlist is asked for once. From then on deltas come, and what players get is the origin's to the byte, also when the
// window has moved beyond all that was in the first one.
func TestTheWholeComesOnce(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(40)
	w := newWorld(t, edge.Config{}, m)
	direct, err := serve.New(serve.Config{}, m)
	if err != nil {
		t.Fatal(err)
	}
	const whole = base + "720p/index.m3u8"
	if a := w.get("720p/index.m3u8"); a.Code != http.StatusOK {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	for part := 40; part < 120; part++ {
		m.parts(1)
		for _, accept := range []string{"", "gzip"} {
			path := fmt.Sprintf("720p/index.m3u8?_HLS_msn=%d&_HLS_part=%d", 100+part/4, part%4)
			r := httptest.NewRequest(http.MethodGet, base+path, nil)
			r.Header.Set("Accept-Encoding", accept)
			want := httptest.NewRecorder()
			direct.ServeHTTP(want, r)
			got := w.get(path, "Accept-Encoding", accept)
			if got.Code != http.StatusOK || got.Body.String() != want.Body.String() || got.Header().Get("ETag") != want.Header().Get("ETag") {
				t.Fatalf("%s (%s): %d %v, want %v\n%s", path, accept, got.Code, got.Header(), want.Header(), got.Body)
			}
		}
	}
	if n := m.count(whole); n != 1 {
		t.Errorf("the whole playlist was asked for %d times", n)
	}
}
