package edge_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/hls/edge"
	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/serve"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	base     = "/v1/hls/demo/main/"
)

// maker is an origin whose program goes on when the test says so, and counts what is asked of it.
type maker struct {
	t     testing.TB
	pack  *packager.Packager
	clip  *hlstest.Clip
	web   *httptest.Server
	tick  int64
	audio int64

	mu    sync.Mutex // guards the field below
	asked map[string]int
	open  int // requests under way for playlists of 720p
	most  int
}

func newMaker(t testing.TB, epoch, msn uint64) *maker {
	t.Helper()
	// Longer than the machine may need for the test's players, so that no request has to be made twice.
	return newGraced(t, epoch, msn, 8*time.Second)
}

func newGraced(t testing.TB, epoch, msn uint64, grace time.Duration) *maker {
	t.Helper()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{t: t, clip: clip, asked: map[string]int{}}
	m.pack, err = packager.New(packager.Config{
		Epoch: epoch, Start: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), FirstMSN: msn,
		Variants: []packager.Variant{{Name: "720p", Bitrate: 300_000}}, Captions: []string{"en"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.pack.SetAudioConfig(hlstest.AudioConfig()), m.pack.Begin(0)); err != nil {
		t.Fatal(err)
	}
	h, err := serve.New(serve.Config{Grace: grace}, m)
	if err != nil {
		t.Fatal(err)
	}
	up := h.Upstream()
	m.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := strings.HasSuffix(r.URL.Path, "720p/index.m3u8")
		m.mu.Lock()
		m.asked[r.URL.RequestURI()]++
		if list {
			m.open++
			m.most = max(m.most, m.open)
		}
		m.mu.Unlock()
		up.ServeHTTP(w, r)
		if list {
			m.mu.Lock()
			m.open--
			m.mu.Unlock()
		}
	}))
	t.Cleanup(m.kill)
	return m
}

// kill ends it at once, in the middle of whatever it answers.
func (m *maker) kill() {
	m.web.CloseClientConnections()
	_ = m.web.Listener.Close()
	go m.web.CloseClientConnections() // those that were made meanwhile
	m.web.Close()
}

// Program implements serve.Programs.
func (m *maker) Program(room, stream string) (*packager.Packager, bool) {
	return m.pack, room == "demo" && stream == "main"
}

// parts plays n parts.
func (m *maker) parts(n int) {
	m.t.Helper()
	for range n * 15 {
		if err := m.pack.WriteVideo(0, m.tick, m.clip.Video[m.tick%60]); err != nil {
			m.t.Fatal(err)
		}
		m.tick++
		for ; m.audio < m.tick*1600; m.audio += 1024 {
			if err := m.pack.WriteAudio(m.audio, m.clip.Audio[0]); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

func (m *maker) count(uri string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[uri]
}

// world is an edge in front of whatever origin is the present one.
type world struct {
	t    *testing.T
	edge *edge.Edge

	mu     sync.Mutex // guards the field below
	origin *edge.Origin
}

// Origin implements edge.Origins.
func (w *world) Origin(room, _ string) (edge.Origin, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.origin == nil || room != "demo" {
		return edge.Origin{}, false
	}
	return *w.origin, true
}

func (w *world) place(o *edge.Origin) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.origin = o
}

func newWorld(t *testing.T, cfg edge.Config, m *maker) *world {
	t.Helper()
	w := &world{t: t}
	if m != nil {
		w.origin = &edge.Origin{ID: "a/1", URL: m.web.URL}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	transport := &http.Transport{}
	cfg.Transport = transport
	local := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "local") })
	var err error
	if w.edge, err = edge.New(cfg, local, w); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.edge.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		transport.CloseIdleConnections()
	})
	return w
}

func (w *world) get(path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, base+path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.edge.ServeHTTP(rec, r)
	return rec
}

// later asks without waiting for the answer.
func (w *world) later(path string, header ...string) <-chan *httptest.ResponseRecorder {
	c := make(chan *httptest.ResponseRecorder, 1)
	go func() { c <- w.get(path, header...) }()
	return c
}

func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%s: not after %v; %+v", what, patience, w.edge.Stats())
		}
	}
}

func TestOneUpstreamRequestForAll(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(5)
	w := newWorld(t, edge.Config{}, m)
	const each = 100
	var waiting []<-chan *httptest.ResponseRecorder
	for range each {
		for _, path := range []string{
			"720p/9-101.1.m4s", "720p/index.m3u8?_HLS_msn=101&_HLS_part=1", "720p/index.m3u8?_HLS_msn=101&_HLS_part=1&_HLS_skip=YES&token=x",
			"audio/index.m3u8?_HLS_msn=101&_HLS_part=1&token=y",
		} {
			waiting = append(waiting, w.later(path))
		}
	}
	w.until("all wait", func() bool { return w.edge.Stats().Waiting == 4*each })
	m.parts(1)
	for i, c := range waiting {
		a := <-c
		if a.Code != 200 || i%4 > 0 && !strings.Contains(a.Body.String(), `URI="9-101.1.m4s"`) {
			t.Fatalf("%d: %d %s", i, a.Code, a.Body)
		}
	}
	if n := m.count(base + "720p/9-101.1.m4s"); n != 1 {
		t.Errorf("the part was fetched %d times", n)
	}
	if a := w.get("720p/9-101.1.m4s"); a.Code != 200 || a.Header().Get("Cache-Control") != serve.CacheForever || m.count(base+"720p/9-101.1.m4s") != 1 {
		t.Errorf("again: %d %v", a.Code, a.Header())
	}
	m.mu.Lock()
	most := m.most
	for uri, n := range m.asked {
		if n > 1 || strings.Contains(uri, "token") || strings.Contains(uri, "skip") {
			t.Errorf("%d requests for %s", n, uri)
		}
	}
	m.mu.Unlock()
	s := w.edge.Stats()
	if most != 1 || s.Playlists != 2 || s.Hits != 1 || s.Misses != 1 || s.Shared != each-1 || s.Waiting != 0 {
		t.Errorf("%d playlist requests at once, %+v", most, s)
	}
}

// Who asked first and goes away takes nothing from those who ask for the same; a room is one however it is written.
func TestTheFirstGoesAway(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(5)
	w := newWorld(t, edge.Config{}, m)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, base+"720p/9-101.1.m4s", nil)
		w.edge.ServeHTTP(httptest.NewRecorder(), r)
	}()
	w.until("the first waits", func() bool { return w.edge.Stats().Waiting == 1 })
	second := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		rec := httptest.NewRecorder()
		w.edge.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/v1/hls/DEMO/main/720p/9-101.1.m4s?token=x", nil))
		second <- rec
	}()
	w.until("both wait", func() bool { return w.edge.Stats().Waiting == 2 })
	cancel()
	<-gone
	m.parts(1)
	if a := <-second; a.Code != 200 || a.Body.Len() == 0 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if s := w.edge.Stats(); s.Misses != 1 || s.Shared != 1 || s.Answers[serve.ClientGone] != 1 || s.Objects != 1 {
		t.Errorf("%+v", s)
	}
}

// A playlist without parts is followed segment by segment, too.
func TestCaptionsAreFollowed(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(5)
	w := newWorld(t, edge.Config{}, m)
	if a := w.get("captions-en/index.m3u8"); a.Code != 200 || !strings.Contains(a.Body.String(), "9-100.vtt") {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	for msn := 101; msn < 104; msn++ {
		next := w.later(fmt.Sprintf("captions-en/index.m3u8?_HLS_msn=%d", msn))
		w.until("it waits", func() bool { return w.edge.Stats().Waiting == 1 })
		m.parts(4)
		if a := <-next; a.Code != 200 || !strings.Contains(a.Body.String(), fmt.Sprintf("9-%d.vtt", msn)) {
			t.Fatalf("segment %d: %d %s", msn, a.Code, a.Body)
		}
	}
}

// Whatever a player asks, the edge answers what the origin would.
func TestAnswersAsTheOrigin(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(40)
	w := newWorld(t, edge.Config{}, m)
	direct, err := serve.New(serve.Config{}, m)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"index.m3u8", "index.m3u8?token=a%22b", "720p/index.m3u8", "720p/index.m3u8?_HLS_skip=YES", "720p/index.m3u8?_HLS_skip=v2",
		"audio/index.m3u8?_HLS_msn=109&_HLS_part=3", "720p/index.m3u8?_HLS_msn=105", "720p/9-109.m4s", "audio/9-init0.mp4",
		"720p/index.m3u8?_HLS_part=1", "720p/index.m3u8?_HLS_msn=x", "720p/index.m3u8?_HLS_msn=200", "480p/index.m3u8", "720p/8-109.m4s", "720p/x",
	} {
		for _, accept := range []string{"", "gzip"} {
			r := httptest.NewRequest(http.MethodGet, base+path, nil)
			r.Header.Set("Accept-Encoding", accept)
			want := httptest.NewRecorder()
			direct.ServeHTTP(want, r)
			got := w.get(path, "Accept-Encoding", accept)
			if got.Code != want.Code || got.Body.String() != want.Body.String() || fmt.Sprint(got.Header()) != fmt.Sprint(want.Header()) {
				t.Errorf("%s (%s): %d %v, want %d %v\n%s", path, accept, got.Code, got.Header(), want.Code, want.Header(), got.Body)
			}
			if tag := got.Header().Get("ETag"); tag != "" {
				if a := w.get(path, "Accept-Encoding", accept, "If-None-Match", tag); a.Code != 304 || a.Body.Len() > 0 {
					t.Errorf("%s that is known: %d", path, a.Code)
				}
			}
		}
	}
	if a := w.get("../other/index.m3u8"); a.Body.String() != "local" {
		t.Errorf("a path of another kind: %s", a.Body)
	}
	w.place(&edge.Origin{ID: "b/2", Local: true})
	if a := w.get("720p/index.m3u8"); a.Body.String() != "local" {
		t.Errorf("a stream of this node: %s", a.Body)
	}
}

// A player that plays from further behind asks for the end of a segment when it begins, and waits as long as parts keep coming.
func TestReloadWaitsForAWholeSegment(t *testing.T) {
	t.Parallel()
	m := newGraced(t, 9, 100, 500*time.Millisecond) // an edge waits a second longer
	m.parts(4)
	w := newWorld(t, edge.Config{}, m)
	last, whole := w.later("720p/index.m3u8?_HLS_msn=101&_HLS_part=3"), w.later("720p/index.m3u8?_HLS_msn=101")
	w.until("both wait", func() bool { return w.edge.Stats().Waiting == 2 })
	for range 4 {
		<-time.After(700 * time.Millisecond)
		m.parts(1)
	}
	for _, c := range []<-chan *httptest.ResponseRecorder{last, whole} {
		if a := <-c; a.Code != 200 || !strings.Contains(a.Body.String(), "9-101.3.m4s") {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
}

// The origin dies while players wait; another one goes on with higher numbers.
func TestAnotherOriginTakesOver(t *testing.T) {
	t.Parallel()
	first, second := newMaker(t, 9, 100), newMaker(t, 10, 120)
	first.parts(6)
	second.parts(1)
	w := newWorld(t, edge.Config{}, first)
	if a := w.get("720p/index.m3u8"); a.Code != 200 {
		t.Fatal(a.Code)
	}
	list, part := w.later("720p/index.m3u8?_HLS_msn=101&_HLS_part=2"), w.later("720p/9-101.2.m4s")
	w.until("both wait", func() bool { return w.edge.Stats().Waiting == 2 })
	first.kill()
	w.until("the edge notices", func() bool { return w.edge.Stats().Failures >= 3 })
	fresh := w.later("720p/index.m3u8?_HLS_msn=102")
	w.place(&edge.Origin{ID: "b/2", URL: second.web.URL})
	for _, c := range []<-chan *httptest.ResponseRecorder{list, fresh} {
		if a := <-c; a.Code != 200 || !strings.Contains(a.Body.String(), "MEDIA-SEQUENCE:120") || !strings.Contains(a.Body.String(), "10-120.0.m4s") {
			t.Errorf("the playlist: %d %s", a.Code, a.Body)
		}
	}
	if a := <-part; a.Code != 404 {
		t.Errorf("a part that never was: %d", a.Code)
	}
	next := w.later("720p/index.m3u8?_HLS_msn=120&_HLS_part=1")
	second.parts(1)
	if a := <-next; a.Code != 200 || !strings.Contains(a.Body.String(), "10-120.1.m4s") {
		t.Errorf("the next part: %d %s", a.Code, a.Body)
	}
}

func TestNobodyTakesOver(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(6)
	w := newWorld(t, edge.Config{Patience: 2 * time.Second}, m) // the machine may be busy while the origin is there
	if a := w.get("720p/9-101.1.m4s"); a.Code != 200 {
		t.Fatal(a.Code)
	}
	m.kill()
	answers := map[string]<-chan *httptest.ResponseRecorder{}
	for _, path := range []string{"index.m3u8", "audio/index.m3u8", "720p/9-101.0.m4s"} {
		answers[path] = w.later(path)
	}
	for path, answer := range answers {
		a := <-answer
		if a.Code != 503 || a.Header().Get("Retry-After") == "" || a.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", path, a.Code, a.Header())
		}
	}
	if a := w.get("720p/9-101.1.m4s"); a.Code != 200 {
		t.Errorf("what is cached: %d", a.Code)
	}
}

// A playlist that has ended is looked at again: the stream may start anew.
func TestStartsAnew(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(6)
	w := newWorld(t, edge.Config{}, m)
	wait := w.later("720p/index.m3u8?_HLS_msn=101&_HLS_part=3")
	if err := m.pack.End(); err != nil {
		t.Fatal(err)
	}
	if a := <-wait; a.Code != 200 || !strings.Contains(a.Body.String(), "#EXT-X-ENDLIST") {
		t.Errorf("the end: %d %s", a.Code, a.Body)
	}
	again := newMaker(t, 10, 130)
	again.parts(2)
	w.place(&edge.Origin{ID: "a/2", URL: again.web.URL})
	w.until("the new program", func() bool { return strings.Contains(w.get("720p/index.m3u8").Body.String(), "10-130.1.m4s") })
}

func TestLimits(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(5)
	w := newWorld(t, edge.Config{MaxWaiting: 2, MaxUpstream: 1, CacheBytes: 200 << 10}, m)
	a, b := w.later("720p/9-101.1.m4s"), w.later("720p/9-101.1.m4s")
	w.until("two wait", func() bool { return w.edge.Stats().Waiting == 2 })
	for _, path := range []string{"720p/9-101.1.m4s", "720p/9-100.0.m4s"} {
		if got := w.get(path); got.Code != 503 || got.Header().Get("Retry-After") == "" {
			t.Errorf("one too many: %d", got.Code)
		}
	}
	m.parts(1) // no more: the edge's request may be on its way still
	for _, c := range []<-chan *httptest.ResponseRecorder{a, b} {
		if got := <-c; got.Code != 200 {
			t.Errorf("who waited: %d", got.Code)
		}
	}
	m.parts(29)
	for msn := 100; msn < 108; msn++ {
		for part := range 4 {
			w.get(fmt.Sprintf("audio/9-%d.%d.m4s", msn, part))
			w.get(fmt.Sprintf("audio/9-%d.m4s", msn))
		}
	}
	if s := w.edge.Stats(); s.CachedBytes > 200<<10 || s.Objects == 0 {
		t.Errorf("%+v", s)
	}
}

type password string

func (p password) AuthorizePlayback(_ *http.Request, _, stream, token string) (bool, error) {
	if token != string(p) {
		return false, proto.Errorf(proto.PermissionDenied, "not for %s", stream)
	}
	return false, nil
}

func TestTokens(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(6)
	w := newWorld(t, edge.Config{Authorizer: password("x&y")}, m)
	for path, status := range map[string]int{
		"index.m3u8": 403, "720p/index.m3u8?token=z": 403, "index.m3u8?token=x%26y": 200, "720p/index.m3u8?token=x%26y": 200, "720p/9-100.m4s": 200,
	} {
		a := w.get(path)
		if a.Code != status {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
		if cache := a.Header().Get("Cache-Control"); strings.Contains(path, "index") && strings.Contains(cache, "public") {
			t.Errorf("%s: %s", path, cache)
		}
	}
	if text := w.get("index.m3u8?token=x%26y").Body.String(); !strings.Contains(text, "\n720p/index.m3u8?token=x%26y\n") ||
		!strings.Contains(text, `URI="audio/index.m3u8?token=x%26y"`) {
		t.Error(text)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for uri := range m.asked {
		if strings.Contains(uri, "token") {
			t.Errorf("the origin was asked for %s", uri)
		}
	}
}

// Names that players make up take no place among what is followed.
func TestMadeUpNames(t *testing.T) {
	t.Parallel()
	m := newMaker(t, 9, 100)
	m.parts(5)
	w := newWorld(t, edge.Config{}, m)
	for i := range 20 {
		if a := w.get(fmt.Sprintf("x%d/index.m3u8", i)); a.Code != 404 {
			t.Fatalf("%d %s", a.Code, a.Body)
		}
	}
	if a := w.get("720p/index.m3u8"); a.Code != 200 {
		t.Fatal(a.Code)
	}
	w.until("one is left", func() bool { return w.edge.Stats().Playlists == 1 })
	for _, name := range []string{"x", "9-1", "9-01.m4s", `9-1.m4s"`} {
		if a := w.get("720p/" + name); a.Code != 404 {
			t.Errorf("%s: %d", name, a.Code)
		}
	}
	if s := w.edge.Stats(); s.Misses != 0 {
		t.Errorf("names that no object has went upstream: %+v", s)
	}
}

// An origin where too many wait says so at once: it is not asked without a pause.
func TestBusyOrigin(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	z := gzip.NewWriter(&text)
	_, _ = io.WriteString(z, "#EXTM3U\n")
	_ = z.Close()
	list, err := protobuf.Marshal(&amphiv1.EdgePlaylist{Full: text.Bytes(), OpenMsn: 7, AdvanceParts: 6, WaitMs: 100})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" {
			serve.ComeBack(w, serve.TooMany)
			return
		}
		_, _ = w.Write(list)
	}))
	t.Cleanup(web.Close)
	w := newWorld(t, edge.Config{}, nil)
	w.place(&edge.Origin{ID: "x", URL: web.URL})
	if a := w.get("720p/index.m3u8?_HLS_msn=7&_HLS_part=0"); a.Code != 503 { // after 1.1 s
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if s := w.edge.Stats(); s.Requests > 30 {
		t.Errorf("%d upstream requests", s.Requests)
	}
}

// An origin that answers nonsense hurts nobody.
func TestNonsenseFromUpstream(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "long"):
			w.Header().Set("Content-Length", fmt.Sprint(1<<40))
		case strings.Contains(r.URL.Path, "zip"):
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, "x")
			_ = z.Close()
		default:
			_, _ = io.WriteString(w, "\x0a\x03abc")
		}
	}))
	t.Cleanup(web.Close)
	w := newWorld(t, edge.Config{Patience: 200 * time.Millisecond}, nil)
	w.place(&edge.Origin{ID: "x", URL: web.URL})
	for _, path := range []string{"720p/index.m3u8", "zip/index.m3u8", "long/9-1.m4s"} {
		if a := w.get(path); a.Code != 503 {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
	}
}
