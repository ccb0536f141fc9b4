package trunk

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority makes throw-away certificates; a node is its common name.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(tb testing.TB, node string) *tls.Config {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{node}, Subject: pkix.Name{CommonName: node},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{ALPN},
	}
}

// event is something a Handler was told.
type event struct {
	what, node string
	text       string
	label      uint32
	ext        uint64
}

// front takes media before a node's handler does.
type front interface {
	TrunkMedia(node string, label uint32, ext uint64, rtp []byte, arrivalNS int64) bool
}

// handler collects what it is told and serves packets again from a store.
type handler struct {
	mu     sync.Mutex
	events []event
	store  map[uint64][]byte // what was sent, by ext
	labels map[uint32]bool
	first  front
	busy   chan struct{} // when there is one, a message is being taken until it is closed
}

func (h *handler) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

func (h *handler) TrunkUp(node string) { h.add(event{what: "up", node: node}) }
func (h *handler) TrunkDown(node, reason string) {
	h.add(event{what: "down", node: node, text: reason})
}
func (h *handler) TrunkMessage(node string, msg []byte) {
	h.add(event{what: "message", node: node, text: string(msg)})
	h.mu.Lock()
	busy := h.busy
	h.mu.Unlock()
	if busy != nil {
		<-busy
	}
}
func (h *handler) TrunkBudget(node string, bps int64) { h.add(event{what: "budget", node: node}) }

func (h *handler) TrunkMedia(node string, label uint32, ext uint64, rtp []byte, at int64) bool {
	h.mu.Lock()
	first := h.first
	h.mu.Unlock()
	if first != nil {
		return first.TrunkMedia(node, label, ext, rtp, at)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.labels[label] {
		return false
	}
	h.events = append(h.events, event{what: "media", node: node, label: label, ext: ext, text: string(rtp)})
	return true
}

func (h *handler) TrunkPacket(_ string, _ uint32, ext uint64, dst []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(dst, h.store[ext]...)
}

func (h *handler) all(what string) (found []event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e.what == what {
			found = append(found, e)
		}
	}
	return found
}

// testNode is one Set with a listener for control connections.
type testNode struct {
	*Set
	*handler
	id       string
	listener net.Listener
	net      *testNet
}

type testNet struct {
	tb    testing.TB
	auth  *authority
	mu    sync.Mutex
	nodes map[string]*testNode
	wg    sync.WaitGroup
	log   *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newNet(tb testing.TB) *testNet {
	tb.Helper()
	n := &testNet{tb: tb, auth: newAuthority(tb), nodes: map[string]*testNode{}, log: &lockedBuffer{}}
	tb.Cleanup(n.wg.Wait)
	return n
}

// node starts a node, which ends with the test or by the function returned.
func (n *testNet) node(id string) (*testNode, func()) {
	n.tb.Helper()
	cfg := n.auth.issue(n.tb, id)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		n.tb.Fatal(err)
	}
	h := &handler{store: map[uint64][]byte{}, labels: map[uint32]bool{7: true}}
	set, err := New(Config{Node: id, UDPAddr: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(n.log, nil))}, Deps{
		Handler: h,
		Dial: func(ctx context.Context, node string) (*tls.Conn, error) {
			n.mu.Lock()
			to := n.nodes[node]
			n.mu.Unlock()
			if to == nil {
				return nil, errors.New("no such node")
			}
			client := cfg.Clone()
			client.ServerName = node
			d := tls.Dialer{Config: client}
			conn, err := d.DialContext(ctx, "tcp", to.listener.Addr().String())
			if err != nil {
				return nil, err
			}
			return conn.(*tls.Conn), nil
		},
	})
	if err != nil {
		n.tb.Fatal(err)
	}
	t := &testNode{Set: set, handler: h, id: id, listener: listener, net: n}
	n.mu.Lock()
	n.nodes[id] = t
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	n.wg.Go(func() {
		defer close(done)
		if err := set.Run(ctx); err != nil {
			n.tb.Errorf("running %s: %v", id, err)
		}
	})
	n.wg.Go(func() { t.accept(ctx) })
	stop := sync.OnceFunc(func() {
		n.mu.Lock()
		if n.nodes[id] == t {
			delete(n.nodes, id)
		}
		n.mu.Unlock()
		cancel()
		listener.Close()
		<-done
	})
	n.tb.Cleanup(stop)
	return t, stop
}

func (t *testNode) accept(ctx context.Context) {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return
		}
		c := conn.(*tls.Conn)
		if c.HandshakeContext(ctx) != nil {
			c.Close()
			continue
		}
		t.Accept(c.ConnectionState().PeerCertificates[0].Subject.CommonName, c)
	}
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, cond func() bool, more ...func() any) {
	tb.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			for _, f := range more {
				tb.Log(f())
			}
			tb.Fatalf("waited in vain: %s", what)
		}
		<-tick.C
	}
}

func (n *testNet) join(nodes ...*testNode) {
	n.tb.Helper()
	for _, a := range nodes {
		peers := map[string]netip.AddrPort{}
		for _, b := range nodes {
			peers[b.id] = b.LocalAddr()
		}
		a.SetPeers(peers)
	}
	for _, a := range nodes {
		eventually(n.tb, "every node has every trunk", func() bool {
			up := map[string]bool{}
			for _, t := range a.Stats().Trunks {
				up[t.Node] = t.Up
			}
			for _, b := range nodes {
				if a != b && !up[b.id] {
					return false
				}
			}
			return len(a.all("up")) >= len(nodes)-1
		})
	}
}

// rtpPacket is a packet whose sequence is ext's low part.
func rtpPacket(ext uint64, size int) []byte {
	b := make([]byte, size)
	b[0], b[1] = 0x80, 96
	binary.BigEndian.PutUint16(b[2:], uint16(ext))
	return b
}

func TestTwoNodesCarryMediaAndMessages(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, _ := n.node("a")
	b, _ := n.node("b")
	n.join(a, b)
	const packets = 3000
	for ext := uint64(1); ext <= packets; ext++ {
		rtp := rtpPacket(ext, 200+int(ext%900))
		b.Send("a", 7, ext, Audio, rtp)
		if ext%10 == 0 { // no more at a time than a trunk takes
			eventually(t, "the packets come", func() bool { return len(a.all("media")) >= int(ext)-50 }, func() any { return fmt.Sprintf("%+v", []any{b.Stats().Trunks, a.Stats().Trunks, len(a.all("media"))}) })
		}
	}
	for i := range 500 {
		if err := a.Message("b", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all packets are there", func() bool { return len(a.all("media")) == packets })
	eventually(t, "all messages are there", func() bool { return len(b.all("message")) == 500 })
	for i, e := range a.all("media") {
		if want := rtpPacket(uint64(i+1), 200+(i+1)%900); e.ext != uint64(i+1) || e.node != "b" || e.text != string(want) {
			t.Fatalf("packet %d is %d of %s", i+1, e.ext, e.node)
		}
	}
	for i, e := range b.all("message") {
		if e.text != fmt.Sprint(i) || e.node != "a" {
			t.Fatalf("message %d is %q of %s", i, e.text, e.node)
		}
	}
	s := a.Stats()
	if len(s.Trunks) != 1 || s.Trunks[0].Node != "b" || s.Trunks[0].Received != packets || s.Trunks[0].RTT <= 0 || !s.Trunks[0].Up {
		t.Errorf("stats %+v", s.Trunks)
	}
	for reason, count := range s.Drops {
		if count != 0 && reason != "unknown_connection" { // a probe may overtake the last hello
			t.Errorf("%d dropped as %s", count, reason)
		}
	}
	if dialled := []bool{s.Trunks[0].Dialled, b.Stats().Trunks[0].Dialled}; !slices.Equal(dialled, []bool{true, false}) {
		t.Errorf("dialled: %v", dialled)
	}
}
