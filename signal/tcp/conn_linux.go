package tcp

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"unsafe"
)

// most is the longest read or write that is made without a word to the scheduler: what copies for longer than a few
// microseconds should be announced.
const most = 16 << 10

// conn is a connection. All that is not below is TCPConn's, sendfile(2) included.
type conn struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out half
}

// half is one direction.
type half struct {
	mu    sync.Mutex // guards the fields below
	rest  []byte     // to be filled or sent
	done  int
	errno syscall.Errno
	call  func(fd uintptr) bool // bound once: a closure per call would allocate
}

func wrap(sock *net.TCPConn) net.Conn {
	raw, err := sock.SyscallConn()
	if err != nil { // it is closed
		return sock
	}
	c := &conn{TCPConn: sock, raw: raw}
	c.in.call, c.out.call = c.in.receive, c.out.send
	return c
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 || len(b) > most {
		return c.TCPConn.Read(b)
	}
	n, err := c.in.do(b, c.raw.Read)
	if err != nil {
		return 0, c.fault("read", err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	if len(b) == 0 || len(b) > most {
		return c.TCPConn.Write(b)
	}
	n, err := c.out.do(b, c.raw.Write)
	if err != nil {
		return n, c.fault("write", err)
	}
	return n, nil
}

// fault is an error as net has it.
func (c *conn) fault(op string, err error) error {
	var known *net.OpError
	if errors.As(err, &known) {
		err = known.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// do has the poller call until all is done that can be.
func (h *half) do(b []byte, poll func(func(fd uintptr) bool) error) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rest, h.done, h.errno = b, 0, 0
	err := poll(h.call)
	h.rest = nil
	if err == nil && h.errno != 0 {
		err = h.errno
	}
	return h.done, err
}

func (h *half) receive(fd uintptr) (over bool) {
	n, errno := transfer(syscall.SYS_RECVFROM, fd, h.rest)
	if errno == syscall.EAGAIN {
		return false
	}
	h.done, h.errno = n, errno
	return true
}

func (h *half) send(fd uintptr) (over bool) {
	for len(h.rest) > 0 {
		n, errno := transfer(syscall.SYS_SENDTO, fd, h.rest)
		if errno == syscall.EAGAIN {
			return false
		}
		if errno != 0 {
			h.errno = errno
			return true
		}
		h.rest, h.done = h.rest[n:], h.done+n
	}
	return true
}

func transfer(call, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
