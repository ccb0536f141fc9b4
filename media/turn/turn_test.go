package turn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/turn/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a socket in the place of media that returns everything.
func echo(t testing.TB, host string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skip(err) // no IPv6 here
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteTo(b[:n], from)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); wg.Wait() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// run starts a server whose media is an echo; it is checked to end in time.
func run(t testing.TB, cfg Config) *Server {
	t.Helper()
	if !cfg.Media.IsValid() {
		cfg.Media = echo(t, "127.0.0.1")
		cfg.Peers = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	}
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("ending: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	return s
}

func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{NextProtos: []string{"h2"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// dial is a client's way to the server: udp, tcp or tls.
func dial(t testing.TB, s *Server, how string) net.PacketConn {
	t.Helper()
	host, _, _ := net.SplitHostPort(s.cfg.Addr)
	var conn net.Conn
	var err error
	switch how {
	case "udp":
		var packets net.PacketConn
		if packets, err = net.ListenPacket("udp", net.JoinHostPort(host, "0")); err == nil {
			t.Cleanup(func() { packets.Close() })
			return packets
		}
	case "tcp":
		conn, err = net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(s.Port())))
	case "tls":
		conn, err = tls.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(s.TLSPort())), &tls.Config{InsecureSkipVerify: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return turn.NewSTUNConn(conn)
}

// client is one with the credentials of user.
func client(t testing.TB, s *Server, how, username, password string) *turn.Client {
	t.Helper()
	host, _, _ := net.SplitHostPort(s.cfg.Addr)
	c, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: net.JoinHostPort(host, fmt.Sprint(s.Port())), Username: username, Password: password, Realm: Realm,
		Conn: dial(t, s, how), LoggerFactory: silence{}, RTO: 100 * time.Millisecond,
	})
	if err == nil {
		err = c.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// speak sends a word to the media and waits for its echo.
func speak(t testing.TB, relay net.PacketConn, s *Server) {
	t.Helper()
	b := make([]byte, 100)
	for range 3 {
		if _, err := relay.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(s.cfg.Media)); err != nil {
			t.Fatal(err)
		}
		if err := relay.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, from, err := relay.ReadFrom(b); err != nil || string(b[:n]) != "hello" || from.String() != s.cfg.Media.String() {
			t.Fatalf("%q from %v: %v", b[:max(n, 0)], from, err)
		}
	}
}

func TestRelaysOverEachTransport(t *testing.T) {
	t.Parallel()
	s := run(t, Config{TLSAddr: "127.0.0.1:0", TLS: certificate(t)})
	for _, how := range []string{"udp", "tcp", "tls"} {
		username, password := s.Credentials("pr_"+how, time.Now())
		relay, err := client(t, s, how, username, password).Allocate()
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		speak(t, relay, s)
		if err := relay.Close(); err != nil {
			t.Errorf("%s: %v", how, err)
		}
	}
	until(t, "allocations are gone", func() bool { return s.Stats().Open == 0 })
	if got := s.Stats(); got.Allocations != 3 || got.BytesIn < 3*15 || got.BytesIn != got.BytesOut || len(got.Refused) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestRelaysIPv6(t *testing.T) {
	t.Parallel()
	s := run(t, Config{Addr: "[::1]:0", Media: echo(t, "::1"), Peers: []netip.Addr{netip.IPv6Loopback()}})
	username, password := s.Credentials("pr_six", time.Now())
	relay, err := client(t, s, "udp", username, password).Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	speak(t, relay, s)
}

func TestReachesNobodyElse(t *testing.T) {
	t.Parallel()
	s := run(t, Config{})
	other := echo(t, "127.0.0.1") // on the permitted address, but not the media's port
	username, password := s.Credentials("pr_a", time.Now())
	c := client(t, s, "udp", username, password)
	relay, err := c.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	for _, ip := range []string{"10.0.0.1", "192.0.2.1", "169.254.1.1", "127.0.0.2", "255.255.255.255"} {
		if err := c.CreatePermission(&net.UDPAddr{IP: net.ParseIP(ip), Port: 80}); err == nil {
			t.Errorf("%s is permitted", ip)
		}
	}
	if _, err := relay.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(other)); err != nil {
		t.Fatal(err)
	}
	until(t, "the other port is refused", func() bool { return s.Stats().Refused[ReasonPeer] >= 6 })
	if _, err := c.AllocateTCP(); err == nil {
		t.Error("TCP is relayed")
	}
	speak(t, relay, s)
	if got := s.Stats().BytesIn; got != 15 {
		t.Errorf("%d bytes were relayed", got)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	s := run(t, Config{})
	username, password := s.Credentials("pr_a", time.Now())
	_, other := s.Credentials("pr_b", time.Now())
	old, oldPassword := s.Credentials("pr_a", time.Now().Add(-25*time.Hour))
	for name, tt := range map[string]struct {
		username, password string
		want               Reason
	}{
		"another's":    {username, other, ReasonCredentials},
		"longer":       {strings.Replace(username, "1", "9", 1), password, ReasonCredentials},
		"no time":      {"pr_a", password, ReasonCredentials},
		"no user":      {"99999999999:", s.password("99999999999:"), ReasonCredentials},
		"expired":      {old, oldPassword, ReasonExpired},
		"far too long": {"99999999999:" + strings.Repeat("x", 200), password, ReasonCredentials},
	} {
		before := s.Stats().Refused[tt.want]
		if _, err := client(t, s, "udp", tt.username, tt.password).Allocate(); err == nil {
			t.Errorf("%s: allocated", name)
		}
		if got := s.Stats().Refused[tt.want]; got <= before {
			t.Errorf("%s: not counted as %s: %v", name, tt.want, s.Stats().Refused)
		}
	}
	if got := s.Stats(); got.Allocations != 0 {
		t.Errorf("%+v", got)
	}
}

// TestCallOutlivesItsCredentials: what is in use is refreshed after they expired.
func TestCallOutlivesItsCredentials(t *testing.T) {
	t.Parallel()
	s := run(t, Config{CredentialLife: 2 * time.Second})
	username, password := s.Credentials("pr_a", time.Now())
	c := client(t, s, "udp", username, password)
	relay, err := c.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	until(t, "they expire", func() bool {
		_, _, ok := s.authenticate(&turn.RequestAttributes{Username: username, Realm: Realm, Method: 3})
		return !ok
	})
	if err := c.CreatePermission(net.UDPAddrFromAddrPort(s.cfg.Media)); err != nil {
		t.Fatal(err)
	}
	speak(t, relay, s)
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	s := run(t, Config{MaxPerUser: 2, MaxAllocations: 3})
	allocate := func(user string) (net.PacketConn, error) {
		username, password := s.Credentials(user, time.Now())
		return client(t, s, "udp", username, password).Allocate()
	}
	var open []net.PacketConn
	for _, tt := range []struct {
		user string
		ok   bool
	}{{"pr_a", true}, {"pr_a", true}, {"pr_a", false}, {"pr_b", true}, {"pr_c", false}} {
		relay, err := allocate(tt.user)
		if (err == nil) != tt.ok {
			t.Fatalf("%+v: %v", tt, err)
		}
		if err == nil {
			open = append(open, relay)
		}
	}
	for _, relay := range open {
		_ = relay.Close()
	}
	if got := s.Stats().Refused; got[ReasonQuota] != 1 || got[ReasonCapacity] != 1 {
		t.Errorf("%v", got)
	}
	until(t, "places are free again", func() bool { return s.Stats().Open == 0 })
	relay, err := allocate("pr_a")
	if err != nil {
		t.Fatal(err)
	}
	_ = relay.Close()
}

// TestBadInput sends what lies about itself; one who behaves is served all the while.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := run(t, Config{TLSAddr: "127.0.0.1:0", TLS: certificate(t), MaxConnections: 8})
	username, password := s.Credentials("pr_good", time.Now())
	relay, err := client(t, s, "udp", username, password).Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	request := func(kind, length uint16) []byte {
		b := make([]byte, 20)
		binary.BigEndian.PutUint16(b, kind)
		binary.BigEndian.PutUint16(b[2:], length)
		binary.BigEndian.PutUint32(b[4:], magicCookie)
		return b
	}
	bad := map[string][]byte{
		"nothing like it":            []byte("GET / HTTP/1.1\r\n\r\n\xff\xff"),
		"short":                      {0, 1},
		"length wraps to 0":          request(1, 0xffec),
		"length wraps to 19":         request(1, 0xffff),
		"longer than a datagram":     request(1, 4000),
		"no cookie":                  make([]byte, 20),
		"channel data longer than":   {0x40, 0, 0x7f, 0xff, 1, 2, 3, 4},
		"channel data wraps":         {0x40, 0, 0xff, 0xff, 1, 2, 3, 4},
		"DTLS":                       {22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4},
		"media":                      {0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0},
		"attribute longer than rest": append(request(3, 4), 0, 6, 0xff, 0xff),
	}
	raw, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", s.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for name, b := range bad {
		if _, err := raw.Write(b); err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if name != "short" && name != "attribute longer than rest" {
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if n, err := conn.Read(make([]byte, 100)); n > 0 || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %d bytes, %v; want the connection closed", name, n, err)
			}
		}
		conn.Close()
		speak(t, relay, s)
	}
	until(t, "it is counted", func() bool { return s.Stats().Refused[ReasonMalformed] >= uint64(2*len(bad)-4) })
	until(t, "connections are gone", func() bool { return s.Stats().Connections == 0 })
}

// TestConnections: no more than allowed, and half as many of one address.
func TestConnections(t *testing.T) {
	t.Parallel()
	s := run(t, Config{MaxConnections: 8})
	var conns []net.Conn
	for range 6 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port()))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	until(t, "two are refused", func() bool { return s.Stats().Refused[ReasonConnections] == 2 })
	if got := s.Stats().Connections; got != 4 {
		t.Errorf("%d connections", got)
	}
	for _, conn := range conns {
		conn.Close()
	}
	until(t, "they are gone", func() bool { return s.Stats().Connections == 0 })
}

func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	s := run(t, Config{RequestRate: 10})
	raw, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", s.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	b := make([]byte, 20)
	b[1] = 1
	binary.BigEndian.PutUint32(b[4:], magicCookie)
	for range 200 {
		if _, err := raw.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "most are refused", func() bool { return s.Stats().Refused[ReasonRate] >= 100 })
}

func TestRates(t *testing.T) {
	t.Parallel()
	r, now := newRates(10), time.Now()
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:2")
	for range 50 {
		if !r.allow(a, now) {
			t.Fatal("the burst is refused")
		}
	}
	if r.allow(b, now) {
		t.Error("another address of the same network has its own rate")
	}
	if now = now.Add(time.Second); !r.allow(b, now) {
		t.Error("refused after a second")
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := newBudget(8_000, now) // 1,000 bytes per second
	passed := 0
	for range 400 {
		now = now.Add(10 * time.Millisecond)
		if b.spend(100, now) {
			passed += 100
		}
	}
	if passed < 4_000 || passed > 4_600 {
		t.Errorf("%d bytes passed in 4 s", passed)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	peers := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")}
	v4, v6 := []netip.Addr{peers[0], peers[2], peers[4]}, []netip.Addr{peers[1], peers[3]}
	for media, want := range map[string]map[string]route{
		"[::]:7":      {"udp4": {v4, netip.MustParseAddrPort("127.0.0.1:7")}, "udp6": {v6, netip.MustParseAddrPort("[::1]:7")}},
		"0.0.0.0:7":   {"udp4": {v4, netip.MustParseAddrPort("127.0.0.1:7")}},
		"192.0.2.9:7": {"udp4": {v4, netip.MustParseAddrPort("192.0.2.9:7")}},
	} {
		got := routes(netip.MustParseAddrPort(media), peers)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", media, got, want)
		}
	}
}

// TestPairs: answers belong to the address that was checked, media to the one that media is sent to.
func TestPairs(t *testing.T) {
	t.Parallel()
	stun := func(kind byte, id byte) []byte {
		b := make([]byte, 20)
		b[0], b[1], b[8] = kind, 1, id
		return b
	}
	var p pairs
	for peer := range 3 {
		p.note(stun(0, byte(peer+1)), peer)
	}
	for peer := range 3 {
		if got := p.of(stun(1, byte(peer+1))); got != peer {
			t.Errorf("the answer to %d comes from %d", peer, got)
		}
	}
	if got := p.of(stun(0, 9)); got != 2 {
		t.Errorf("a check comes from %d, want the last that was checked", got)
	}
	media := []byte{0x80, 96}
	p.note(media, 1)
	p.note(stun(0, 4), 0)
	if got := p.of(media); got != 1 {
		t.Errorf("media comes from %d", got)
	}
	for i := range 100 {
		p.note(stun(0, byte(100+i)), 2)
	}
	if got := p.of(stun(1, 1)); got != 2 {
		t.Errorf("an answer to nothing known comes from %d", got)
	}
}

// FuzzAdmit: whatever is admitted is what it says, and the library's framing of it ends.
func FuzzAdmit(f *testing.F) {
	f.Add([]byte{0x40, 0, 0, 4, 1, 2, 3, 4})
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 9, 0, 12, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0, 8, 0, 1, 1, 1, 1, 1, 1, 1})
	f.Add([]byte{0, 1, 0xff, 0xec, 0x21, 0x12, 0xa4, 0x42})
	s := &Server{cfg: Config{Media: netip.MustParseAddrPort("127.0.0.1:1")}, rates: newRates(1 << 20)}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !s.admit(netip.Addr{}, b) {
			return
		}
		size, err := frameSize(b)
		if err != nil || size > maxFrame || size > len(b)+3 {
			t.Fatalf("%x is admitted as %d, %v", b, size, err)
		}
	})
}
