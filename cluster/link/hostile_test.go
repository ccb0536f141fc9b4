package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// outsider is a raw connection to a node's port.
func outsider(t *testing.T, n *node) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func TestThePortRefusesAndCounts(t *testing.T) {
	t.Parallel()
	a := authority(t)
	x := start(t, a, "x", Config{HandshakeTimeout: 300 * time.Millisecond}, nil)
	y := start(t, a, "y", Config{}, nil)
	introduce(x, y)
	connected(t, x, y)

	// Garbage, silence, a foreign certificate, none at all, this node's own, no protocol, one that is not spoken.
	_, _ = outsider(t, x).Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	_ = outsider(t, x)
	other, err := authority(t).Identity("w")
	if err != nil {
		t.Fatal(err)
	}
	foreign := other.Client("x", MessageProtocol)
	foreign.VerifyConnection = nil
	own, err := a.Identity("x")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := a.Identity("w")
	if err != nil {
		t.Fatal(err)
	}
	// One that does not take x's certificate: it says so before x can judge its own.
	distrustful := other.Client("x", MessageProtocol)
	silent := plain.Client("x", "")
	silent.NextProtos = nil
	for _, cfg := range []*tls.Config{
		foreign, {InsecureSkipVerify: true, NextProtos: []string{MessageProtocol}}, own.Client("x", MessageProtocol), silent,
		plain.Client("x", "other/1"), distrustful,
	} {
		conn := tls.Client(outsider(t, x), cfg)
		b := make([]byte, 1)
		if _, err := conn.Read(b); err == nil {
			t.Errorf("%v was let in", cfg.NextProtos)
		}
		_ = conn.NetConn().Close()
	}
	for reason, want := range map[string]uint64{
		refusedGarbage: 1, refusedTimeout: 1, refusedForeign: 1, refusedNode: 1, refusedProtocol: 1, refusedHandshake: 2, refusedByOther: 1,
	} {
		eventually(t, reason, func() bool { return x.Stats().Refused[reason] == want })
	}
	if !x.Connected("y") || !y.Connected("x") {
		t.Error("it cost a connection of others")
	}
	eventually(t, "nothing stays open", func() bool { return x.Stats().Sockets == 1 })
}

func TestHandshakesAreLimitedPerAddress(t *testing.T) {
	t.Parallel()
	a := authority(t)
	x := start(t, a, "x", Config{PerAddress: 4}, nil)
	for range 10 {
		_ = outsider(t, x)
	}
	eventually(t, "six are refused", func() bool { return x.Stats().Refused[refusedAddress] == 6 })
	if got := x.Stats().Sockets; got != 4 {
		t.Errorf("%d are open, want 4", got)
	}
}

func TestABadFrameEndsItsConnectionOnly(t *testing.T) {
	t.Parallel()
	a := authority(t)
	x, y := start(t, a, "x", Config{}, nil), start(t, a, "y", Config{}, nil)
	introduce(x, y)
	connected(t, x, y)
	w, err := a.Identity("w")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{
		{99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{byte(message), 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0},
		{byte(beat), 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0},
		{byte(call), 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		conn := tls.Client(outsider(t, x), w.Client("x", MessageProtocol))
		if _, err := conn.Write(bad); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v left the connection open", bad)
		}
		_ = conn.Close()
	}
	eventually(t, "they are counted", func() bool { return x.Stats().Refused[refusedFrame] == 4 })
	if !x.Connected("y") {
		t.Error("it cost a connection of others")
	}
}

func FuzzFrame(f *testing.F) {
	for _, seed := range []frame{
		{typ: message, kind: 1, body: []byte("hello")}, {typ: call, kind: 2, id: 3, body: []byte{0, 0, 0, 1, 5}},
		{typ: beat, id: 9, body: make([]byte, beatLen)}, {typ: failure, id: 3},
	} {
		h := seed.header()
		f.Add(append(h[:], seed.body...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			at := len(data) - r.Len()
			got, err := readFrame(r)
			if err != nil {
				if at == len(data) && !errors.Is(err, io.EOF) {
					t.Errorf("at the end: %v", err)
				}
				return
			}
			h := got.header()
			if !bytes.Equal(append(h[:], got.body...), data[at:len(data)-r.Len()]) {
				t.Errorf("%v is not what was read", got)
			}
		}
	})
}
