package signal

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
)

// playbackToken is the token in a stream's URL.
func playbackToken(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || !strings.HasSuffix(u.Path, "/main/index.m3u8") {
		t.Fatalf("%q: %v", address, err)
	}
	return u.Query().Get("token")
}

func TestPlaybackTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	vera := w.dial(t, false)
	vera.send(&amphiv1.ClientMessage{Id: vera.id(), Body: &amphiv1.ClientMessage_Hello{Hello: &amphiv1.Hello{Token: token(t, "field")}}})
	vera.send(command(vera.id(), &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: "Vera"}}}))
	joined := vera.joined(vera.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil }))
	if len(joined.GetPlayback()) != 1 || joined.GetPlayback()[0].GetExpiresMs() == 0 {
		t.Fatalf("joined with %v", joined.GetPlayback())
	}
	minted, err := w.mintPlayback("hall", "", "u1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(g auth.Grant) string {
		g.Type, g.IssuedAt, g.ExpiresAt = auth.Play, time.Now(), time.Now().Add(time.Minute)
		s, err := auth.Signer{KeyID: "k", Secret: testSecret}.Mint(g)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	sealed := func(p auth.Playback) string { return auth.SealPlayback(w.records.secret(), p) }
	soon := time.Now().Add(time.Minute)
	for name, c := range map[string]struct {
		token string
		want  proto.Code
	}{
		"joined":            {playbackToken(t, joined.GetPlayback()[0].GetUrl()), ""},
		"minted":            {playbackToken(t, minted.GetUrl()), ""},
		"signed":            {signed(auth.Grant{Room: "HALL"}), ""},
		"signed, one":       {signed(auth.Grant{Room: "hall", Stream: "main"}), ""},
		"none":              {"", proto.Unauthenticated},
		"junk":              {"x", proto.Unauthenticated},
		"an app token":      {token(t, "steward"), proto.Unauthenticated},
		"a resume token":    {joined.GetResumeToken(), proto.Unauthenticated},
		"expired":           {sealed(auth.Playback{Room: "hall", Stream: "main", Expires: time.Now().Add(-time.Minute)}), proto.TokenExpired},
		"of another room":   {sealed(auth.Playback{Room: "closed", Stream: "main", Expires: soon}), proto.PermissionDenied},
		"of another stream": {sealed(auth.Playback{Room: "hall", Stream: "side", Expires: soon}), proto.PermissionDenied},
		"signed, another":   {signed(auth.Grant{Room: "hall", Stream: "side"}), proto.PermissionDenied},
	} {
		open, err := w.AuthorizePlayback(nil, "hall", "main", c.token)
		if got := proto.CodeOf(err); open || got != c.want {
			t.Errorf("%s: open %v, %q (%v), want %q", name, open, got, err, c.want)
		}
	}
	for name, f := range map[string]func() error{
		"room":   func() error { _, err := w.mintPlayback("nowhere", "", "", 0); return err },
		"stream": func() error { _, err := w.mintPlayback("hall", "side", "", 0); return err },
		"life":   func() error { _, err := w.mintPlayback("hall", "", "", auth.MaxLife+time.Second); return err },
		"viewer": func() error {
			_, err := w.mintPlayback("hall", "", strings.Repeat("x", proto.MaxUserID+1), 0)
			return err
		},
	} {
		if err := f(); err == nil {
			t.Errorf("minted with a wrong %s", name)
		}
	}
}

func TestOpenPlayback(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	concert := protobuf.Clone(w.registry.reg.GetTemplates()["concert"]).(*amphiv1.Template)
	concert.GetStreams()[0].OpenPlayback = true
	w.registry.mu.Lock()
	w.registry.reg.Templates["concert"] = concert
	w.registry.mu.Unlock()
	if open, err := w.AuthorizePlayback(nil, "hall", "main", ""); !open || err != nil {
		t.Errorf("%v %v", open, err)
	}
	// A stream whose record has gone, but which is still served for a while, is not open for that.
	if open, err := w.AuthorizePlayback(nil, "hall", "unknown", ""); open || proto.CodeOf(err) != proto.NotFound {
		t.Errorf("unknown: %v %v", open, err)
	}
	kept := auth.SealPlayback(w.records.secret(), auth.Playback{Room: "hall", Stream: "unknown", Expires: time.Now().Add(time.Minute)})
	if open, err := w.AuthorizePlayback(nil, "hall", "unknown", kept); open || err != nil {
		t.Errorf("unknown, with its token: %v %v", open, err)
	}
	res, err := http.Post(w.url+"/v1/token", "application/json", strings.NewReader(`{"code":"abc-defg-hij"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer tokenAnswer
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || len(answer.Playback) != 1 ||
		answer.Playback[0].URL != "/v1/hls/Hall/main/index.m3u8" || answer.Playback[0].ExpiresMs != 0 {
		t.Errorf("%+v, %v", answer, err)
	}
}
