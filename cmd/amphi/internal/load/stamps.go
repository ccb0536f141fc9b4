package load

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// stamps are the kernel's receive times of the newest packets of one connection: what the generator's
// own scheduling adds is not the server's delay.
type stamps struct {
	mu   sync.Mutex // guards the fields below
	tags [stampSlots]uint64
	at   [stampSlots]int64
}

const stampSlots = 512

func newStamps() *stamps { return &stamps{} }

func stampTag(ssrc uint32, seq uint16) uint64 { return 1<<63 | uint64(ssrc)<<16 | uint64(seq) }

func slotOf(tag uint64) int { return int((tag ^ tag>>16*7) % stampSlots) }

// note remembers when an RTP packet came, by its clear-text header.
func (s *stamps) note(packet []byte, at int64) {
	if len(packet) < 12 || packet[0]>>6 != 2 || packet[1] >= 192 && packet[1] <= 223 {
		return
	}
	tag := stampTag(binary.BigEndian.Uint32(packet[8:]), binary.BigEndian.Uint16(packet[2:]))
	i := slotOf(tag)
	s.mu.Lock()
	s.tags[i], s.at[i] = tag, at
	s.mu.Unlock()
}

// take is when a packet came; now if it isn't known (a packet restored from a retransmission has another header).
func (s *stamps) take(ssrc uint32, seq uint16) time.Time {
	tag := stampTag(ssrc, seq)
	i := slotOf(tag)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tags[i] == tag {
		return time.Unix(0, s.at[i])
	}
	return time.Now()
}

// stampedNet is the system's network, whose UDP sockets note receive times.
type stampedNet struct {
	*stdnet.Net
	stamps *stamps
}

// ListenUDP opens a socket with kernel receive times.
func (n *stampedNet) ListenUDP(network string, local *net.UDPAddr) (transport.UDPConn, error) {
	conn, err := net.ListenUDP(network, local)
	if err != nil {
		return nil, fmt.Errorf("opening a UDP socket: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1)
		})
		if err == nil {
			err = cerr
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("asking for receive times: %w", err)
	}
	return &stampedConn{UDPConn: conn, stamps: n.stamps}, nil
}

// stampedConn is a UDP socket that notes when each packet came.
type stampedConn struct {
	*net.UDPConn
	stamps *stamps
	oob    [64]byte // of the one reader
}

// ReadFromAddrPort is how ICE reads.
func (c *stampedConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, oobn, _, addr, err := c.ReadMsgUDPAddrPort(b, c.oob[:])
	if err == nil {
		c.stamps.note(b[:n], receiveTime(c.oob[:oobn]))
	}
	return n, addr, err
}

// WriteToAddrPort is how ICE writes.
func (c *stampedConn) WriteToAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	return c.WriteToUDPAddrPort(b, addr)
}

// receiveTime reads the first control message, which is the time as it is the only one asked for.
func receiveTime(oob []byte) int64 {
	const head, size = 16, int(unsafe.Sizeof(syscall.Timespec{}))
	if len(oob) >= head+size &&
		int32(binary.NativeEndian.Uint32(oob[8:])) == syscall.SOL_SOCKET &&
		int32(binary.NativeEndian.Uint32(oob[12:])) == syscall.SO_TIMESTAMPNS {
		sec := int64(binary.NativeEndian.Uint64(oob[head:]))
		return sec*int64(time.Second) + int64(binary.NativeEndian.Uint64(oob[head+8:]))
	}
	return time.Now().UnixNano()
}
