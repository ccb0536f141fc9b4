package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

const secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// receiver is a real HTTP server that takes events, checks their signatures, and can be told to fail or to stall.
type receiver struct {
	t   *testing.T
	web *httptest.Server

	mu    sync.Mutex // guards the fields below
	got   []string   // ids that were taken, in order
	tries int
	// answer gives the status of a try; stall keeps requests until it is closed.
	answer func(id string, try int) int
	stall  chan struct{}
	more   chan struct{}
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, more: make(chan struct{}), answer: func(string, int) int { return 204 }}
	r.web = httptest.NewServer(r)
	t.Cleanup(r.web.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	id := req.Header.Get(HeaderID)
	seconds, err := strconv.ParseInt(req.Header.Get(HeaderTimestamp), 10, 64)
	key, _ := ParseSecret(secret)
	if err != nil || !slices.Contains(strings.Fields(req.Header.Get(HeaderSignature)), Sign(key, id, seconds, body)) {
		r.t.Errorf("%s: the signature is wrong", id)
	}
	var sent struct {
		Type, Timestamp string
		Data            map[string]any
	}
	if err := json.Unmarshal(body, &sent); err != nil || sent.Type == "" || sent.Timestamp == "" {
		r.t.Errorf("%s: body %s", id, body)
	}
	r.mu.Lock()
	stall := r.stall
	r.mu.Unlock()
	if stall != nil {
		select {
		case <-stall:
			w.WriteHeader(http.StatusServiceUnavailable)
		case <-req.Context().Done():
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	status := r.answer(id, r.tries)
	if status == 204 {
		r.got = append(r.got, id)
	}
	close(r.more)
	r.more = make(chan struct{})
	w.WriteHeader(status)
}

// wait waits until so many events were taken, and answers them.
func (r *receiver) wait(n int) []string {
	r.t.Helper()
	late := time.After(patience)
	for {
		r.mu.Lock()
		got, more := slices.Clone(r.got), r.more
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-more:
		case <-late:
			r.t.Fatalf("%d events of %d: %v", len(got), n, got)
		}
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	late := time.After(patience)
	for !ok() {
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// run runs a sender until the function that it answers is called.
func run(t *testing.T, cfg Config) (*Sender, func()) {
	t.Helper()
	if cfg.FirstRetry == 0 {
		cfg.FirstRetry, cfg.LastRetry = time.Millisecond, 20*time.Millisecond
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-over })
	t.Cleanup(stop)
	return s, stop
}

func event(room string, n int) Event {
	return Event{ID: fmt.Sprintf("%s-%d", room, n), Type: "peer.joined", Room: room, Time: time.Now(), Data: map[string]any{"n": n}}
}

// ofRoom picks the numbers of a room's events in the order in which they came.
func ofRoom(ids []string, room string) (list []string) {
	for _, id := range ids {
		if n, ok := strings.CutPrefix(id, room+"-"); ok {
			list = append(list, n)
		}
	}
	return list
}

func TestEventsComeInOrderPerRoom(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	// Every third try fails.
	r.answer = func(_ string, try int) int {
		if try%3 == 0 {
			return 500
		}
		return 204
	}
	s, _ := run(t, Config{Targets: []Target{{URL: r.web.URL, Secrets: []string{"another secret of thirty bytes", secret}}}})
	for i := range 50 {
		for _, room := range []string{"a", "b", "c"} {
			s.Emit(event(room, i))
		}
	}
	s.Emit(event("a", 0)) // known
	got := r.wait(150)
	for _, room := range []string{"a", "b", "c"} {
		for i, n := range ofRoom(got, room) {
			if n != strconv.Itoa(i) {
				t.Fatalf("room %s: %v", room, ofRoom(got, room))
			}
		}
	}
	if st := s.Stats(); st.Emitted != 150 || st.Failed == 0 {
		t.Errorf("%+v", st)
	}
}

// TestARoomWaitsAlone: an event that a target refuses holds up its own room only.
func TestARoomWaitsAlone(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	refuse := true
	r.answer = func(id string, _ int) int {
		if refuse && id == "a-0" {
			return 400
		}
		return 204
	}
	s, _ := run(t, Config{Targets: []Target{{URL: r.web.URL, Secrets: []string{secret}}}})
	for i := range 5 {
		s.Emit(event("a", i))
		s.Emit(event("b", i))
	}
	if got := r.wait(5); len(ofRoom(got, "b")) != 5 {
		t.Errorf("%v", got)
	}
	until(t, "the other room", func() bool { return s.Targets()[0].Waiting == 5 })
	r.mu.Lock()
	refuse = false
	r.mu.Unlock()
	if got := ofRoom(r.wait(10), "a"); strings.Join(got, "") != "01234" {
		t.Errorf("%v", got)
	}
}

// TestOutboxOutlivesTheNode: a receiver that is away, then stalls; a node that ends meanwhile; everything arrives, once.
func TestOutboxOutlivesTheNode(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	cfg := Config{Dir: t.TempDir(), Targets: []Target{{URL: r.web.URL, Secrets: []string{secret}}}, Timeout: 50 * time.Millisecond}
	s, stop := run(t, cfg)
	s.Emit(event("a", 0))
	r.wait(1)
	r.mu.Lock()
	r.stall = make(chan struct{})
	r.mu.Unlock()
	for i := 1; i < 10; i++ {
		s.Emit(event("a", i))
	}
	until(t, "a failure", func() bool { return s.Stats().Failed > 0 })
	if st := s.Targets()[0]; st.Failure == "" || st.Failing.IsZero() || strings.Contains(st.Failure, r.web.URL) {
		t.Errorf("%+v", st)
	}
	stop()
	// The end of the file is cut, as by a crash.
	path := filepath.Join(cfg.Dir, journalName)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"n":99,"id":"half`); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	close(r.stall)
	r.mu.Lock()
	r.stall = nil
	r.mu.Unlock()
	s, stop = run(t, cfg)
	s.Emit(event("a", 10))
	if got := ofRoom(r.wait(11), "a"); strings.Join(got, " ") != "0 1 2 3 4 5 6 7 8 9 10" {
		t.Errorf("%v", got)
	}
	stop()
	// Nothing is sent again; a target that is new is not told the past.
	second := newReceiver(t)
	cfg.Targets = append(cfg.Targets, Target{URL: second.web.URL, Secrets: []string{secret}})
	s, stop = run(t, cfg)
	s.Emit(event("a", 11))
	second.wait(1)
	r.wait(12)
	until(t, "two deliveries", func() bool { return s.Stats().Waiting == 0 })
	if st := s.Stats(); st.Delivered != 2 {
		t.Errorf("%+v", st)
	}
	stop()
	if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), r.web.URL) {
		t.Errorf("the journal: %v %s", err, data)
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	r, other := newReceiver(t), newReceiver(t)
	s, _ := run(t, Config{Targets: []Target{
		{URL: r.web.URL + "?key=hidden", Secrets: []string{secret}}, {URL: other.web.URL, Secrets: []string{secret}, Events: []string{"storage.*", "room.x"}}}})
	for i := range 6 {
		s.Emit(event("a", i))
	}
	s.Emit(Event{ID: "st-1", Type: "storage.full", Time: time.Now()})
	r.wait(7)
	other.wait(1)
	until(t, "everything", func() bool { return s.Stats().Waiting == 0 })
	list := s.List(Query{Room: "a", Limit: 2})
	if len(list) != 2 || list[0].ID != "a-0" || len(list[0].Waiting) != 0 {
		t.Errorf("%+v", list)
	}
	if list = s.List(Query{After: list[1].Number}); len(list) != 5 || list[4].Type != "storage.full" {
		t.Errorf("%+v", list)
	}
	if n := s.Replay(Query{IDs: []string{"a-3", "a-1"}}); n != 2 {
		t.Errorf("%d replayed", n)
	}
	if got := r.wait(9); strings.Join(got[7:], " ") != "a-1 a-3" {
		t.Errorf("%v", got)
	}
	if n := s.Replay(Query{Since: time.Now().Add(time.Hour)}); n != 0 {
		t.Errorf("%d replayed", n)
	}
	if n := s.Replay(Query{Types: []string{"storage.*"}}); n != 2 {
		t.Errorf("%d replayed", n)
	}
	other.wait(2)
	if url := s.Targets()[0].URL; strings.Contains(url, "hidden") {
		t.Errorf("shown as %s", url)
	}
}

func TestBadConfigs(t *testing.T) {
	t.Parallel()
	good := Target{URL: "https://x.example/y", Secrets: []string{secret}}
	for name, targets := range map[string][]Target{
		"scheme": {{URL: "ftp://x/the-secret-path", Secrets: good.Secrets}}, "none": {{URL: good.URL}}, "short": {{URL: good.URL, Secrets: []string{"short"}}},
		"base64": {{URL: good.URL, Secrets: []string{"whsec_%%%"}}}, "twice": {good, good}, "many": slices.Repeat([]Target{good}, 9),
	} {
		if _, err := New(Config{Targets: targets}); err == nil || strings.Contains(err.Error(), "secret-path") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := New(Config{Targets: []Target{good}})
	if err != nil {
		t.Fatal(err)
	}
	s.Emit(Event{ID: "1", Type: "x", Data: strings.Repeat("x", MaxBody)})
	s.Emit(Event{ID: "2", Type: "x", Data: func() {}})
	if st := s.Stats(); st.Dropped["too_large"] != 2 {
		t.Errorf("%+v", st)
	}
}

// TestOutboxIsBounded fills it: the oldest go, also those that were not delivered, and the file does not grow for ever.
func TestOutboxIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := New(Config{Dir: dir, Targets: []Target{{URL: "http://127.0.0.1:1", Secrets: []string{secret}}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range MaxEvents + 10 {
		s.Emit(event("a", i))
		if i%1000 == 0 {
			s.store(time.Now())
		}
	}
	s.store(time.Now())
	if st := s.Stats(); st.Waiting != MaxEvents || st.Dropped["full"] != 10 {
		t.Errorf("%+v", st)
	}
	if list := s.List(Query{Limit: 1}); list[0].ID != "a-10" {
		t.Errorf("%+v", list[0])
	}
	if err := s.journal.close(); err != nil {
		t.Error(err)
	}
	again, err := New(Config{Dir: dir, Targets: []Target{{URL: "http://127.0.0.1:1", Secrets: []string{secret}}}})
	if err != nil || again.Stats().Waiting != MaxEvents {
		t.Errorf("%v %+v", err, again.Stats())
	}
	again.prune(time.Now().Add(MaxAge + time.Minute))
	if n := len(again.List(Query{})); n != 0 {
		t.Errorf("%d are too old", n)
	}
	if err := again.journal.close(); err != nil {
		t.Error(err)
	}
}

// made is a Sender that does not run, whose one target cannot be reached.
func made(t *testing.T, dir string) *Sender {
	t.Helper()
	s, err := New(Config{Dir: dir, Targets: []Target{{URL: "http://127.0.0.1:1", Secrets: []string{secret}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestWhatIsLetGoWaitsNoMore: the bound counts also while a request is under way, and for what is to be sent again.
func TestWhatIsLetGoWaitsNoMore(t *testing.T) {
	t.Parallel()
	s := made(t, "")
	for i := range 5 {
		s.Emit(event("a", i))
	}
	s.store(time.Now())
	to, l := s.targets[0], s.targets[0].lanes["a"]
	to.pop(l)
	if n := s.Replay(Query{IDs: []string{"a-0"}}); n != 1 {
		t.Fatalf("%d replayed", n)
	}
	l.flying, to.flying = true, 1
	s.prune(time.Now().Add(MaxAge + time.Minute))
	if st := s.Stats(); st.Waiting != 1 || st.Dropped["full"] != 4 || len(l.queue) != 1 {
		t.Fatalf("while one is under way: %+v, queue of %d", st, len(l.queue))
	}
	s.deliver(t.Context(), to, l, l.queue[0])
	if st := s.Stats(); st.Waiting != 0 || st.Dropped["full"] != 5 || len(l.queue) != 0 || l.flying {
		t.Errorf("after it failed: %+v, queue of %d", st, len(l.queue))
	}
}

// TestOutboxComesBack: what could not be written is written when that is possible again.
func TestOutboxComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := made(t, dir)
	blocked := filepath.Join(dir, journalName+".new")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.journal.file.Close(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.Emit(event("a", 0))
	s.store(now)
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	s.Emit(event("a", 1))
	s.store(now.Add(rewriteAgain))
	if n := made(t, dir).Stats().Waiting; n != 2 {
		t.Errorf("%d events after a restart", n)
	}
}

// TestOutboxWithNoise: a disk may leave anything behind after a power failure; the node starts, with what can be read.
func TestOutboxWithNoise(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := made(t, dir)
	s.Emit(event("a", 0))
	s.store(time.Now())
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 3*maxLine)); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	again := made(t, dir)
	if st := again.Stats(); st.Waiting != 1 {
		t.Errorf("%+v", st)
	}
}

func TestShownURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://x.example/hook":                  "https://x.example/hook",
		"https://the-key@x.example/hook":          "https://x.example/hook",
		"https://ann:the-key@x.example/?the-key":  "https://x.example/?…",
		"https://x.example/e?e":                   "https://x.example/e?…",
		"http://[::1]:8080/hook?token=a&second=b": "http://[::1]:8080/hook?…",
	} {
		to, err := newTarget(Target{URL: url, Secrets: []string{secret}})
		if err != nil || to.shown != want {
			t.Errorf("%s: shown as %v, want %s; %v", url, to, want, err)
		}
	}
}

// TestGivenUp: an event that is not taken for a day is dropped, and the room goes on.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.answer = func(id string, _ int) int {
		if id == "a-0" {
			return 500
		}
		return 204
	}
	s, _ := run(t, Config{Targets: []Target{{URL: r.web.URL, Secrets: []string{secret}}}})
	old := event("a", 0)
	old.Time = time.Now().Add(-GiveUp - time.Minute)
	s.Emit(old)
	s.Emit(event("a", 1))
	r.wait(1)
	if st := s.Stats(); st.Dropped["expired"] != 1 {
		t.Errorf("%+v", st)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"n":1,"id":"x","type":"t","room":"r","ms":1,"body":"e30="}` + "\n" + `{"done":1,"to":"k"}` + "\n" + `{"to":"k","from":0}`))
	f.Add([]byte(`{"n":1,"id":"x","type":"t","ms":9000000000000,"body":"e30="}` + "\n" + `{"n":2,"id":"y","type":"t","ms":9000000000000,"body":"e30="}` + "\n" +
		`{"done":1,"to":"k"}` + "\n" + `{"to":"k","from":0}`))
	f.Add([]byte("{}\n\n{\"again\":3,\"to\":\"k\"}\nnull"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Dir: dir, Targets: []Target{{URL: "http://127.0.0.1:1", Secrets: []string{secret}}}})
		if err != nil {
			return
		}
		before := s.List(Query{})
		_ = s.journal.close()
		again, err := New(Config{Dir: dir, Targets: []Target{{URL: "http://127.0.0.1:1", Secrets: []string{secret}}}})
		if err != nil || len(again.List(Query{})) != len(before) || again.Stats().Waiting != s.Stats().Waiting {
			t.Fatalf("written anew: %v, %d of %d", err, len(again.List(Query{})), len(before))
		}
		_ = again.journal.close()
	})
}
