//go:build !linux

package udp

import (
	"net"
	"net/netip"
	"syscall"
)

func (c *Conn) listen(addr *net.UDPAddr) (err error) {
	c.sock, err = net.ListenUDP("udp", addr)
	return err
}

func (c *Conn) configure(syscall.RawConn) {
	// An error leaves the system's default size: the socket works all the same.
	_ = c.sock.SetReadBuffer(c.cfg.ReadBuffer)
	_ = c.sock.SetWriteBuffer(c.cfg.WriteBuffer)
}

// Buffers is the size of the kernel's buffers in bytes; 0 where it is unknown.
func (c *Conn) Buffers() (read, write int) { return 0, 0 }

func (c *Conn) writeNow(b []byte, to netip.AddrPort) (int, error) {
	return c.sock.WriteToUDPAddrPort(b, to)
}
