package udp

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSendingWakesNobody: Go's poller, which knows the socket that media is read from, hears
// nothing of what is sent. It asks for EPOLLOUT too, so a packet that leaves would be an event.
func TestSendingWakesNobody(t *testing.T) {
	t.Parallel()
	c := listen(t, Config{Addr: "127.0.0.1:0"})
	if c.NewPatientReader() == nil {
		t.Skip("there is one socket only")
	}
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	to := netip.MustParseAddrPort(sink.LocalAddr().String())
	poller, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(poller)
	events := make([]unix.EpollEvent, 4)
	heard := func() int {
		n, err := unix.EpollWait(poller, events, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := c.raw.Control(func(fd uintptr) {
		err = unix.EpollCtl(poller, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(fd),
		})
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	heard() // that there is room to send
	if _, err := c.WriteToAddrPort([]byte("alone"), to); err != nil {
		t.Fatal(err)
	}
	s := c.NewSender()
	d := s.NewDest(to)
	for range 5 {
		d.Write([]byte("in company"))
	}
	s.Flush()
	buf := make([]byte, 100)
	for i := range 6 {
		if _, from, err := sink.ReadFromUDPAddrPort(buf); err != nil || from.Port() != c.LocalAddr().Port() {
			t.Fatalf("packet %d from %v: %v", i, from, err)
		}
	}
	if n := heard(); n != 0 {
		t.Errorf("%d events of what was sent", n)
	}
	if _, err := sink.WriteToUDPAddrPort([]byte{0x80, 96}, c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if n := heard(); n != 1 {
		t.Errorf("%d events of what came", n)
	}
}
