package udp

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// quiet is a socket that the runtime's poller does not know, but while somebody waits for it:
// whatever comes to one that the poller knows wakes its thread, also when no goroutine waits.
// It is a syscall.RawConn.
type quiet struct {
	mu      sync.RWMutex // guards the fields below
	fd      int
	closed  bool
	watched *os.File // the same socket, known to the poller; nil while nobody waits
}

// newQuiet takes over a socket, and closes what it was.
func newQuiet(sock *net.UDPConn) (*quiet, error) {
	defer sock.Close()
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reaching the second socket: %w", err)
	}
	q := &quiet{}
	if cerr := raw.Control(func(fd uintptr) { q.fd, err = duplicate(int(fd)) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicating the second socket: %w", err)
	}
	return q, nil
}

func duplicate(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// Control implements syscall.RawConn.
func (q *quiet) Control(f func(fd uintptr)) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return net.ErrClosed
	}
	f(uintptr(q.fd))
	return nil
}

// Read implements syscall.RawConn: it waits until f is satisfied. From then on the poller
// knows the socket, until ignore.
func (q *quiet) Read(f func(fd uintptr) bool) error {
	raw, err := q.watch()
	if err != nil {
		return err
	}
	return raw.Read(f)
}

func (q *quiet) watch() (syscall.RawConn, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, net.ErrClosed
	}
	if q.watched == nil {
		fd, err := duplicate(q.fd)
		if err != nil {
			return nil, fmt.Errorf("duplicating the second socket: %w", err)
		}
		q.watched = os.NewFile(uintptr(fd), "udp")
	}
	return q.watched.SyscallConn()
}

// ignore makes the poller forget the socket.
func (q *quiet) ignore() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.watched != nil {
		_ = q.watched.Close()
		q.watched = nil
	}
}

// Write implements syscall.RawConn: nobody writes here.
func (q *quiet) Write(func(fd uintptr) bool) error { return net.ErrClosed }

// Close is safe while others wait or read.
func (q *quiet) Close() error {
	q.ignore()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	return unix.Close(q.fd)
}
