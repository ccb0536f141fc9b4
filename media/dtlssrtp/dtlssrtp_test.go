package dtlssrtp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/selfsign"
	"github.com/pion/srtp/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const deadline = 30 * time.Second

func certificate(t testing.TB, rsaKey bool) tls.Certificate {
	t.Helper()
	var cert tls.Certificate
	if rsaKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		if cert, err = selfsign.SelfSign(key); err != nil {
			t.Fatal(err)
		}
		return cert
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = selfsign.SelfSign(key); err != nil {
		t.Fatal(err)
	}
	return cert
}

// pair is an association of ours and a client of the library, joined in memory.
type pair struct {
	t      *testing.T
	a      *Association
	client *line // the client's socket
	begin  chan struct{}
	ended  chan struct{}

	mu     sync.Mutex // guards the fields below
	toUs   [][]byte
	toThem [][]byte
	lose   func(n int, b []byte) bool // loses the n-th datagram of ours
}

func newPair(t *testing.T, cfg Config) *pair {
	t.Helper()
	p := &pair{t: t, begin: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
	cfg.Certificate, cfg.Log = certificate(t, false), slog.New(slog.DiscardHandler)
	if cfg.Verify == nil {
		cfg.Verify = func([]byte) error { return nil }
	}
	cfg.Send = func(b []byte) {
		p.mu.Lock()
		lost := p.lose != nil && p.lose(len(p.toThem), b)
		p.toThem = append(p.toThem, slices.Clone(b))
		p.mu.Unlock()
		if !lost {
			p.client.deliver(b)
		}
	}
	p.client = newLine(func(b []byte) {
		p.mu.Lock()
		p.toUs = append(p.toUs, slices.Clone(b))
		p.mu.Unlock()
		p.deliver(b)
	})
	p.a = New(cfg)
	t.Cleanup(p.a.Close)
	return p
}

func (p *pair) deliver(b []byte) {
	switch p.a.Receive(b) {
	case Begin:
		p.begin <- struct{}{}
	case Ended:
		p.ended <- struct{}{}
	}
}

// connect runs both handshakes.
func (p *pair) connect(cert tls.Certificate, passive bool) (ours *Keys, theirs *dtls.Conn, err error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	opts := []dtls.Option{
		dtls.WithCertificates(cert), dtls.WithInsecureSkipVerify(true), dtls.WithFlightInterval(50 * time.Millisecond),
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM),
	}
	if passive {
		server := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
		for _, o := range opts {
			server = append(server, o)
		}
		theirs, err = dtls.ServerWithOptions(p.client, &net.UDPAddr{}, server...)
	} else {
		client := make([]dtls.ClientOption, len(opts))
		for i, o := range opts {
			client[i] = o
		}
		theirs, err = dtls.ClientWithOptions(p.client, &net.UDPAddr{}, client...)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { theirs.Close() })
	result := make(chan error, 1)
	go func() { result <- theirs.HandshakeContext(ctx) }()
	if !passive {
		<-p.begin
	}
	ours, err = p.a.Handshake(ctx)
	return ours, theirs, errors.Join(err, <-result)
}

// same checks that both sides have the same keys.
func same(t *testing.T, ours *Keys, theirs *dtls.Conn, active bool) {
	t.Helper()
	state, ok := theirs.ConnectionState()
	if !ok {
		t.Fatal("no state")
	}
	m, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(16+12))
	if err != nil {
		t.Fatal(err)
	}
	send, recv := ours.SendKey, ours.RecvKey
	if active {
		send, recv = recv, send
	}
	if !slices.Equal(recv, m[:16]) || !slices.Equal(send, m[16:32]) || ours.Profile != srtp.ProtectionProfileAeadAes128Gcm {
		t.Fatal("the keys differ")
	}
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		rsaKey, passive bool
	}{{"client begins", false, false}, {"client has an RSA certificate", true, false}, {"we begin", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cert := certificate(t, c.rsaKey)
			p := newPair(t, Config{Active: c.passive, Verify: func(der []byte) error {
				if !slices.Equal(der, cert.Certificate[0]) {
					return errors.New("not the client's certificate")
				}
				return nil
			}})
			ours, theirs, err := p.connect(cert, c.passive)
			if err != nil {
				t.Fatal(err)
			}
			same(t, ours, theirs, c.passive)
			theirs.Close()
			select {
			case <-p.ended:
			case <-time.After(deadline):
				t.Fatal("the end is not noticed")
			}
		})
	}
}

func TestCertificateIsVerified(t *testing.T) {
	t.Parallel()
	wrong := errors.New("wrong certificate")
	p := newPair(t, Config{Verify: func([]byte) error { return wrong }})
	if _, _, err := p.connect(certificate(t, false), false); !errors.Is(err, wrong) {
		t.Fatalf("%v", err)
	}
}

// TestLastFlightIsSentAgain loses it the first time.
func TestLastFlightIsSentAgain(t *testing.T) {
	t.Parallel()
	p := newPair(t, Config{})
	lost := false
	p.lose = func(_ int, b []byte) bool {
		if !lost && b[0] == 20 { // ChangeCipherSpec comes first in it
			lost = true
			return true
		}
		return false
	}
	ours, theirs, err := p.connect(certificate(t, false), false)
	if err != nil {
		t.Fatal(err)
	}
	if !lost {
		t.Fatal("nothing was lost")
	}
	same(t, ours, theirs, false)
}

func TestForgedRecordsEndNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t, Config{})
	if _, _, err := p.connect(certificate(t, false), false); err != nil {
		t.Fatal(err)
	}
	plain := []byte{21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0}
	sealed := append([]byte{21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 26}, make([]byte, 26)...)
	for _, b := range [][]byte{plain, sealed, sealed[:20], {21}, {}} {
		if e := p.a.Receive(b); e != Nothing {
			t.Fatalf("%x: event %d", b, e)
		}
	}
	p.mu.Lock()
	before := len(p.toThem)
	p.mu.Unlock()
	repeated := append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1}, 16)
	for range 100 {
		p.a.Receive(repeated)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.toThem) - before; n > 3 {
		t.Fatalf("100 forged records made us send %d datagrams", n)
	}
}

func TestTooMuchBeforeTheHandshake(t *testing.T) {
	t.Parallel()
	a := New(Config{Send: func([]byte) {}})
	defer a.Close()
	if a.Receive(make([]byte, maxSize+1)) != Overflow {
		t.Error("an oversize datagram is taken")
	}
	if a.Receive([]byte{22}) != Begin {
		t.Error("the handshake does not begin")
	}
	n := 0
	for a.Receive([]byte{22}) == Nothing {
		n++
	}
	if n != maxWaiting-1 {
		t.Errorf("%d datagrams wait", n+1)
	}
}

func TestCloseEndsTheHandshake(t *testing.T) {
	t.Parallel()
	p := newPair(t, Config{})
	ended := make(chan error, 1)
	go func() {
		_, err := p.a.Handshake(context.Background())
		ended <- err
	}()
	p.a.Receive([]byte{22, 0xfe, 0xfd})
	p.a.Close()
	if err := <-ended; err == nil {
		t.Fatal("no error")
	}
	if p.a.Receive([]byte{22}) != Nothing {
		t.Fatal("a closed association takes data")
	}
	if _, err := p.a.Handshake(context.Background()); err == nil {
		t.Fatal("a closed association begins")
	}
}

// FuzzRecords: nothing but the client's own alerts ends an established association.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 26, 1, 2, 3})
	f.Add([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 16, 21, 0xfe})
	f.Fuzz(func(t *testing.T, b []byte) {
		a := New(Config{Send: func([]byte) {}})
		a.kept = &kept{secret: make([]byte, 48), clientRandom: make([]byte, 32), serverRandom: make([]byte, 32), flight: []byte{1}}
		if a.Receive(b) != Nothing {
			t.Fatalf("%x", b)
		}
	})
}
