package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// openDevice makes a tun device in the namespace of the calling thread.
func openDevice(name string, addr netip.Prefix, mtu int) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	if err := configureDevice(fd, name, addr, mtu); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

func configureDevice(fd int, name string, addr netip.Prefix, mtu int) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("naming device %q: %w", name, err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("making tun device %s: %w", name, err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket to configure %s: %w", name, err)
	}
	defer unix.Close(sock)
	mask := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	for bits := range addr.Bits() { // the mask, as an address
		b := mask.Addr().As4()
		b[bits/8] |= 0x80 >> (bits % 8)
		mask = netip.PrefixFrom(netip.AddrFrom4(b), 0)
	}
	for _, step := range []struct {
		call uint
		addr netip.Addr
	}{{unix.SIOCSIFADDR, addr.Addr()}, {unix.SIOCSIFNETMASK, mask.Addr()}} {
		if req, err = unix.NewIfreq(name); err != nil {
			return err
		}
		b := step.addr.As4()
		if err := req.SetInet4Addr(b[:]); err != nil {
			return fmt.Errorf("addressing %s: %w", name, err)
		}
		if err := unix.IoctlIfreq(sock, step.call, req); err != nil {
			return fmt.Errorf("addressing %s: %w", name, err)
		}
	}
	return setUp(name, mtu)
}

// setUp sets the MTU, unless 0, and brings a device of this namespace up.
func setUp(name string, mtu int) error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket to bring %s up: %w", name, err)
	}
	defer unix.Close(sock)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if mtu > 0 {
		req.SetUint32(uint32(mtu))
		if err := unix.IoctlIfreq(sock, unix.SIOCSIFMTU, req); err != nil {
			return fmt.Errorf("setting the MTU of %s: %w", name, err)
		}
	}
	if req, err = unix.NewIfreq(name); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(sock, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("reading the state of %s: %w", name, err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}
