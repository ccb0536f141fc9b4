package wire

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// socketBuffer is the send buffer of each end, in bytes: about a second of
// input, so that a busy child does not make the node drop at once.
const socketBuffer = 1 << 20

// Pair makes the socket between a node and its compositor. The node keeps conn;
// child goes to the process as descriptor FD (exec.Cmd.ExtraFiles) and is then
// closed by the node.
func Pair() (conn net.Conn, child *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	for _, fd := range fds {
		// Only a wish: a smaller buffer works too.
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, socketBuffer)
	}
	near := os.NewFile(uintptr(fds[0]), "compositor")
	child = os.NewFile(uintptr(fds[1]), "compositor-child")
	conn, err = net.FileConn(near)
	_ = near.Close() // FileConn has its own copy
	if err != nil {
		_ = child.Close()
		return nil, nil, fmt.Errorf("wrapping the socket: %w", err)
	}
	return conn, child, nil
}
