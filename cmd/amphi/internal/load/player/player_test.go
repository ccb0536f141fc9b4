package player

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sample = `#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5,CAN-SKIP-UNTIL=12
#EXT-X-PART-INF:PART-TARGET=0.5
#EXT-X-MEDIA-SEQUENCE:41
#EXT-X-MAP:URI="init.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:00.000Z
#EXTINF:2.000,
s41.m4s
#EXT-X-PART:DURATION=0.5,URI="s42.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.5,URI="s42.1.m4s"
#EXT-X-PART:DURATION=0.5,URI="s42.2.m4s",GAP=YES
#EXT-X-PART:DURATION=0.5,URI="s42.3.m4s"
#EXTINF:2.000,
s42.m4s
#EXT-X-PART:DURATION=0.5,URI="s43.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="s43.1.m4s"
`

func TestParseMedia(t *testing.T) {
	t.Parallel()
	m, err := parseMedia([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if m.Target != 2 || m.holdBack() != 1500*time.Millisecond || !m.Control.Block || m.Ended {
		t.Errorf("head: %+v", m)
	}
	parts := m.parts
	if len(parts) != 6 || parts[0].uri != "s41.m4s" || parts[3].msn != 42 || !parts[3].gap || parts[5].msn != 43 || parts[5].index != 0 || parts[5].init != "init.mp4" {
		t.Fatalf("parts: %+v", parts)
	}
	base := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	if got := parts[5].start.Sub(base); got != 4*time.Second {
		t.Errorf("the last part begins %v after the first segment", got)
	}
	if !parts[0].last || !parts[4].last || parts[1].last || parts[5].last {
		t.Error("which part ends a segment is wrong")
	}
	if i := m.startPart(); parts[i].uri != "s42.2.m4s" {
		t.Errorf("it starts at %+v", parts[i])
	}
	for _, bad := range []string{"", "<html>", "#EXTM3U\n#EXT-X-PART:DURATION=x", "#EXTM3U\n#EXTINF:-1,", "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:?"} {
		if _, err := parseMedia([]byte(bad)); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv.m3u8")
	f.Add(`#EXTM3U` + "\n" + `#EXT-X-PART:DURATION=1,URI="a`)
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parseMultivariant([]byte(text))
		m, err := parseMedia([]byte(text))
		if err != nil {
			return
		}
		if len(m.parts) > 0 {
			if i := m.startPart(); i < 0 || i >= len(m.parts) {
				t.Fatalf("starts at %d of %d", i, len(m.parts))
			}
		}
	})
}

// live serves a stream that began at start: 100 ms parts, four to a segment, and nothing while stuck.
type live struct {
	start time.Time
	mu    sync.Mutex
	from  time.Time // stuck between these
	to    time.Time
}

const partLen = 100 * time.Millisecond

// available is how many parts are complete now.
func (l *live) available() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.After(l.from) && now.Before(l.to) {
		now = l.from
	}
	return int(now.Sub(l.start) / partLen)
}

func (l *live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "index.m3u8"):
		fmt.Fprint(w, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nv/media.m3u8?token=x\n")
	case strings.HasSuffix(r.URL.Path, "media.m3u8"):
		if r.URL.Query().Get("token") != "x" {
			http.Error(w, "no token", http.StatusForbidden)
			return
		}
		var msn, index int
		fmt.Sscan(r.URL.Query().Get("_HLS_msn"), &msn)
		fmt.Sscan(r.URL.Query().Get("_HLS_part"), &index)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for l.available() <= msn*4+index {
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
		l.playlist(w)
	default:
		fmt.Fprint(w, "media")
	}
}

func (l *live) playlist(w http.ResponseWriter) {
	n := l.available()
	first := max(0, n/4-3)
	fmt.Fprintf(w, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:1\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.3\n"+
		"#EXT-X-PART-INF:PART-TARGET=0.1\n#EXT-X-MEDIA-SEQUENCE:%d\n#EXT-X-MAP:URI=\"init.mp4\"\n", first)
	for msn := first; msn*4 < n; msn++ {
		fmt.Fprintf(w, "#EXT-X-PROGRAM-DATE-TIME:%s\n", l.start.Add(time.Duration(msn*4)*partLen).Format(time.RFC3339Nano))
		for p := 0; p < 4 && msn*4+p < n; p++ {
			fmt.Fprintf(w, "#EXT-X-PART:DURATION=0.1,URI=\"7-%d.%d.m4s\"\n", msn, p)
		}
		if (msn+1)*4 <= n {
			fmt.Fprintf(w, "#EXTINF:0.4,\n%d.m4s\n", msn)
		}
	}
}

func TestPlayFollowsTheLiveEdge(t *testing.T) {
	t.Parallel()
	l := &live{start: time.Now().Add(-5 * time.Second)}
	srv := httptest.NewServer(l)
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var got bytes.Buffer
	res := Play(ctx, Config{URL: srv.URL + "/index.m3u8", Client: srv.Client(), Sink: &got})
	if n := strings.Count(got.String(), "media"); got.Len() != n*len("media") || n < 10 {
		t.Errorf("%d objects, %d bytes came into the sink", n, got.Len())
	}
	if !res.Started || res.Startup > time.Second || res.LastError != nil {
		t.Errorf("started %v after %v, %v", res.Started, res.Startup, res.LastError)
	}
	if res.Edge.Count() < 10 || res.Edge.Quantile(0.5) < 90*time.Millisecond || res.Edge.Quantile(0.5) > 600*time.Millisecond {
		t.Errorf("edge: %d parts, p50 %v", res.Edge.Count(), res.Edge.Quantile(0.5))
	}
	if q := res.Latency.Quantile(0.5); q < 200*time.Millisecond || q > time.Second {
		t.Errorf("latency p50 %v", q)
	}
}

func TestACrowdFollowsTheLiveEdge(t *testing.T) {
	t.Parallel()
	l := &live{start: time.Now().Add(-5 * time.Second)}
	srv := httptest.NewServer(l)
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	crowd := NewCrowd()
	results := make([]*Result, 20)
	var wg, enough sync.WaitGroup
	enough.Add(len(results))
	for i := range results {
		wg.Go(func() {
			parts := 0
			results[i] = crowd.Play(ctx, Config{URL: srv.URL + "/index.m3u8", Client: srv.Client()}, func() bool {
				if parts++; parts == 10 {
					enough.Done()
				}
				return parts > 1
			})
			if parts < 10 {
				enough.Done()
			}
		})
	}
	enough.Wait()
	cancel()
	wg.Wait()
	for i, res := range results {
		if !res.Started || res.Failures > 0 || res.Spread.Count() < 9 || res.Spread.Quantile(0.5) > 2*time.Second {
			t.Errorf("player %d: %+v, %d parts, spread of %v", i, res.LastError, res.Spread.Count(), res.Spread.Quantile(0.5))
		}
	}
}

func TestPlayNoticesAStall(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := &live{start: now.Add(-5 * time.Second), from: now.Add(500 * time.Millisecond), to: now.Add(1500 * time.Millisecond)}
	srv := httptest.NewServer(l)
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	res := Play(ctx, Config{URL: srv.URL + "/index.m3u8", Client: srv.Client()})
	if res.Stalls == 0 || res.Stalled < 300*time.Millisecond || res.Stalled > 2*time.Second {
		t.Errorf("%d stalls of %v", res.Stalls, res.Stalled)
	}
}

func TestPlayKeepsTryingAStreamThatIsNotThere(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	res := Play(ctx, Config{URL: srv.URL + "/index.m3u8", Client: srv.Client(), Poll: 50 * time.Millisecond})
	if res.Started || res.Failures < 2 || res.LastError == nil {
		t.Errorf("%+v", res)
	}
}
