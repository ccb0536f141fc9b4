package group

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestSpares keeps connections over TLS ready, hands them out, and opens others for those that are used or have ended.
func TestSpares(t *testing.T) {
	t.Parallel()
	far := newFar(t)
	s := newStreams("here", far.dial)
	nodes := []string{"a", "b"}
	s.refill(nodes, time.Minute)
	far.await(t, s, 2*spares)
	conn := dialled(t, s, "a")
	if n := far.accepted(); n != 2*spares {
		t.Fatalf("%d connections were opened, want the %d spares", n, 2*spares)
	}
	// What was listened to carries something afterwards, both ways.
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := conn.Read(got); err != nil || string(got) != "ping" {
		t.Fatalf("%q came back: %v", got, err)
	}
	s.refill(nodes, time.Minute)
	far.await(t, s, 2*spares)
	if n := far.accepted(); n != 2*spares+1 {
		t.Errorf("%d connections were opened, want one for that which was used", n)
	}
	// The other side ends them all: none is handed out, and others are opened.
	far.closeAll()
	dialled(t, s, "a")
	if n := far.accepted(); n != 2*spares+2 {
		t.Errorf("%d connections were opened, want one, since the spares have ended", n)
	}
	s.refill(nodes, time.Minute)
	far.await(t, s, 2*spares)
	if n := far.accepted(); n != 4*spares+2 {
		t.Errorf("%d connections were opened, want the %d spares anew", n, 2*spares)
	}
	// A node that goes has none any more.
	s.refill(nodes[:1], time.Minute)
	if got := s.spared(); !slices.Equal(got, nodes[:1]) {
		t.Errorf("spares to %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.wait()
	s.refill(nodes, time.Minute)
	if n := len(s.conns); n != 0 && s.claim("b") != 0 {
		t.Error("closed streams open spares")
	}
}

func dialled(t *testing.T, s *streams, node string) net.Conn {
	t.Helper()
	conn, err := s.Dial(raft.ServerAddress(node), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// far is where connections lead: it sends back what comes.
type far struct {
	address string
	config  *tls.Config
	wg      sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	conns []net.Conn
	n     int
}

func newFar(t *testing.T) *far {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"far"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	f := &far{address: listener.Addr().String(), config: &tls.Config{RootCAs: roots, ServerName: "far"}}
	f.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns, f.n = append(f.conns, conn), f.n+1
			f.mu.Unlock()
			f.wg.Go(func() {
				b := make([]byte, 16)
				for {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					_, _ = conn.Write(b[:n])
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		f.closeAll()
		f.wg.Wait()
	})
	return f
}

func (f *far) dial(ctx context.Context, _ string) (net.Conn, error) {
	return (&tls.Dialer{Config: f.config}).DialContext(ctx, "tcp", f.address)
}

func (f *far) accepted() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// closeAll closes what is open.
func (f *far) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.conns = nil
}

// await returns when there are n spares.
func (f *far) await(t *testing.T, s *streams, n int) {
	t.Helper()
	end := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		have := 0
		for _, all := range s.spare {
			have += len(all)
		}
		busy := len(s.opening)
		s.mu.Unlock()
		if have == n && busy == 0 {
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-end:
			t.Fatalf("%d spares, want %d", have, n)
		}
	}
}
