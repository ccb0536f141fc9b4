package udp

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkFloor is the least that a packet to each of many subscribers can cost in Go on
// this machine: sealed from the shared plaintext into send memory under a key of the
// subscriber's own, then sent, by one thread that does nothing else, to sockets that are being read.
// One operation is one packet; cpu-ns/pkt is that thread's. Compare with it what the
// node costs in the same run:
//
//	go test -run xxx -bench Floor -benchtime 200000x ./media/udp
func BenchmarkFloor(b *testing.B) {
	for _, subscribers := range []int{50, 200} {
		for _, bc := range []struct {
			name      string
			burst     int
			connected bool
		}{{"sendto", 1, false}, {"connected", 1, true}, {"gso", 7, false}} {
			b.Run(bc.name+"-"+strconv.Itoa(subscribers), func(b *testing.B) {
				runFloor(b, subscribers, bc.burst, bc.connected)
			})
		}
	}
}

// floorSubscriber is all that is needed to send to one subscriber.
type floorSubscriber struct {
	aead cipher.AEAD
	iv   [12]byte
	seq  uint16
	buf  []byte
	sa   sockaddr
	fd   uintptr
}

func runFloor(b *testing.B, subscribers, burst int, connected bool) {
	const size, header, tag = 1122, 20, 16
	addrs := drained(b, subscribers)
	shared, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer shared.Close()
	subs := make([]*floorSubscriber, subscribers)
	for i, addr := range addrs {
		block, err := aes.NewCipher(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i)))
		if err != nil {
			b.Fatal(err)
		}
		s := &floorSubscriber{buf: make([]byte, 0, burst*size)}
		if s.aead, err = cipher.NewGCM(block); err != nil {
			b.Fatal(err)
		}
		sock := shared
		if connected {
			if sock, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr)); err != nil {
				b.Fatal(err)
			}
			defer sock.Close()
		} else {
			s.sa.set(unix.AF_INET, addr)
		}
		s.fd = descriptor(b, sock)
		subs[i] = s
	}
	plain := make([]byte, size-header-tag)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start, n := threadNS(b), 0
	for b.Loop() {
		if n++; n%(burst*subscribers) != 0 {
			continue
		}
		for _, s := range subs {
			s.buf = s.buf[:0]
			for range burst {
				s.seal(plain, header)
			}
			s.send(b, size)
		}
	}
	b.ReportMetric(float64(threadNS(b)-start)/float64(n), "cpu-ns/pkt")
}

func (s *floorSubscriber) seal(plain []byte, header int) {
	at := len(s.buf)
	s.seq++
	s.buf = append(s.buf, make([]byte, header)...)
	h := s.buf[at:]
	h[0], h[1] = 0x90, 96
	binary.BigEndian.PutUint16(h[2:], s.seq)
	binary.BigEndian.PutUint16(s.iv[10:], s.seq)
	s.buf = s.aead.Seal(s.buf, s.iv[:], plain, h)
}

func (s *floorSubscriber) send(b *testing.B, size int) {
	iov := unix.Iovec{Base: &s.buf[0]}
	iov.SetLen(len(s.buf))
	hdr := unix.Msghdr{Iov: &iov}
	hdr.SetIovlen(1)
	if s.sa.n > 0 {
		hdr.Name, hdr.Namelen = &s.sa.buf[0], s.sa.n
	}
	var control [segmentSpace]byte
	if len(s.buf) > size {
		cm := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		cm.Level, cm.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		cm.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(size))
		hdr.Control = &control[0]
		hdr.SetControllen(unix.CmsgSpace(2))
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, s.fd, uintptr(unsafe.Pointer(&hdr)), unix.MSG_DONTWAIT); errno != 0 {
		b.Fatal(errno)
	}
}

// drained are sockets that goroutines read, as those of clients would be.
func drained(b *testing.B, n int) []netip.AddrPort {
	addrs := make([]netip.AddrPort, n)
	var wg sync.WaitGroup
	b.Cleanup(wg.Wait) // runs after the sockets are closed
	for i := range addrs {
		sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		addrs[i] = netip.MustParseAddrPort(sock.LocalAddr().String())
		wg.Go(func() {
			buf := make([]byte, 1500)
			for {
				if _, _, err := sock.ReadFromUDPAddrPort(buf); err != nil {
					return
				}
			}
		})
		b.Cleanup(func() { sock.Close() })
	}
	return addrs
}

func descriptor(b *testing.B, sock *net.UDPConn) (fd uintptr) {
	raw, err := sock.SyscallConn()
	if err == nil {
		err = raw.Control(func(f uintptr) { fd = f })
	}
	if err != nil {
		b.Fatal(err)
	}
	return fd
}

// threadNS is the CPU time of this thread in nanoseconds.
func threadNS(b *testing.B) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}
