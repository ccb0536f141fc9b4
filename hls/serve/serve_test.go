package serve_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	gproto "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/serve"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type one struct{ p *packager.Packager }

func (o one) Program(room, stream string) (*packager.Packager, bool) {
	return o.p, room == "demo" && stream == "main"
}

type stage struct {
	t     testing.TB
	p     *packager.Packager
	h     *serve.Handler
	clip  *hlstest.Clip
	tick  int64
	audio int64
}

func newStage(t testing.TB, cfg serve.Config) *stage {
	t.Helper()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	p, err := packager.New(packager.Config{
		Epoch: 9, Start: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), FirstMSN: 100,
		Variants: []packager.Variant{{Name: "720p", Bitrate: 300_000}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.SetAudioConfig(hlstest.AudioConfig()), p.Begin(0)); err != nil {
		t.Fatal(err)
	}
	h, err := serve.New(cfg, one{p})
	if err != nil {
		t.Fatal(err)
	}
	return &stage{t: t, p: p, h: h, clip: clip}
}

// parts plays n parts.
func (s *stage) parts(n int) {
	s.t.Helper()
	for range n * 15 {
		if err := s.p.WriteVideo(0, s.tick, s.clip.Video[s.tick%60]); err != nil {
			s.t.Fatal(err)
		}
		s.tick++
		for ; s.audio < s.tick*1600; s.audio += 1024 {
			if err := s.p.WriteAudio(s.audio, s.clip.Audio[0]); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *stage) get(path string, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

func (s *stage) want(path string, status int, cache string) string {
	s.t.Helper()
	w := s.get(path)
	if w.Code != status || w.Header().Get("Cache-Control") != cache || w.Header().Get("Access-Control-Allow-Origin") != "*" {
		s.t.Errorf("%s: %d %v\n%s", path, w.Code, w.Header(), w.Body)
	}
	if status >= 400 {
		s.wantError(path, w)
	}
	return w.Body.String()
}

// wantError checks that the body is an error as PROTOCOL.md has it, with the code for the status.
func (s *stage) wantError(path string, w *httptest.ResponseRecorder) *amphiv1.Error {
	s.t.Helper()
	var body map[string]json.RawMessage
	e := &amphiv1.Error{}
	err := json.Unmarshal(w.Body.Bytes(), &body)
	if err == nil {
		err = protojson.Unmarshal(body["error"], e)
	}
	want := map[int]proto.Code{
		400: proto.InvalidArgument, 401: proto.Unauthenticated, 404: proto.NotFound, 405: proto.InvalidArgument, 503: proto.Unavailable,
	}[w.Code]
	if err != nil || len(body) != 1 || e.GetCode() != string(want) || e.GetMessage() == "" || e.GetRetryable() != (w.Code == 503) ||
		w.Header().Get("Content-Type") != "application/json" {
		s.t.Errorf("%s: %d %v %q: %v, want code %q", path, w.Code, w.Header(), w.Body, err, want)
	}
	return e
}

const (
	immutable = "public, max-age=31536000, immutable"
	short     = "public, max-age=1"
	base      = "/v1/hls/demo/main/"
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	s := newStage(t, serve.Config{})
	s.parts(6)
	if b := s.want(base+"index.m3u8", 200, short); !strings.Contains(b, "\n720p/index.m3u8\n") {
		t.Error(b)
	}
	if b := s.want(base+"index.m3u8?token=a%22b", 200, "no-store"); !strings.Contains(b, "\n720p/index.m3u8?token=a%22b\n") {
		t.Error(b)
	}
	for _, m := range []string{"720p", "audio"} {
		s.want(base+m+"/index.m3u8", 200, short)
		s.want(base+m+"/index.m3u8?_HLS_msn=101&_HLS_part=1", 200, "public, max-age=6")
		s.want(base+m+"/9-100.m4s", 200, immutable)
		s.want(base+m+"/9-101.1.m4s", 200, immutable)
		s.want(base+m+"/9-init0.mp4", 200, immutable)
	}
	for _, p := range []string{
		"720p/index.m3u8?_HLS_part=1", "720p/index.m3u8?_HLS_msn=x", "720p/index.m3u8?_HLS_msn=104", "audio/index.m3u8?_HLS_msn=101&_HLS_part=9",
	} {
		s.want(base+p, 400, short)
	}
	for _, p := range []string{
		base + "480p/index.m3u8", base + "720p/9-99.m4s", base + "720p/8-100.m4s", base + "720p/9-101.m4s", base + "720p/9-101.3.m4s", base + "720p/8-101.2.m4s",
		base + "720p/../720p/index.m3u8", base + "720p/x", base + "", base + "720p", "/v1/hls/other/main/index.m3u8", "/v1/hls//main/index.m3u8", "/v1/hls/" + strings.Repeat("x", 600),
	} {
		s.want(p, 404, short)
	}
}

func TestMethodsAndEncodings(t *testing.T) {
	t.Parallel()
	s := newStage(t, serve.Config{})
	s.parts(4)
	for method, status := range map[string]int{"POST": 405, "DELETE": 405, "OPTIONS": 204, "HEAD": 200} {
		w := httptest.NewRecorder()
		s.h.ServeHTTP(w, httptest.NewRequest(method, base+"720p/index.m3u8", nil))
		if w.Code != status || (method == "HEAD" && (w.Body.Len() != 0 || w.Header().Get("Content-Length") == "0")) {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
		if status == 405 {
			s.wantError(method, w)
		}
	}
	plain := s.get(base + "720p/index.m3u8").Body.String()
	for accept, zipped := range map[string]bool{"gzip": true, "br, GZIP;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0": false, "gzip;q=0.1": true, "br": false} {
		w := s.get(base+"720p/index.m3u8", "Accept-Encoding", accept)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != zipped {
			t.Errorf("%q: gzip %v", accept, got)
			continue
		}
		body := io.Reader(w.Body)
		if zipped {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			body = z
		}
		if b, err := io.ReadAll(body); err != nil || string(b) != plain {
			t.Errorf("%q: %v\n%s", accept, err, b)
		}
	}
}

func TestBlockingReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, serve.Config{})
		s.parts(5)
		type answer struct {
			code int
			body string
			at   time.Time
		}
		ask := func(path string) <-chan answer {
			c := make(chan answer, 1)
			go func() {
				w := s.get(path)
				c <- answer{w.Code, w.Body.String(), time.Now()}
			}()
			return c
		}
		begin := time.Now()
		part := ask(base + "720p/index.m3u8?_HLS_msn=101&_HLS_part=1&_HLS_skip=YES")
		hint := ask(base + "720p/9-101.1.m4s")
		whole := ask(base + "720p/index.m3u8?_HLS_msn=101")
		synctest.Wait()
		if n := s.h.Stats().Waiting; n != 3 {
			t.Fatalf("%d wait", n)
		}
		<-time.After(400 * time.Millisecond)
		s.parts(1)
		if a := <-part; a.code != 200 || !strings.Contains(a.body, `URI="9-101.1.m4s"`) || a.at.Sub(begin) != 400*time.Millisecond {
			t.Errorf("part: %+v", a)
		}
		if a := <-hint; a.code != 200 || len(a.body) < 100 {
			t.Errorf("hint: %d", a.code)
		}
		<-time.After(500 * time.Millisecond)
		s.parts(2)
		if a := <-whole; a.code != 200 || !strings.Contains(a.body, "\n9-101.m4s\n") {
			t.Errorf("whole: %+v", a)
		}
		// Nothing comes any more: after a part and the grace the client is sent away.
		begin = time.Now()
		list, hint := ask(base+"720p/index.m3u8?_HLS_msn=102&_HLS_part=0"), ask(base+"720p/9-102.0.m4s")
		for _, c := range []<-chan answer{list, hint} {
			if a := <-c; a.code != 503 || a.at.Sub(begin) != 1500*time.Millisecond {
				t.Errorf("timeout: %+v", a)
			}
		}
		// A hint that never comes true is answered at once.
		s.parts(1)
		hint = ask(base + "720p/9-102.1.m4s")
		synctest.Wait()
		begin = time.Now()
		if err := s.p.Cut(); err != nil {
			t.Fatal(err)
		}
		if a := <-hint; a.code != 404 || a.at != begin {
			t.Errorf("hint that was cut: %+v", a)
		}
		list = ask(base + "720p/index.m3u8?_HLS_msn=103&_HLS_part=0")
		synctest.Wait()
		if err := s.p.End(); err != nil {
			t.Fatal(err)
		}
		if a := <-list; a.code != 200 || !strings.Contains(a.body, "#EXT-X-ENDLIST") {
			t.Errorf("end: %+v", a)
		}
	})
}

// A player that plays from further behind asks for the end of a segment when it begins (hls.js without lowLatencyMode asks for
// its last part), and waits as long as parts keep coming.
func TestReloadWaitsForAWholeSegment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, serve.Config{})
		s.parts(4)
		begin := time.Now()
		var wg sync.WaitGroup
		ask := func(query string, want time.Duration) {
			wg.Go(func() {
				if w := s.get(base + "720p/index.m3u8?" + query); w.Code != 200 || time.Since(begin) != want || !strings.Contains(w.Body.String(), "9-101.3.m4s") {
					t.Errorf("%s: %d after %v", query, w.Code, time.Since(begin))
				}
			})
		}
		ask("_HLS_msn=101&_HLS_part=3", 4*time.Second)
		ask("_HLS_msn=101", 4*time.Second)
		for range 4 {
			<-time.After(time.Second)
			s.parts(1)
		}
		wg.Wait()
	})
}

func TestStartWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, serve.Config{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if w := s.get(base + "index.m3u8"); w.Code != 200 {
				t.Errorf("%d", w.Code)
			}
		})
		wg.Go(func() {
			if w := s.get(base + "audio/index.m3u8"); w.Code != 200 {
				t.Errorf("%d", w.Code)
			}
		})
		synctest.Wait()
		<-time.After(time.Second)
		s.parts(1)
		wg.Wait()
	})
}

func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, serve.Config{MaxWaiting: 3})
		s.parts(4)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				r := httptest.NewRequest(http.MethodGet, base+"720p/index.m3u8?_HLS_msn=101&_HLS_part=0", nil).WithContext(ctx)
				s.h.ServeHTTP(httptest.NewRecorder(), r)
			})
		}
		synctest.Wait()
		w := s.get(base + "720p/index.m3u8?_HLS_msn=101&_HLS_part=0")
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("fourth: %d", w.Code)
		}
		s.wantError("fourth", w)
		if w := s.get(base + "720p/index.m3u8"); w.Code != 200 {
			t.Errorf("one that needn't wait: %d", w.Code)
		}
		cancel()
		wg.Wait()
		if st := s.h.Stats(); st.Waiting != 0 || st.Requests[serve.ClientGone] != 3 || st.Requests[serve.TooMany] != 1 {
			t.Errorf("%+v", st)
		}
	})
}

type password string

func (p password) AuthorizePlayback(_ *http.Request, _, _, token string) (bool, error) {
	switch token {
	case string(p):
		return false, nil
	case "old":
		return false, fmt.Errorf("checking: %w", proto.Errorf(proto.TokenExpired, "for the log"))
	case "":
		return false, proto.Errorf(proto.NotFound, "for the log")
	}
	return false, errors.New("wrong")
}

func TestAuthorizer(t *testing.T) {
	t.Parallel()
	s := newStage(t, serve.Config{Authorizer: password("x")})
	s.parts(4)
	s.want(base+"index.m3u8", 404, short)
	s.want(base+"720p/index.m3u8?token=y", 401, "no-store")
	s.want("/v1/hls/other/main/index.m3u8?token=y", 401, "no-store")
	if w := s.get(base + "index.m3u8?token=old"); w.Code != 401 || !strings.Contains(w.Body.String(), `"token_expired"`) {
		t.Errorf("an expired token: %d %s", w.Code, w.Body)
	}
	s.want(base+"720p/index.m3u8?token=x", 200, "private, max-age=1")
	s.want(base+"720p/index.m3u8?token=x&_HLS_msn=100", 200, "private, max-age=1")
	s.want(base+"index.m3u8?token=x", 200, "no-store")
	s.want(base+"720p/9-100.m4s", 200, immutable)
}

func TestConditionalRequests(t *testing.T) {
	t.Parallel()
	s := newStage(t, serve.Config{})
	s.parts(6)
	for _, path := range []string{"index.m3u8", "720p/index.m3u8", "720p/9-100.m4s", "audio/9-init0.mp4"} {
		for _, accept := range []string{"gzip", ""} {
			first := s.get(base+path, "Accept-Encoding", accept)
			tag := first.Header().Get("ETag")
			if first.Code != 200 || len(tag) < 3 {
				t.Fatalf("%s: %d %v", path, first.Code, first.Header())
			}
			for _, known := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
				w := s.get(base+path, "Accept-Encoding", accept, "If-None-Match", known)
				if w.Code != 304 || w.Body.Len() != 0 || w.Header().Get("ETag") != tag || w.Header().Get("Content-Encoding") != "" ||
					w.Header().Get("Cache-Control") != first.Header().Get("Cache-Control") {
					t.Errorf("%s with %s: %d %v", path, known, w.Code, w.Header())
				}
			}
			if w := s.get(base+path, "Accept-Encoding", accept, "If-None-Match", `"other"`); w.Code != 200 {
				t.Errorf("%s of another: %d", path, w.Code)
			}
		}
	}
	before := s.get(base + "720p/index.m3u8").Header().Get("ETag")
	s.parts(1)
	if w := s.get(base+"720p/index.m3u8", "If-None-Match", before); w.Code != 200 || w.Header().Get("ETag") == before {
		t.Errorf("a playlist that goes on: %d", w.Code)
	}
	if n := s.h.Stats().Requests[serve.NotModified]; n != 32 {
		t.Errorf("%d not modified", n)
	}
}

func TestUpstream(t *testing.T) {
	t.Parallel()
	s := newStage(t, serve.Config{Authorizer: password("x")})
	s.parts(40)
	up := s.h.Upstream()
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		up.ServeHTTP(w, httptest.NewRequest(http.MethodGet, base+path, nil))
		return w
	}
	w := ask("720p/index.m3u8?_HLS_msn=109&_HLS_part=3")
	var list amphiv1.EdgePlaylist
	if err := gproto.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != 200 || list.GetOpenMsn() != 110 || list.GetPrevParts() != 4 || list.GetWaitMs() != 1500 {
		t.Fatalf("%d %v %v", w.Code, err, &list)
	}
	for form, b := range map[string][]byte{"": list.GetFull(), "?_HLS_skip=YES": list.GetDelta()} {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		sep := "?"
		if form != "" {
			sep = "&"
		}
		if want := s.get(base + "720p/index.m3u8" + form + sep + "token=x").Body.String(); err != nil || string(text) != want {
			t.Errorf("form %q: %v\n%s\nwant\n%s", form, err, text, want)
		}
	}
	if w := ask("index.m3u8"); w.Code != 200 || strings.Contains(w.Body.String(), "token") {
		t.Errorf("multivariant: %d %s", w.Code, w.Body)
	}
	if w := ask("720p/9-109.m4s"); w.Code != 200 {
		t.Errorf("an object: %d", w.Code)
	}
}

func FuzzRequest(f *testing.F) {
	for _, p := range []string{
		"index.m3u8", "720p/index.m3u8?_HLS_msn=100&_HLS_part=2&_HLS_skip=v2", "audio/9-100.0.m4s", "audio/9-init0.mp4",
		"720p/index.m3u8?_HLS_msn=101&_HLS_part=0", "..%2f720p/index.m3u8", "index.m3u8?token=%00",
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, err := http.NewRequest(http.MethodGet, base+path, nil)
		if err != nil {
			return
		}
		s := newStage(t, serve.Config{MaxWaiting: -1}) // who would wait is sent away
		s.parts(5)
		w := httptest.NewRecorder()
		s.h.ServeHTTP(w, r)
		switch w.Code {
		case 200, 400, 404, 503:
		default:
			t.Fatalf("%q: %d", path, w.Code)
		}
		if strings.HasSuffix(r.URL.Path, "/index.m3u8") && w.Code == 200 && !strings.HasPrefix(w.Body.String(), "#EXTM3U\n") {
			t.Fatalf("%q: no playlist", path)
		}
	})
}

// A thousand players that wait for the same part.
func BenchmarkFanOut(b *testing.B) {
	s := newStage(b, serve.Config{})
	s.parts(40)
	b.ReportAllocs()
	for b.Loop() {
		var wg sync.WaitGroup
		p, _ := s.p.Media("720p")
		st := p.Published()
		path := base + "720p/" + packager.Name{Epoch: 9, MSN: st.OpenMSN, Part: st.OpenParts, Init: -1}.String()
		for range 1000 {
			wg.Go(func() { s.get(path) })
		}
		for s.h.Stats().Waiting < 1000 {
			runtime.Gosched()
		}
		s.parts(1)
		wg.Wait()
	}
}
