package media

import (
	"net"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/udp"
)

// TestWhoReadsMediaDoesTheRest: an engine whose other goroutines do not run ticks, and reads its
// second socket, as long as media comes.
func TestWhoReadsMediaDoesTheRest(t *testing.T) {
	t.Parallel()
	e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.patient.reader == nil {
		t.Skip("this system has no second socket")
	}
	sock, err := net.Dial("udp", e.UDPAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	const strangers = 100
	for range strangers {
		if _, err := sock.Write([]byte{0, 1, 0, 0}); err != nil { // no STUN message
			t.Fatal(err)
		}
	}
	began := time.Now()
	e.readSocket(scriptedReader(func() ([]udp.Datagram, error) {
		read := e.drops[dropSTUN].Load() == strangers
		ticked := e.clock.next.Load() > 0 && e.workers[0].next.Load() > 0 && e.workers[1].next.Load() > 0
		if read && ticked || time.Since(began) > 10*time.Second {
			return nil, net.ErrClosed
		}
		return nil, nil
	}))
	if n := e.drops[dropSTUN].Load(); n != strangers {
		t.Errorf("%d of %d datagrams of the second socket were read", n, strangers)
	}
	if e.clock.next.Load() == 0 || e.workers[0].next.Load() == 0 || e.workers[1].next.Load() == 0 {
		t.Error("the clock or a worker did not tick")
	}
}

// TestChecksOfNewcomersAreAnsweredAtOnce: the pause between reads ends when somebody is about to connect.
func TestChecksOfNewcomersAreAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	p := newPatient(nil)
	p.expect()
	select {
	case <-p.hurry:
	default:
		t.Fatal("it rests")
	}
	if p.connecting.Load() != 1 {
		t.Fatal("nobody is being waited for")
	}
}
