package media

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	piontransport "github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"
)

// watchOne subscribes a client to one track that is being published, and waits for video.
func watchOne(t *testing.T, r *Router, opts clientOptions) (*client, *received) {
	t.Helper()
	_, src := publishVP8(t, r, "cam", 5)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	c := newClient(t, r, "subscriber", opts)
	c.recvOnly(0, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, "cam")
	rec := c.section("0")
	eventually(t, "video arrives", func() bool { return rec.count() > 50 })
	return c, rec
}

// TestIPv6 checks over IPv6 as a client would: pion/ice has no candidates on ::1.
func TestIPv6(t *testing.T) {
	t.Parallel()
	if l, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here")
	} else {
		l.Close()
	}
	e := startEngine(t, Config{UDPAddr: "[::1]:0", TCPAddr: "[::1]:0"})
	c := newClient(t, e.Router("room"), "client", clientOptions{})
	c.recvOnly(1, 0)
	c.negotiate(nil)
	ufrag, pwd := c.ep.transport.ufrag, c.ep.transport.pwd
	for _, network := range []string{"udp6", "tcp6"} {
		addr := e.UDPAddr()
		if network == "tcp6" {
			addr = e.connector.tcp.Addr()
		}
		conn, err := net.Dial(network, addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		request, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(ufrag+":x"),
			stun.NewShortTermIntegrity(pwd), stun.Fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		frame, skip := request.Raw, 0
		if network == "tcp6" {
			frame, skip = append(binary.BigEndian.AppendUint16(nil, uint16(len(frame))), frame...), 2
		}
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1500)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		size := skip + 20 + int(binary.BigEndian.Uint16(buf[skip+2:]))
		answer := &stun.Message{Raw: buf[skip:min(size, n)]}
		var mapped stun.XORMappedAddress
		if err := errors.Join(answer.Decode(), mapped.GetFrom(answer)); err != nil || mapped.String() != conn.LocalAddr().String() {
			t.Fatalf("%s: mapped address %v, %v, want %v", network, mapped, err, conn.LocalAddr())
		}
	}
}

// TestClientMovesToAnotherAddress changes the client's address under it, as a NAT that
// forgets its mapping does: the client goes on from another port and nominates nothing.
func TestClientMovesToAnotherAddress(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	n := newMovingNet(t)
	c, rec := watchOne(t, e.Router("room"), clientOptions{setting: func(s *webrtc.SettingEngine) {
		s.SetNet(n)
		keepalive := 500 * time.Millisecond
		s.SetICETimeouts(20*time.Second, 20*time.Second, keepalive)
	}})
	c.connected()
	old := c.ep.path.Load().addr
	n.move()
	moved := time.Now()
	before := rec.count()
	eventually(t, "the endpoint follows", func() bool { p := c.ep.path.Load(); return p != nil && p.addr != old })
	eventually(t, "video goes on", func() bool { return rec.count() > before+100 })
	t.Logf("after %v", time.Since(moved))
	if c.ep.State() != Connected {
		t.Fatalf("state %v", c.ep.State())
	}
}

// movingNet gives clients sockets that, after move, are seen under another address.
type movingNet struct {
	*stdnet.Net
	t     *testing.T
	mu    sync.Mutex // guards conns
	conns []*movingConn
}

func newMovingNet(t *testing.T) *movingNet {
	t.Helper()
	std, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	return &movingNet{Net: std, t: t}
}

func (n *movingNet) ListenUDP(network string, addr *net.UDPAddr) (piontransport.UDPConn, error) {
	first, err := n.Net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	second, err := n.Net.ListenUDP(network, &net.UDPAddr{IP: addr.IP})
	if err != nil {
		return nil, err
	}
	c := &movingConn{UDPConn: first, second: second, in: make(chan moved), done: make(chan struct{})}
	c.wg.Go(func() { c.pump(first, false) })
	c.wg.Go(func() { c.pump(second, true) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, c)
	return c, nil
}

func (n *movingNet) move() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.moved.Store(true)
	}
}

type moved struct {
	data []byte
	from net.Addr
}

type movingConn struct {
	piontransport.UDPConn
	second piontransport.UDPConn
	moved  atomic.Bool
	in     chan moved
	wg     sync.WaitGroup
	once   sync.Once
	done   chan struct{}
}

// pump reads one of the sockets; what comes to the one not in use is lost.
func (c *movingConn) pump(s piontransport.UDPConn, second bool) {
	buf := make([]byte, 2000)
	for {
		n, from, err := s.ReadFrom(buf)
		if err != nil {
			return
		}
		if c.moved.Load() == second {
			select {
			case c.in <- moved{append([]byte(nil), buf[:n]...), from}:
			case <-c.done:
				return
			}
		}
	}
}

func (c *movingConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case m := <-c.in:
		return copy(b, m.data), m.from, nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

func (c *movingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.moved.Load() {
		return c.second.WriteTo(b, to)
	}
	return c.UDPConn.WriteTo(b, to)
}

func (c *movingConn) Close() error {
	c.once.Do(func() { close(c.done) })
	c.second.Close()
	err := c.UDPConn.Close()
	c.wg.Wait()
	return err
}
