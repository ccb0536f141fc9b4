package whip

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// stage answers with what it was asked.
type stage struct{ ended string }

func (*stage) Publish(_ context.Context, r Request) (Session, error) {
	if r.Region == "away" && !r.Redirected {
		return Session{}, fmt.Errorf("joining: %w", &Elsewhere{URL: "https://b:1/", Ticket: "a+b"})
	}
	if r.Token == "expired" {
		return Session{}, proto.Errorf(proto.TokenExpired, "the token has expired")
	}
	return Session{ID: "wh_x", Answer: "publish " + r.Room, ICEServers: []*amphiv1.IceServer{
		{Urls: []string{"turn:" + r.Host + "?transport=udp"}, Username: "1:p", Credential: "c"}}}, nil
}

func (*stage) Play(_ context.Context, r Request) (Session, error) {
	return Session{ID: "wh_y", Answer: "play " + r.Track}, nil
}

func (s *stage) End(_ context.Context, id string) error {
	if id != "wh_x" {
		return proto.Errorf(proto.NotFound, "no such session")
	}
	s.ended = id
	return nil
}

func do(h http.Handler, method, path, contentType, authorization, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Authorization", authorization)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRequests(t *testing.T) {
	t.Parallel()
	const sdp = "application/sdp"
	for name, tt := range map[string]struct {
		method, path, kind, auth, body string
		status                         int
		answer                         string
	}{
		"publish":      {"POST", "/v1/whip/hall", sdp, "Bearer t", "v=0", 201, "publish hall"},
		"with charset": {"POST", "/v1/whip/hall", sdp + "; charset=utf-8", "bearer t", "v=0", 201, "publish hall"},
		"play a track": {"POST", "/v1/whep/hall?track=tr_a", sdp, "Bearer t", "v=0", 201, "play tr_a"},
		"wrong kind":   {"POST", "/v1/whip/hall", "text/plain", "Bearer t", "v=0", 400, "invalid_message"},
		"no token":     {"POST", "/v1/whip/hall", sdp, "", "v=0", 401, "unauthenticated"},
		"basic":        {"POST", "/v1/whip/hall", sdp, "Basic x", "v=0", 401, "unauthenticated"},
		"expired":      {"POST", "/v1/whip/hall", sdp, "Bearer expired", "v=0", 401, "token_expired"},
		"not SDP":      {"POST", "/v1/whip/hall", sdp, "Bearer t", "hello", 400, "sdp_invalid"},
		"too large":    {"POST", "/v1/whip/hall", sdp, "Bearer t", "v=0" + strings.Repeat("x", proto.MaxSDP), 413, "sdp_too_large"},
		"end":          {"DELETE", "/v1/whip/hall/wh_x", "", "", "", 200, ""},
		"end nothing":  {"DELETE", "/v1/whep/hall/wh_z", "", "", "", 404, "not_found"},
		"no method":    {"PATCH", "/v1/whip/hall/wh_x", "", "", "", 405, "invalid_argument"},
		"get":          {"GET", "/v1/whep/hall", "", "", "", 405, "invalid_argument"},
		"get session":  {"GET", "/v1/whep/hall/wh_x", "", "", "", 405, "invalid_argument"},
		"no path":      {"POST", "/v1/whip/hall/wh_x/more", sdp, "Bearer t", "v=0", 404, "not_found"},
		"token first":  {"POST", "/v1/whip/hall", "text/plain", "", "v=0", 401, "unauthenticated"},
		"preflight":    {"OPTIONS", "/v1/whip/hall", "", "", "", 204, ""},
	} {
		w := do(Handler(&stage{}, slog.New(slog.DiscardHandler)), tt.method, tt.path, tt.kind, tt.auth, tt.body)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		h := w.Header()
		if h.Get("Access-Control-Allow-Origin") != "*" || (h.Get("Allow") != "") != (w.Code == 405) || (h.Get("WWW-Authenticate") == "Bearer") != (w.Code == 401) {
			t.Errorf("%s: %d with %v", name, w.Code, h)
		}
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	h := Handler(&stage{}, slog.New(slog.DiscardHandler))
	sent := do(h, "POST", "/v1/whip/a%20hall?region=away&track=x", "application/sdp", "Bearer t", "v=0")
	if to := sent.Header().Get("Location"); sent.Code != http.StatusTemporaryRedirect || to != "https://b:1/v1/whip/a%20hall?region=away&ticket=a%2Bb&track=x" {
		t.Errorf("%d to %q", sent.Code, to)
	}
	if there := do(h, "POST", "/v1/whip/hall?region=away&ticket=t", "application/sdp", "", "v=0"); there.Code != http.StatusCreated {
		t.Errorf("with a ticket %d %s", there.Code, there.Body)
	}
	if again := do(h, "POST", "/v1/whip/hall?ticket=expired", "application/sdp", "Bearer t", "v=0"); again.Code != http.StatusCreated {
		t.Errorf("with a ticket of before and a token %d %s", again.Code, again.Body)
	}
	made := do(h, "POST", "/v1/whip/hall", "application/sdp", "Bearer t", "v=0").Header()
	for k, want := range map[string]string{"Location": "/v1/whip/hall/wh_x", "Content-Type": "application/sdp",
		"Link":                        `<turn:example.com?transport=udp>; rel="ice-server"; username="1:p"; credential="c"; credential-type="password"`,
		"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Location, Link", "Etag": ""} {
		if made.Get(k) != want {
			t.Errorf("%s is %q", k, made.Get(k))
		}
	}
	pre := do(h, "OPTIONS", "/v1/whep/hall/wh_y", "", "", "").Header()
	if pre.Get("Access-Control-Allow-Methods") != "DELETE, OPTIONS" || !strings.Contains(pre.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight %v", pre)
	}
}

// FuzzPost shows that no request makes the server answer anything but success or a refusal with a code.
func FuzzPost(f *testing.F) {
	f.Add("application/sdp", "Bearer t", "tr_a", "v=0\r\n")
	f.Add("", "", "", "")
	f.Add("application/sdp;;", "bearer ", "%", "v=")
	h := Handler(&stage{}, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, kind, authorization, track, body string) {
		r := httptest.NewRequest(http.MethodPost, "/v1/whep/hall", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Authorization", authorization)
		r.URL.RawQuery = "track=" + track
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 201 && w.Code != 307 && (w.Code < 400 || w.Code >= 500 || !strings.Contains(w.Body.String(), `{"error":`)) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}
