package udp

import (
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRefusedGSOLeavesPlainly lets the kernel "refuse" every GSO message.
func TestRefusedGSOLeavesPlainly(t *testing.T) {
	t.Parallel()
	for _, errno := range []unix.Errno{unix.EIO, unix.EINVAL, unix.EOPNOTSUPP, unix.EMSGSIZE} {
		out := listen(t, Config{Addr: "127.0.0.1:0"})
		s := out.NewSender()
		real := s.tx.send
		refused := 0
		s.tx.send = func(fd uintptr) {
			for i := s.tx.at; i < s.tx.n; i++ {
				if s.tx.hdrs[i].hdr.Control == nil {
					continue
				}
				if i == s.tx.at {
					s.tx.errno = errno
					refused++
					return
				}
				n := s.tx.n
				s.tx.n = i
				real(fd)
				s.tx.n = n
				return
			}
			real(fd)
		}
		a, addrA := receiver(t, "udp4", "127.0.0.1:0")
		b, addrB := receiver(t, "udp4", "127.0.0.1:0")
		da, db := s.NewDest(addrA), s.NewDest(addrB)
		for range 2 {
			for i := range 5 {
				da.Write(rtp(1, uint16(i), 200))
			}
			db.Write(rtp(2, 0, 100))
			s.Flush()
			receive(t, a, 5)
			receive(t, b, 1)
		}
		if refused != 1 || out.Stats().GSORefused != 1 {
			t.Fatalf("%v: refused %d times, counted %d; want 1: the route must be remembered", errno, refused, out.Stats().GSORefused)
		}
		if st := out.Stats(); st.SendDatagrams != 12 || st.SendBytes != 2*5*200+2*100 {
			t.Fatalf("%v: counted %d datagrams, %d bytes", errno, st.SendDatagrams, st.SendBytes)
		}
		if da.noGSO != true || db.noGSO != false {
			t.Fatalf("%v: the refusal must be remembered for its route only", errno)
		}
		da.SetAddr(addrB)
		if da.noGSO {
			t.Fatalf("%v: a new address must get a new chance", errno)
		}
	}
}

func TestFullSendBufferDropsByName(t *testing.T) {
	t.Parallel()
	out := listen(t, Config{Addr: "127.0.0.1:0"})
	s := out.NewSender()
	s.tx.send = func(uintptr) { s.tx.errno = unix.EAGAIN }
	d := s.NewDest(netip.MustParseAddrPort("127.0.0.1:9"))
	for i := range 40 {
		d.Write(rtp(1, uint16(i), 200))
	}
	s.Flush()
	if n := out.Stats().Drops[DropSendFull]; n != 40 || s.Queued() != 0 {
		t.Fatalf("dropped %d with %d left, want 40 and 0", n, s.Queued())
	}
}

// TestSendersShareTheSocket runs several Senders at once; -race watches.
func TestSendersShareTheSocket(t *testing.T) {
	t.Parallel()
	out := listen(t, Config{Addr: "127.0.0.1:0"})
	const senders, packets = 4, 200
	var wg sync.WaitGroup
	for range senders {
		sock, addr := receiver(t, "udp4", "127.0.0.1:0")
		wg.Go(func() {
			s := out.NewSender()
			d := s.NewDest(addr)
			for i := range packets {
				d.Write(rtp(1, uint16(i), 300))
				if i%10 == 9 {
					s.Flush()
				}
			}
			receive(t, sock, packets)
		})
	}
	wg.Wait()
	if n := out.Stats().SendDatagrams; n != senders*packets {
		t.Fatalf("sent %d, want %d", n, senders*packets)
	}
}

func TestNoAllocationInSteadyState(t *testing.T) {
	in := listen(t, Config{Addr: "127.0.0.1:0"})
	out := listen(t, Config{Addr: ":0"})
	s := out.NewSender()
	d := s.NewDest(in.LocalAddr())
	r := in.NewReader()
	pkt := rtp(1, 1, 1100)
	round := func() {
		for range 20 {
			d.Write(pkt)
		}
		s.Flush()
		for n := 0; n < 20; {
			batch, err := r.ReadBatch()
			if err != nil {
				t.Fatal(err)
			}
			n += len(batch)
		}
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Fatalf("%v allocations for 20 packets out and in, want 0", n)
	}
}
