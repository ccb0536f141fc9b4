package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/golang-jwt/jwt/v5"
)

type keys map[string]*pb.ApiKey

func (k keys) Key(id string) (*pb.ApiKey, bool) {
	key, ok := k[id]
	return key, ok
}

var start = time.Unix(1_800_000_000, 0)

const secret = "a secret of the test, long enough"

func appGrant() auth.Grant {
	return auth.Grant{
		Type: auth.App, Room: "demo", Role: "host", UserID: "u1", Name: "Ada", ID: "j1",
		IssuedAt: start, ExpiresAt: start.Add(time.Hour),
	}
}

// pair makes a key pair, as PEM.
func pair(t testing.TB, private crypto.Signer) (priv, pub string) {
	t.Helper()
	p8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pk}))
}

func signers(t testing.TB) (map[string]auth.Signer, keys) {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPriv, edPub := pair(t, ed)
	ecPriv, ecPub := pair(t, ec)
	return map[string]auth.Signer{
			"hs": {KeyID: "hs", Secret: secret},
			"ed": {KeyID: "ed", PrivateKey: edPriv},
			"ec": {KeyID: "ec", PrivateKey: ecPriv},
		}, keys{
			"hs":  {Id: "hs", Secret: secret},
			"ed":  {Id: "ed", PublicKey: edPub},
			"ec":  {Id: "ec", PublicKey: ecPub},
			"off": {Id: "off", Secret: secret, Disabled: true},
		}
}

func TestMintedTokensVerify(t *testing.T) {
	t.Parallel()
	all, ks := signers(t)
	v := auth.NewVerifier(ks)
	for name, s := range all {
		for _, g := range []auth.Grant{
			appGrant(),
			{Type: auth.Management, IssuedAt: start, ExpiresAt: start.Add(time.Minute)},
			{Type: auth.Play, Room: "demo", IssuedAt: start, ExpiresAt: start.Add(auth.MaxLife)},
		} {
			token, err := s.Mint(g)
			if err != nil {
				t.Fatalf("%s: minting: %v", name, err)
			}
			got, err := v.Verify(start, token, auth.App, auth.Management, auth.Play)
			if err != nil {
				t.Fatalf("%s: verifying: %v", name, err)
			}
			g.KeyID = name
			if got != g {
				t.Errorf("%s: got %+v, want %+v", name, got, g)
			}
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	all, ks := signers(t)
	v := auth.NewVerifier(ks)
	token, err := all["hs"].Mint(appGrant())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   time.Duration
		want proto.Code
	}{
		{-31 * time.Second, proto.Unauthenticated},
		{-29 * time.Second, ""},
		{time.Hour + 29*time.Second, ""},
		{time.Hour + 31*time.Second, proto.TokenExpired},
	} {
		_, err := v.Verify(start.Add(c.at), token, auth.App)
		if got := proto.CodeOf(err); got != c.want {
			t.Errorf("at %v: code %q (%v), want %q", c.at, got, err, c.want)
		}
	}
}

// TestRefused signs tokens by hand, each wrong in one way.
func TestRefused(t *testing.T) {
	t.Parallel()
	all, ks := signers(t)
	v := auth.NewVerifier(ks)
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{
			"aud": "amphi", "typ": "app", "room": "demo", "role": "host",
			"iat": start.Unix(), "exp": start.Add(time.Hour).Unix(),
		}
		change(c)
		return c
	}
	sign := func(m jwt.SigningMethod, kid string, key any, c jwt.Claims) string {
		tok := jwt.NewWithClaims(m, c)
		if kid != "" {
			tok.Header["kid"] = kid
		}
		s, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	hs := func(change func(jwt.MapClaims)) string {
		return sign(jwt.SigningMethodHS256, "hs", []byte(secret), claims(change))
	}
	same := func(jwt.MapClaims) {}
	if _, err := v.Verify(start, hs(same), auth.App); err != nil {
		t.Fatalf("the untouched token is refused: %v", err)
	}
	edToken, err := all["ed"].Mint(appGrant())
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"empty":           "",
		"junk":            "a.b.c",
		"too long":        hs(func(c jwt.MapClaims) { c["x"] = strings.Repeat("x", auth.MaxToken) }),
		"other secret":    sign(jwt.SigningMethodHS256, "hs", []byte("other"), claims(same)),
		"unknown key":     sign(jwt.SigningMethodHS256, "nobody", []byte(secret), claims(same)),
		"no key":          sign(jwt.SigningMethodHS256, "", []byte(secret), claims(same)),
		"disabled key":    sign(jwt.SigningMethodHS256, "off", []byte(secret), claims(same)),
		"HS512":           sign(jwt.SigningMethodHS512, "hs", []byte(secret), claims(same)),
		"none":            sign(jwt.SigningMethodNone, "hs", jwt.UnsafeAllowNoneSignatureType, claims(same)),
		"public as HMAC":  sign(jwt.SigningMethodHS256, "ed", []byte(ks["ed"].GetPublicKey()), claims(same)),
		"cut signature":   edToken[:len(edToken)-4],
		"audience":        hs(func(c jwt.MapClaims) { c["aud"] = "other" }),
		"no audience":     hs(func(c jwt.MapClaims) { delete(c, "aud") }),
		"no exp":          hs(func(c jwt.MapClaims) { delete(c, "exp") }),
		"no iat":          hs(func(c jwt.MapClaims) { delete(c, "iat") }),
		"life too long":   hs(func(c jwt.MapClaims) { c["exp"] = start.Add(auth.MaxLife + time.Second).Unix() }),
		"exp before iat":  hs(func(c jwt.MapClaims) { c["exp"] = start.Add(-time.Second).Unix() }),
		"exp overflows":   hs(func(c jwt.MapClaims) { c["exp"] = 1e17 }),
		"not yet":         hs(func(c jwt.MapClaims) { c["nbf"] = start.Add(time.Minute).Unix() }),
		"no type":         hs(func(c jwt.MapClaims) { delete(c, "typ") }),
		"unknown type":    hs(func(c jwt.MapClaims) { c["typ"] = "root" }),
		"type of no use":  hs(func(c jwt.MapClaims) { c["typ"] = "play" }),
		"no room":         hs(func(c jwt.MapClaims) { delete(c, "room") }),
		"bad room":        hs(func(c jwt.MapClaims) { c["room"] = "a/b" }),
		"no role":         hs(func(c jwt.MapClaims) { delete(c, "role") }),
		"long user":       hs(func(c jwt.MapClaims) { c["sub"] = strings.Repeat("u", proto.MaxUserID+1) }),
		"claim of a kind": hs(func(c jwt.MapClaims) { c["room"] = 7 }),
	} {
		if g, err := v.Verify(start, token, auth.App, auth.Management); proto.CodeOf(err) != proto.Unauthenticated {
			t.Errorf("%s: got %+v, %v; want unauthenticated", name, g, err)
		}
	}
}

func TestMintRefuses(t *testing.T) {
	t.Parallel()
	good := auth.Signer{KeyID: "hs", Secret: secret}
	for name, f := range map[string]func(*auth.Grant, *auth.Signer){
		"no type":   func(g *auth.Grant, _ *auth.Signer) { g.Type = "" },
		"no room":   func(g *auth.Grant, _ *auth.Signer) { g.Room = "" },
		"too long":  func(g *auth.Grant, _ *auth.Signer) { g.ExpiresAt = start.Add(auth.MaxLife + time.Hour) },
		"no key":    func(_ *auth.Grant, s *auth.Signer) { s.Secret = "" },
		"no key id": func(_ *auth.Grant, s *auth.Signer) { s.KeyID = "" },
		"bad PEM":   func(_ *auth.Grant, s *auth.Signer) { s.PrivateKey = "x" },
	} {
		g, s := appGrant(), good
		f(&g, &s)
		if token, err := s.Mint(g); err == nil {
			t.Errorf("%s: minted %q", name, token)
		}
	}
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	_, ks := signers(t)
	for id, k := range ks {
		if err := auth.CheckKey(k); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, k := range []*pb.ApiKey{{}, {Id: "x"}, {Id: "x", Secret: "s", PublicKey: "p"}, {Id: "x", PublicKey: "p"}} {
		if auth.CheckKey(k) == nil {
			t.Errorf("accepted %v", k)
		}
	}
}

func TestResumeToken(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef0123456789abcdef")
	want := auth.Resume{Room: "demo", PeerID: "pe_1", SessionID: strings.Repeat("s", 255), Node: "no_a", Expires: start}
	token := auth.SealResume(key, want)
	got, err := auth.OpenResume(key, start, token)
	if err != nil || got != want {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := auth.OpenResume(key, start.Add(time.Second), token); proto.CodeOf(err) != proto.ResumeExpired {
		t.Errorf("after its time: %v", err)
	}
	for i := range token {
		bad := []byte(token)
		bad[i] ^= 1
		if _, err := auth.OpenResume(key, start, string(bad)); proto.CodeOf(err) != proto.Unauthenticated {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
	}
	for _, bad := range []string{"", "x", token + "A", token[:20], strings.Repeat("A", 4096)} {
		if _, err := auth.OpenResume(key, start, bad); proto.CodeOf(err) != proto.Unauthenticated {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	if _, err := auth.OpenResume([]byte("other"), start, token); proto.CodeOf(err) != proto.Unauthenticated {
		t.Errorf("other secret: %v", err)
	}
	if _, err := auth.OpenResume(nil, start, auth.SealResume(nil, want)); proto.CodeOf(err) != proto.Unauthenticated {
		t.Errorf("no secret: %v", err)
	}
}

func TestPlaybackToken(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef0123456789abcdef")
	want := auth.Playback{Room: "demo", Stream: "main", Viewer: "pe_1", Expires: start}
	token := auth.SealPlayback(key, want)
	got, err := auth.OpenPlayback(key, start, token)
	if err != nil || got != want {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := auth.OpenPlayback(key, start.Add(time.Second), token); proto.CodeOf(err) != proto.TokenExpired {
		t.Errorf("after its time: %v", err)
	}
	for i := range token {
		bad := []byte(token)
		bad[i] ^= 1
		if _, err := auth.OpenPlayback(key, start, string(bad)); proto.CodeOf(err) != proto.Unauthenticated {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
	}
	resume := auth.SealResume(key, auth.Resume{Room: "demo", PeerID: "main", SessionID: "pe_1", Expires: start})
	for _, bad := range []string{"", "x", token + "A", token[:20], strings.Repeat("A", 4096), resume} {
		if _, err := auth.OpenPlayback(key, start, bad); proto.CodeOf(err) != proto.Unauthenticated {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	if _, err := auth.OpenResume(key, start, token); proto.CodeOf(err) != proto.Unauthenticated {
		t.Errorf("a playback token resumes: %v", err)
	}
	if _, err := auth.OpenPlayback(nil, start, auth.SealPlayback(nil, want)); proto.CodeOf(err) != proto.Unauthenticated {
		t.Errorf("no secret: %v", err)
	}
}

func FuzzOpenPlayback(f *testing.F) {
	key := []byte("0123456789abcdef0123456789abcdef")
	f.Add(auth.SealPlayback(key, auth.Playback{Room: "demo", Stream: "main", Viewer: "pe_1", Expires: start}))
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := auth.OpenPlayback(key, start, token)
		if err == nil && auth.SealPlayback(key, p) != token {
			t.Fatalf("a token that nobody sealed: %+v", p)
		}
	})
}

func BenchmarkOpenPlayback(b *testing.B) {
	key := []byte("0123456789abcdef0123456789abcdef")
	token := auth.SealPlayback(key, auth.Playback{Room: "demo", Stream: "main", Viewer: "pe_1", Expires: start})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := auth.OpenPlayback(key, start, token); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	all, ks := signers(f)
	v := auth.NewVerifier(ks)
	for _, s := range all {
		token, err := s.Mint(appGrant())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		g, err := v.Verify(start, token, auth.App)
		if err == nil && (g.Room != "demo" || g.Role != "host") {
			t.Fatalf("a token that nobody signed: %+v", g)
		}
		if c := proto.CodeOf(err); err != nil && c != proto.Unauthenticated && c != proto.TokenExpired {
			t.Fatalf("code %q", c)
		}
	})
}

func FuzzOpenResume(f *testing.F) {
	key := []byte("0123456789abcdef0123456789abcdef")
	f.Add(auth.SealResume(key, auth.Resume{Room: "demo", PeerID: "pe_1", SessionID: "se_1", Node: "no_1", Expires: start}))
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		r, err := auth.OpenResume(key, start, token)
		if err == nil && auth.SealResume(key, r) != token {
			t.Fatalf("a token that nobody sealed: %+v", r)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	all, ks := signers(b)
	v := auth.NewVerifier(ks)
	for name, s := range all {
		token, err := s.Mint(appGrant())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(start, token, auth.App); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
