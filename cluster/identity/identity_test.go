package identity

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newAuthority(t testing.TB, life time.Duration) *Authority {
	t.Helper()
	a, err := New("test", life)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newIdentity(t testing.TB, a *Authority, node string) *Identity {
	t.Helper()
	i, err := a.Identity(node)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// meet does a handshake over a pipe and answers what each side says of it.
func meet(t *testing.T, server, client *tls.Config) (s, c *tls.Conn, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		s = tls.Server(raw, server)
		_ = s.SetDeadline(time.Now().Add(10 * time.Second))
		done <- s.Handshake()
	}()
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c = tls.Client(raw, client)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	clientErr = c.Handshake()
	if clientErr != nil {
		_ = c.Close()
	}
	serverErr = <-done
	t.Cleanup(func() {
		_ = c.Close()
		if s != nil {
			_ = s.Close()
		}
	})
	return s, c, serverErr, clientErr
}

func TestNodesOfOneAuthorityKnowEachOther(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, 0)
	ams, fra := newIdentity(t, a, "ams-1"), newIdentity(t, a, "fra-1")
	s, c, serverErr, clientErr := meet(t, ams.Server("x/1", "y/1"), fra.Client("ams-1", "y/1"))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if id, err := ams.PeerID(s.ConnectionState()); err != nil || id != "fra-1" {
		t.Errorf("the server sees %q, %v", id, err)
	}
	if id, err := fra.PeerID(c.ConnectionState()); err != nil || id != "ams-1" {
		t.Errorf("the client sees %q, %v", id, err)
	}
	if got := s.ConnectionState(); got.NegotiatedProtocol != "y/1" || got.Version != tls.VersionTLS13 {
		t.Errorf("protocol %q, TLS %x", got.NegotiatedProtocol, got.Version)
	}
}

func TestWhoIsRefused(t *testing.T) {
	t.Parallel()
	a, foreign := newAuthority(t, 0), newAuthority(t, 0)
	node := newIdentity(t, a, "ams-1")
	late := newIdentity(t, a, "ams-1")
	late.now = func() time.Time { return time.Now().Add(2 * NodeLife) }
	for name, c := range map[string]struct {
		server, client *tls.Config
		want           error // as the side says that refuses
	}{
		"a client of another authority": {node.Server("x/1"), looseClient(newIdentity(t, foreign, "fra-1")), ErrForeign},
		"a server of another authority": {newIdentity(t, foreign, "ams-1").Server("x/1"), node.Client("ams-1", "x/1"), ErrForeign},
		"another node than called":      {node.Server("x/1"), newIdentity(t, a, "fra-1").Client("lon-1", "x/1"), ErrWrongNode},
		"an expired client":             {late.Server("x/1"), looseClient(newIdentity(t, a, "fra-1")), ErrExpired},
		"an authority as a node":        {node.Server("x/1"), looseClient(asNode(a)), ErrWrongNode},
	} {
		_, _, serverErr, clientErr := meet(t, c.server, c.client)
		if !errors.Is(serverErr, c.want) && !errors.Is(clientErr, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, serverErr, clientErr, c.want)
		}
	}
	for name, c := range map[string]*tls.Config{
		"no certificate":    {InsecureSkipVerify: true, NextProtos: []string{"x/1"}},
		"TLS 1.2":           withVersion(newIdentity(t, a, "fra-1").Client("ams-1", "x/1"), tls.VersionTLS12),
		"no protocol of it": newIdentity(t, a, "fra-1").Client("ams-1", "z/1"),
	} {
		if _, _, serverErr, _ := meet(t, node.Server("x/1"), c); serverErr == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// looseClient accepts any server, so that the server's refusal is what is seen.
func looseClient(i *Identity) *tls.Config {
	c := i.Client("", "x/1")
	c.VerifyConnection = nil
	return c
}

func withVersion(c *tls.Config, version uint16) *tls.Config {
	c.MinVersion, c.MaxVersion = version, version
	return c
}

// asNode uses the authority's own certificate, which names no node.
func asNode(a *Authority) *Identity {
	return fromMemory("", tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key, Leaf: a.cert}, a.cert)
}

func TestOnlyOneExactURINamesANode(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, 0)
	cert := *newIdentity(t, a, "ams-1").current.pair.Leaf
	for _, uri := range []string{"amphi://node/", "amphi://node/a/b", "amphi://other/ams-1", "http://node/ams-1",
		"amphi://node/ams-1?x=1", "amphi://u@node/ams-1", "amphi://node:1/ams-1", "amphi://node/ams-1#x", "amphi:ams-1", "amphi://node//ams-1", "amphi://node/ams%20a"} {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		cert.URIs = []*url.URL{u}
		if id, err := nodeOf(&cert); err == nil {
			t.Errorf("%s names %q", uri, id)
		}
	}
	cert.URIs = []*url.URL{nodeURI("a"), nodeURI("b")}
	if _, err := nodeOf(&cert); !errors.Is(err, ErrWrongNode) {
		t.Errorf("two URIs: %v", err)
	}
}

func TestIssueRefusesWhatIsNoNode(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, 0)
	for _, id := range []string{"", "a b", "a/b", "ä", strings.Repeat("a", MaxNode+1)} {
		if _, _, err := a.Issue(id, 0); err == nil {
			t.Errorf("%q got a certificate", id)
		}
	}
	short := newAuthority(t, time.Hour)
	if i := newIdentity(t, short, "x"); i.Expires().After(short.Expires()) {
		t.Error("a node's certificate outlives the authority")
	}
}

func TestAuthorityIsSavedOnceAndReadBack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	a := newAuthority(t, 0)
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, CAKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key: %v, %v", info.Mode(), err)
	}
	if err := newAuthority(t, 0).Save(dir); err == nil {
		t.Error("an authority was overwritten")
	}
	again, err := LoadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.CertPEM(), a.CertPEM()) {
		t.Error("another certificate came back")
	}
	if _, err := LoadAuthority(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

// disk is a node's files, and a clock that tests turn.
type disk struct {
	t     *testing.T
	files Files
	clock atomic.Int64
}

func newDisk(t *testing.T) *disk {
	dir := t.TempDir()
	d := &disk{t: t, files: Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "node.pem"), Key: filepath.Join(dir, "node.key")}}
	d.clock.Store(time.Now().UnixNano())
	return d
}

func (d *disk) now() time.Time { return time.Unix(0, d.clock.Load()) }

// write puts new contents in place, with a time of change that no earlier one had, and turns the clock on.
func (d *disk) write(contents map[string][]byte) {
	d.t.Helper()
	d.clock.Add(int64(2 * time.Second))
	for name, data := range contents {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			d.t.Fatal(err)
		}
		if err := os.Chtimes(name, d.now(), d.now()); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *disk) issue(a *Authority, node string, roots []byte) {
	d.t.Helper()
	cert, key, err := a.Issue(node, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(map[string][]byte{d.files.CA: roots, d.files.Cert: cert, d.files.Key: key})
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	t.Parallel()
	before, after := newAuthority(t, 0), newAuthority(t, 0)
	d := newDisk(t)
	d.issue(before, "ams-1", before.CertPEM())
	i, err := Load(Config{Logger: slog.New(slog.DiscardHandler), Node: "ams-1", Files: d.files, Now: d.now})
	if err != nil {
		t.Fatal(err)
	}
	fresh := newIdentity(t, after, "fra-1")
	if _, _, serverErr, _ := meet(t, i.Server("x/1"), looseClient(fresh)); !errors.Is(serverErr, ErrForeign) {
		t.Fatalf("a node of the next authority, too early: %v", serverErr)
	}

	// The authority is replaced: first both are trusted, then the node gets a certificate of the new one.
	both := append(before.CertPEM(), after.CertPEM()...)
	d.write(map[string][]byte{d.files.CA: both})
	if _, _, serverErr, _ := meet(t, i.Server("x/1"), looseClient(fresh)); serverErr != nil {
		t.Fatalf("a node of the next authority: %v", serverErr)
	}
	d.issue(after, "ams-1", both)
	if _, _, serverErr, clientErr := meet(t, i.Server("x/1"), fresh.Client("ams-1", "x/1")); serverErr != nil || clientErr != nil {
		t.Fatalf("after the new certificate: %v, %v", serverErr, clientErr)
	}

	// What is damaged, or of another node, leaves the last good one in use.
	good := i.Expires()
	d.write(map[string][]byte{d.files.Cert: []byte("half")})
	if i.Expires() != good {
		t.Error("a damaged file was taken")
	}
	d.issue(after, "fra-1", both)
	if _, _, serverErr, clientErr := meet(t, i.Server("x/1"), fresh.Client("ams-1", "x/1")); serverErr != nil || clientErr != nil {
		t.Fatalf("after a certificate of another node: %v, %v", serverErr, clientErr)
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, 0)
	cert, key, err := a.Issue("ams-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := a.Issue("ams-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		node          string
		ca, cert, key []byte
		later         time.Duration
		want          string
	}{
		"another node":      {"fra-1", a.CertPEM(), cert, key, 0, `it names "ams-1", this node is "fra-1"`},
		"another authority": {"ams-1", newAuthority(t, 0).CertPEM(), cert, key, 0, "another authority"},
		"no authority":      {"ams-1", []byte("nothing"), cert, key, 0, "holds no certificate"},
		"a node as one":     {"ams-1", cert, cert, key, 0, "is not an authority"},
		"a key as one":      {"ams-1", key, cert, key, 0, "only certificates belong there"},
		"the wrong key":     {"ams-1", a.CertPEM(), cert, otherKey, 0, "private key does not match"},
		"expired":           {"ams-1", a.CertPEM(), cert, key, 2 * NodeLife, "not valid at this time"},
	} {
		d := newDisk(t)
		d.write(map[string][]byte{d.files.CA: c.ca, d.files.Cert: c.cert, d.files.Key: c.key})
		d.clock.Add(int64(c.later))
		_, err := Load(Config{Node: c.node, Files: d.files, Now: d.now})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

func FuzzRoots(f *testing.F) {
	f.Add(newAuthority(f, 0).CertPEM())
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		if roots, err := parseRoots(bundle); (roots == nil) == (err == nil) {
			t.Errorf("%v and %v", roots, err)
		}
	})
}
