package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// readBatch is how many messages one recvmmsg takes at most.
	readBatch = 32
	// groBuffer holds the longest message that GRO may build.
	groBuffer = 65536
	// controlSpace is room for the UDP_GRO, the SO_RXQ_OVFL and the SO_TIMESTAMPNS control message.
	controlSpace = 96
	// oldest is the age beyond which a datagram's is not believed: the wall clock was set.
	oldest = time.Second
	// errorPause is how long a reader rests when reads keep failing.
	errorPause = 10 * time.Millisecond
)

// Reader takes datagrams from the socket. All but Wait is for one goroutine at a time; in
// steady state it allocates nothing.
type Reader struct {
	conn    *Conn
	raw     syscall.RawConn
	size    int // of one message's buffer
	bufs    []byte
	names   [readBatch][unix.SizeofSockaddrInet6]byte
	hdrs    [readBatch]mmsghdr
	iov     [readBatch]unix.Iovec
	control [readBatch][controlSpace]byte
	out     []Datagram
	lost    uint32 // SO_RXQ_OVFL's running count when last seen
	zones   map[uint32]string

	patience unix.Timespec
	poller   [1]unix.PollFd
	// Of Wait, which has a goroutine of its own.
	waiting [1]unix.PollFd
	atOnce  unix.Timespec // stays zero

	recv, look func(fd uintptr) bool // bound once, like those below: a closure per call would allocate
	now, poll  func(fd uintptr)
	n          int
	errno      syscall.Errno
}

// NewReader makes a Reader. What a patient reader gets, it does not.
func (c *Conn) NewReader() *Reader { return c.newReader(c.raw) }

// NewPatientReader makes a Reader that gets what need not be read at once: transport-wide
// feedback, receiver reports that come alone, and STUN; nil where the system can't tell them apart.
func (c *Conn) NewPatientReader() *Reader {
	if c.patient == nil {
		return nil
	}
	return c.newReader(c.patient)
}

func (c *Conn) newReader(raw syscall.RawConn) *Reader {
	r := &Reader{conn: c, raw: raw, size: c.cfg.MaxDatagram + 1, zones: map[uint32]string{}}
	if c.gro && raw == c.raw {
		r.size = groBuffer
	}
	r.bufs = make([]byte, readBatch*r.size)
	r.out = make([]Datagram, 0, readBatch*4)
	r.recv, r.now, r.poll, r.look = r.recvmmsg, r.recvmmsgNow, r.ppoll, r.readable
	for i := range r.hdrs {
		r.iov[i].Base = &r.bufs[i*r.size]
		r.iov[i].SetLen(r.size)
		r.hdrs[i].hdr.Iov = &r.iov[i]
		r.hdrs[i].hdr.SetIovlen(1)
		r.hdrs[i].hdr.Name = &r.names[i][0]
		r.hdrs[i].hdr.Control = &r.control[i][0]
	}
	return r
}

// ReadBatch waits for at least one datagram and returns all that are there (up
// to 32 messages of the kernel, each of which GRO may have built of many
// datagrams), in order of arrival. They are valid until the next call. Its only
// error is net.ErrClosed; other faults are counted and survived.
func (r *Reader) ReadBatch() ([]Datagram, error) {
	for faults := 0; ; {
		r.n, r.errno = 0, 0
		if err := r.raw.Read(r.recv); err != nil {
			return nil, net.ErrClosed
		}
		if r.errno != 0 {
			r.conn.counters.drop(DropReadError)
			if faults++; faults > 100 {
				time.Sleep(errorPause)
			}
			continue
		}
		if r.split(); len(r.out) > 0 {
			return r.out, nil
		}
	}
}

// ReadNow is ReadBatch that does not wait: it returns nothing when nothing is there.
func (r *Reader) ReadNow() []Datagram {
	r.n, r.errno = 0, 0
	if r.raw.Control(r.now) != nil {
		return nil
	}
	if r.errno != 0 {
		r.conn.counters.drop(DropReadError)
		return nil
	}
	if r.n == 0 {
		return nil
	}
	r.split()
	return r.out
}

func (r *Reader) recvmmsgNow(fd uintptr) { r.recvmmsg(fd) }

// Wait waits until there is something to read. Its only error is net.ErrClosed. Others may read meanwhile.
// Of a patient reader, whatever comes from then on wakes a thread, until Ignore is called.
func (r *Reader) Wait() error {
	if r.raw.Read(r.look) != nil {
		return net.ErrClosed
	}
	return nil
}

// Ignore lets what comes to a patient reader wake nobody any more. It is for the goroutine that waits.
func (r *Reader) Ignore() {
	if q, ok := r.raw.(*quiet); ok {
		q.ignore()
	}
}

func (r *Reader) readable(fd uintptr) bool {
	return poll(fd, &r.waiting, &r.atOnce) > 0
}

// Await waits until there is something to read, d at most, and says whether there is. It
// waits in the kernel: for the microseconds that it is meant for, parking the goroutine
// would cost more than the wait.
func (r *Reader) Await(d time.Duration) (ready bool) {
	if d <= 0 {
		return false
	}
	r.patience = unix.NsecToTimespec(int64(d))
	r.n = 0
	return r.raw.Control(r.poll) == nil && r.n > 0
}

func (r *Reader) ppoll(fd uintptr) {
	r.n = poll(fd, &r.poller, &r.patience)
}

// poll waits in the kernel, without a word to the scheduler: it is for less than a millisecond.
func poll(fd uintptr, one *[1]unix.PollFd, patience *unix.Timespec) int {
	one[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(one)), 1, uintptr(unsafe.Pointer(patience)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (r *Reader) recvmmsg(fd uintptr) bool {
	batch := readBatch
	if r.conn.cfg.Plain {
		batch = 1
	}
	for i := range r.hdrs[:batch] {
		r.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		r.hdrs[i].hdr.SetControllen(controlSpace)
		r.hdrs[i].hdr.Flags = 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd,
		uintptr(unsafe.Pointer(&r.hdrs[0])), uintptr(batch), unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		r.n = int(n)
	case unix.EAGAIN:
		return false
	default:
		r.errno = errno
	}
	return true
}

// split undoes GRO: r.out gets one entry for each datagram.
func (r *Reader) split() {
	r.out = r.out[:0]
	var now int64
	if r.conn.cfg.Arrivals {
		now = time.Now().UnixNano()
	}
	bytes := 0
	for i := range r.n {
		data := r.bufs[i*r.size:][:r.hdrs[i].n]
		seg, came := r.readControl(i)
		age := time.Duration(0)
		if came != 0 {
			if age = time.Duration(now - came); age < 0 || age > oldest {
				age = 0
			}
		}
		if seg <= 0 || seg > len(data) {
			seg = max(len(data), 1)
		}
		from := r.addr(i)
		bytes += len(data)
		for first := true; first || len(data) > 0; first = false {
			n := min(seg, len(data))
			if n > r.conn.cfg.MaxDatagram || r.hdrs[i].hdr.Flags&unix.MSG_TRUNC != 0 {
				r.conn.counters.drop(DropOversize)
			} else {
				r.out = append(r.out, Datagram{Data: data[:n:n], From: from, Age: age})
			}
			data = data[n:]
		}
	}
	r.conn.counters.read(1, r.n, len(r.out), bytes)
}

// readControl returns the GRO segment size of message i, 0 when it is a single
// datagram, and when it came by the wall clock, 0 when that is not known; it counts what the
// kernel dropped before it.
func (r *Reader) readControl(i int) (segment int, came int64) {
	c := r.control[i][:min(int(r.hdrs[i].hdr.Controllen), controlSpace)]
	for len(c) >= unix.CmsgLen(4) {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		value := binary.NativeEndian.Uint32(c[unix.CmsgLen(0):])
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO:
			segment = int(value)
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL:
			r.conn.counters.dropN(DropKernel, uint64(value-r.lost))
			r.lost = value
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(c) >= unix.CmsgLen(int(unsafe.Sizeof(unix.Timespec{}))):
			came = (*unix.Timespec)(unsafe.Pointer(&c[unix.CmsgLen(0)])).Nano()
		}
		step := unix.CmsgSpace(max(int(h.Len)-unix.CmsgLen(0), 0))
		if step > len(c) {
			break
		}
		c = c[step:]
	}
	return segment, came
}

func (r *Reader) addr(i int) netip.AddrPort {
	b := &r.names[i]
	port := binary.BigEndian.Uint16(b[2:])
	if binary.NativeEndian.Uint16(b[:]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	}
	ip := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 && ip.Is6() {
		zone, ok := r.zones[scope]
		if !ok {
			zone = strconv.FormatUint(uint64(scope), 10)
			r.zones[scope] = zone
		}
		ip = ip.WithZone(zone)
	}
	return netip.AddrPortFrom(ip, port)
}
