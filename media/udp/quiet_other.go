//go:build !linux

package udp

import (
	"net"
	"syscall"
)

// quiet is the second socket, which there is none of here.
type quiet struct{ syscall.RawConn }

// Close has nothing to close.
func (*quiet) Close() error { return net.ErrClosed }
