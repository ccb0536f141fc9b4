package udp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// configure sizes a socket's kernel buffers and turns on what the kernel has. Nothing
// here is fatal: without it the socket works, only slower.
func (c *Conn) configure(raw syscall.RawConn) {
	_ = raw.Control(func(ufd uintptr) {
		fd := int(ufd)
		c.family, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		// The FORCE options pass the system's limit but need CAP_NET_ADMIN.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, c.cfg.ReadBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, c.cfg.ReadBuffer)
		}
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, c.cfg.WriteBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, c.cfg.WriteBuffer)
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
		if c.cfg.Arrivals {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		}
		if c.cfg.Plain {
			c.noGSO.Store(true)
			return
		}
		if raw == c.raw { // reports come one by one
			c.gro = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
		}
		// Asking for the option tells whether this kernel knows it (4.18 on).
		if _, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT); err != nil {
			c.noGSO.Store(true)
		}
	})
}

// Buffers is what the kernel granted for its receive and send buffer, in bytes
// of payload (half of what getsockopt says, which counts its own overhead).
func (c *Conn) Buffers() (read, write int) {
	_ = c.raw.Control(func(fd uintptr) {
		read, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		write, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	})
	return read / 2, write / 2
}

// listen opens the socket and, where it can, one more on the same port for what may wait: a
// kernel filter picks those packets by their first bytes, which SRTCP leaves in the clear.
func (c *Conn) listen(addr *net.UDPAddr) (err error) {
	if !c.cfg.Plain && !c.cfg.Single {
		for range listenTries {
			if err = c.listenPair(addr); err == nil || !errors.Is(err, unix.EADDRINUSE) {
				break
			}
		}
		if err == nil {
			return nil
		}
	}
	c.sock, err = net.ListenUDP("udp", addr)
	return err
}

// listenTries: another socket may take the port between the look whether it is free and its use.
const listenTries = 3

// listenPair opens both sockets. Shared ports hide that a port is in use already, so one that
// does not share is opened first, and closed.
func (c *Conn) listenPair(addr *net.UDPAddr) error {
	alone, err := net.ListenUDP("udp", addr)
	if err != nil {
		return err
	}
	bound := *addr
	bound.Port = alone.LocalAddr().(*net.UDPAddr).Port
	alone.Close()
	media, err := listenShared(&bound)
	if err != nil {
		return err
	}
	patient, err := listenShared(&bound)
	if err == nil {
		if err = steer(media); err != nil {
			patient.Close()
		}
	}
	if err != nil {
		media.Close()
		return err
	}
	if c.patient, err = newQuiet(patient); err != nil {
		media.Close()
		return err
	}
	c.sock = media
	return nil
}

func listenShared(addr *net.UDPAddr) (*net.UDPConn, error) {
	var failed error
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(err, failed)
	}}
	p, err := lc.ListenPacket(context.Background(), "udp", addr.String())
	if err != nil {
		return nil, err
	}
	return p.(*net.UDPConn), nil
}

// steer gives some packets to the second socket of the port, all others to the first: STUN
// (first byte below 4), transport-wide feedback (RTP/RTCP version 2, packet type 205, format
// 15), and receiver reports (201) behind which nothing but SRTCP's trailer follows. Offset 0 is
// the UDP payload.
func steer(sock *net.UDPConn) error {
	const (
		byteAt, halfAt  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		length          = unix.BPF_LD | unix.BPF_W | unix.BPF_LEN
		and, add, shift = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K, unix.BPF_ALU | unix.BPF_LSH | unix.BPF_K
		keep, minus     = unix.BPF_MISC | unix.BPF_TAX, unix.BPF_ALU | unix.BPF_SUB | unix.BPF_X
		equal, least    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		above, ret      = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	)
	const trailer = 4 + 16 // index and tag (RFC 3711, RFC 7714), the longest there is
	program := [...]unix.SockFilter{
		{Code: byteAt, K: 0},
		{Code: least, K: 4, Jf: 17}, // STUN
		{Code: byteAt, K: 1},
		{Code: equal, K: 201, Jt: 4},
		{Code: equal, K: 205, Jf: 13},
		{Code: byteAt, K: 0},
		{Code: and, K: 0xdf}, // the padding bit does not matter
		{Code: equal, K: 0x80 | 15, Jt: 11, Jf: 10},
		{Code: byteAt, K: 0}, // a receiver report
		{Code: and, K: 0xc0},
		{Code: equal, K: 0x80, Jf: 7},
		{Code: halfAt, K: 2}, // its length in words, less one
		{Code: add, K: 1},
		{Code: shift, K: 2},
		{Code: keep},
		{Code: length},
		{Code: minus},
		{Code: above, K: trailer, Jf: 1},
		{Code: ret, K: 0},
		{Code: ret, K: 1},
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return errors.Join(err, failed)
}

// writeNow sends one datagram without a word to the scheduler, as a Sender does; only if there is no
// room for it, it waits as others do.
func (c *Conn) writeNow(b []byte, to netip.AddrPort) (int, error) {
	var sa sockaddr
	if sa.set(c.family, unmap(to)); sa.n == 0 || len(b) == 0 {
		return c.sock.WriteToUDPAddrPort(b, to)
	}
	var n uintptr
	var errno syscall.Errno
	err := c.out.Control(func(fd uintptr) {
		n, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&sa.buf[0])), uintptr(sa.n))
	})
	switch {
	case err != nil:
		return 0, err
	case errno == unix.EAGAIN:
		return c.sock.WriteToUDPAddrPort(b, to)
	case errno != 0:
		return 0, errno
	}
	return int(n), nil
}
