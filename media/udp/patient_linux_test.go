package udp

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"
)

// TestWhatMayWaitIsToldApart: of all that comes to the port, the patient reader gets
// transport-wide feedback, reports and STUN, and the other reader the rest.
func TestWhatMayWaitIsToldApart(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			c := listen(t, Config{Addr: addr})
			patient := c.NewPatientReader()
			if patient == nil {
				t.Skip("this system can't")
			}
			sock, err := net.Dial("udp", net.JoinHostPort(map[string]string{"[::1]:0": "::1"}[addr], portOf(c)))
			if err != nil {
				t.Fatal(err)
			}
			defer sock.Close()
			report := append([]byte{0x81, 201, 0, 7}, make([]byte, 28)...)
			wait := [][]byte{
				{0x8f, 205, 0, 0, 0, 0, 0, 0},               // transport-wide feedback
				{0xaf, 205, 0, 1, 0, 0, 0, 0},               // the same with padding
				append(report, make([]byte, 20)...),         // receiver report, AEAD
				append(report[:32:32], make([]byte, 14)...), // the same, HMAC
				{0x80, 201, 0, 1, 0, 0, 0, 0},               // an empty one
				{0x00, 0x01, 0, 0},                          // STUN
				{0x01},
			}
			rest := [][]byte{
				{0x81, 205, 0, 0, 0, 0, 0, 0},       // NACK
				{0x8f, 206, 0, 0, 0, 0, 0, 0},       // application-layer feedback
				append(report, make([]byte, 36)...), // receiver report and NACK
				{0x81, 201, 0xff, 0xff, 0, 0, 0, 0},
				{0x01 << 6, 201, 0, 1, 0, 0, 0, 0},
				{0x80, 201, 0},
				{0x80, 200, 0, 6, 0, 0, 0, 0}, // sender report
				{0x80, 96, 0, 0, 0, 0, 0, 0},  // RTP
				{0x8f},
				{},
				{22, 0xfe, 0xfd},
			}
			for _, b := range slices.Concat(wait, rest) {
				if _, err := sock.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, c, patient, wait)
			expect(t, c, c.NewReader(), rest)
		})
	}
}

func portOf(c *Conn) string {
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

// expect reads exactly these datagrams, in order. It gives up by closing c.
func expect(t *testing.T, c *Conn, r *Reader, want [][]byte) {
	t.Helper()
	defer time.AfterFunc(10*time.Second, func() { c.Close() }).Stop()
	for n := 0; n < len(want); {
		batch, err := r.ReadBatch()
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", n, len(want), err)
		}
		for _, d := range batch {
			if n == len(want) || string(d.Data) != string(want[n]) {
				t.Fatalf("datagram %d is %x", n, d.Data)
			}
			n++
		}
	}
}

// TestPortInUse: though the sockets of one Conn share their port, no other Conn gets it.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	c := listen(t, Config{Addr: "127.0.0.1:0"})
	if other, err := Listen(Config{Addr: c.LocalAddr().String()}); err == nil {
		other.Close()
		t.Fatal("two of them listen on one port")
	}
}

// TestAwait: it returns when something is there, and else when the time is up.
func TestAwait(t *testing.T) {
	t.Parallel()
	c := listen(t, Config{Addr: "127.0.0.1:0"})
	r := c.NewReader()
	if r.Await(time.Millisecond) || r.Await(0) || r.Await(-time.Second) {
		t.Fatal("something is there")
	}
	if _, err := c.WriteToAddrPort([]byte("x"), c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(10 * time.Second); !r.Await(100 * time.Millisecond); {
		if time.Now().After(until) {
			t.Fatal("nothing comes")
		}
	}
	if batch, err := r.ReadBatch(); err != nil || len(batch) != 1 {
		t.Fatalf("%d datagrams, %v", len(batch), err)
	}
}

// TestPatience: Wait returns when something is there, also after Ignore, ReadNow at once in any case.
func TestPatience(t *testing.T) {
	t.Parallel()
	c := listen(t, Config{Addr: "127.0.0.1:0"})
	r := c.NewPatientReader()
	if r == nil {
		t.Skip("this system can't")
	}
	if batch := r.ReadNow(); len(batch) > 0 {
		t.Fatalf("%d datagrams are there", len(batch))
	}
	defer time.AfterFunc(10*time.Second, func() { c.Close() }).Stop()
	for range 3 {
		go c.WriteToAddrPort([]byte{0, 1}, c.LocalAddr())
		if err := r.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := r.Wait(); err != nil { // it is still there
			t.Fatal(err)
		}
		if batch := r.ReadNow(); len(batch) != 1 || len(batch[0].Data) != 2 {
			t.Fatalf("%d datagrams", len(batch))
		}
		r.Ignore() // until the next Wait
	}
	waited := make(chan error)
	go func() { waited <- r.Wait() }()
	c.Close()
	if err := <-waited; !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
}
