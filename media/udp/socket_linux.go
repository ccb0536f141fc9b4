package udp

import "golang.org/x/sys/unix"

// configure sizes the kernel's buffers and turns on what the kernel has. Nothing
// here is fatal: without it the socket works, only slower.
func (c *Conn) configure() {
	_ = c.raw.Control(func(ufd uintptr) {
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
		if c.cfg.Plain {
			c.noGSO.Store(true)
			return
		}
		c.gro = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
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
