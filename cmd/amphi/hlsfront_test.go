package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestStreamsAreServedByAnyNode(t *testing.T) {
	t.Parallel()
	says := func(who string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, who+" "+r.URL.RequestURI()+" "+r.Header.Get(relayedHeader))
		})
	}
	origin := httptest.NewServer(says("origin"))
	defer origin.Close()
	where := map[string][2]string{"here": {"a", "http://nowhere"}, "there": {"b", origin.URL}, "gone": {"c", "http://127.0.0.1:1"}}
	h := newHLSFront("a", says("edge"), func(room string) (string, string) { return where[room][0], where[room][1] }, slog.New(slog.DiscardHandler))
	edge := httptest.NewServer(h)
	defer edge.Close()
	for path, want := range map[string]string{
		"/v1/hls/here/main/index.m3u8":                    "edge /v1/hls/here/main/index.m3u8 ",
		"/v1/hls/unknown/main/index.m3u8":                 "edge /v1/hls/unknown/main/index.m3u8 ",
		"/v1/hls/there/main/v0.m3u8?_HLS_msn=7&_HLS_part": "origin /v1/hls/there/main/v0.m3u8?_HLS_msn=7&_HLS_part a",
	} {
		if status, body := get(t, edge.URL+path); status != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", path, status, body, want)
		}
	}
	if status, _ := get(t, edge.URL+"/v1/hls/gone/main/index.m3u8"); status != http.StatusServiceUnavailable {
		t.Errorf("a dead origin: %d", status)
	}
	req, _ := http.NewRequest(http.MethodGet, edge.URL+"/v1/hls/there/main/index.m3u8", nil)
	req.Header.Set(relayedHeader, "b")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != "edge /v1/hls/there/main/index.m3u8 b" {
		t.Errorf("a relayed request was passed on: %q", body)
	}
}
