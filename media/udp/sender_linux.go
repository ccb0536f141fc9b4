package udp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// sendBatch is how many messages one sendmmsg carries at most.
	sendBatch = 64
	// fullWait is how long a Flush waits, once, for room in the socket's send
	// buffer before it drops, in milliseconds.
	fullWait = 2
)

// sockaddr is a ready-made socket address of either family; n is 0 when the
// socket's family cannot reach it.
type sockaddr struct {
	buf [unix.SizeofSockaddrInet6]byte
	n   uint32
}

func (a *sockaddr) set(family int, addr netip.AddrPort) {
	*a = sockaddr{}
	ip := addr.Addr()
	binary.BigEndian.PutUint16(a.buf[2:], addr.Port())
	if family == unix.AF_INET {
		binary.NativeEndian.PutUint16(a.buf[:], unix.AF_INET)
		if ip.Is4() {
			ip4 := ip.As4()
			copy(a.buf[4:], ip4[:])
			a.n = unix.SizeofSockaddrInet4
		}
		return
	}
	binary.NativeEndian.PutUint16(a.buf[:], unix.AF_INET6)
	ip16 := ip.As16()
	copy(a.buf[8:], ip16[:])
	if zone, err := strconv.ParseUint(ip.Zone(), 10, 32); err == nil {
		binary.NativeEndian.PutUint32(a.buf[24:], uint32(zone))
	}
	a.n = unix.SizeofSockaddrInet6
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// segmentSpace is the room for one UDP_SEGMENT control message, in bytes.
const segmentSpace = 24

// transmitter gathers runs and hands them to sendmmsg. It does not go through
// the runtime's write lock of the socket, so Senders do not wait for each other.
type transmitter struct {
	runs    [sendBatch]run
	hdrs    [sendBatch]mmsghdr
	iov     [sendBatch * 64]unix.Iovec
	control [sendBatch * segmentSpace]byte
	n, iovs int
	waited  bool // this Flush has waited for the send buffer already

	send  func(fd uintptr) // bound once: a closure per call would allocate
	at    int
	errno syscall.Errno
}

func (t *transmitter) init(*Conn) { t.send = t.sendmmsg }

func (t *transmitter) add(s *Sender, r run) {
	if s.conn.cfg.Plain {
		s.sendPlain(r)
		return
	}
	if r.dest.sa.n == 0 {
		s.conn.counters.dropN(DropUnreachable, uint64(len(r.pkts)))
		return
	}
	if t.n == sendBatch {
		t.submit(s)
	}
	t.runs[t.n] = r
	h := &t.hdrs[t.n].hdr
	*h = unix.Msghdr{Name: &r.dest.sa.buf[0], Namelen: r.dest.sa.n, Iov: &t.iov[t.iovs]}
	h.SetIovlen(t.gather(s, r))
	if len(r.pkts) > 1 {
		c := t.control[t.n*segmentSpace:][:segmentSpace]
		cm := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		cm.Level, cm.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		cm.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(c[unix.CmsgLen(0):], uint16(s.pkts[r.pkts[0]].n))
		h.Control = &c[0]
		h.SetControllen(unix.CmsgSpace(2))
	}
	t.n++
}

// gather fills I/O vectors for a run, one for each stretch of adjacent packets.
func (t *transmitter) gather(s *Sender, r run) int {
	start := t.iovs
	end := int32(-1)
	for _, i := range r.pkts {
		p := s.pkts[i]
		if p.off == end {
			v := &t.iov[t.iovs-1]
			v.SetLen(int(v.Len) + int(p.n))
		} else {
			t.iov[t.iovs].Base = &s.arena[p.off]
			t.iov[t.iovs].SetLen(int(p.n))
			t.iovs++
		}
		end = p.off + p.n
	}
	return t.iovs - start
}

func (t *transmitter) flush(s *Sender) {
	if t.n > 0 {
		t.submit(s)
	}
	t.waited = false
}

// submit sends what is gathered; each message either leaves, leaves plainly, or
// is dropped by reason.
func (t *transmitter) submit(s *Sender) {
	for t.at = 0; t.at < t.n; {
		before := t.at
		if err := s.conn.out.Control(t.send); err != nil {
			t.dropFrom(s, t.at, DropClosed)
			break
		}
		s.tally.calls++
		for _, r := range t.runs[before:t.at] {
			s.tally.messages++
			s.tally.datagrams += len(r.pkts)
			s.tally.bytes += r.bytes
		}
		if t.errno != 0 && !t.recover(s) {
			break
		}
	}
	t.n, t.iovs = 0, 0
}

func (t *transmitter) sendmmsg(fd uintptr) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd,
		uintptr(unsafe.Pointer(&t.hdrs[t.at])), uintptr(t.n-t.at), unix.MSG_DONTWAIT, 0, 0)
	t.errno = errno
	if errno == 0 {
		t.at += int(n)
		return
	}
	if errno == unix.EAGAIN && !t.waited {
		t.waited = true
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if ready, err := unix.Poll(fds[:], fullWait); err == nil && ready > 0 {
			t.errno = unix.EINTR // there is room: try again
		}
	}
}

// recover deals with the error of message t.at; false when the rest is lost too.
func (t *transmitter) recover(s *Sender) bool {
	r := t.runs[t.at]
	switch t.errno {
	case unix.EINTR:
		return true
	case unix.EAGAIN, unix.ENOBUFS:
		t.dropFrom(s, t.at, DropSendFull)
		return false
	case unix.EIO, unix.EINVAL, unix.EOPNOTSUPP, unix.EMSGSIZE:
		if len(r.pkts) > 1 { // this route or kernel cannot do GSO
			s.conn.counters.gsoRefused.Add(1)
			r.dest.noGSO = true
			s.sendPlain(r)
			t.at++
			return true
		}
	}
	s.conn.counters.dropN(reasonOf(t.errno), uint64(len(r.pkts)))
	t.at++
	return true
}

func (t *transmitter) dropFrom(s *Sender, at int, why DropReason) {
	for _, r := range t.runs[at:t.n] {
		s.conn.counters.dropN(why, uint64(len(r.pkts)))
	}
}
