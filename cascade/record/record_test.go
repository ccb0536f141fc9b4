package record

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func secret(first byte) []byte {
	b := make([]byte, SecretSize)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func pair(tb testing.TB) (*Sealer, *Opener) {
	tb.Helper()
	s, err := NewSealer(secret(0), 0xc0ffee01)
	if err != nil {
		tb.Fatal(err)
	}
	o, err := NewOpener(secret(0), 0xc0ffee01)
	if err != nil {
		tb.Fatal(err)
	}
	return s, o
}

func seal(tb testing.TB, s *Sealer, payload string) []byte {
	tb.Helper()
	b, err := s.Seal(nil, Media, 7, 9, []byte(payload), 1)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// vectors are also in DESIGN.md, for who implements the format elsewhere.
var vectors = []struct {
	typ     Type
	rekeys  int
	number  uint64
	label   uint32
	ext     uint64
	payload string
	record  string
}{
	{Media, 0, 0, 0x01020304, 0x0000_0001_fffe, "8060fffe000003e800000001aabbccdd",
		"41000000000000000102030400000001fffec0ffee01193fa3afa32a1e2f4fe5e4623973d85be72bdf404e38b6bfb9438b4f2d944175"},
	{Repair, 0, 0x1234_5678_9abc, 0xffffffff, MaxExt, "80", "4200123456789abcffffffffffffffffffffc0ffee019d14534de70aceea1bd3b3ee577167cd0b"},
	{Probe, 1, 77, 0, 0, "0011223344556677", "430100000000004d00000000000000000000c0ffee01896e2fe1914911a2798e46493bd7e5f070e7e96ce94e0a52"},
}

func TestVectors(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		s, o := pair(t)
		for range v.rekeys {
			if err := s.Rekey(1); err != nil {
				t.Fatal(err)
			}
		}
		s.next, s.first = v.number, v.number
		payload, err := hex.DecodeString(v.payload)
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Seal(nil, v.typ, v.label, v.ext, payload, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != v.record {
			t.Errorf("%s: record is %s, want %s", v.typ, got, v.record)
		}
		if !strings.Contains(string(page), v.record) {
			t.Errorf("%s: DESIGN.md does not have this vector", v.typ)
		}
		h, got, err := o.Open(b)
		want := Header{Type: v.typ, Phase: uint8(v.rekeys), Number: v.number, Label: v.label, Ext: v.ext, Conn: 0xc0ffee01}
		if err != nil || h != want || !bytes.Equal(got, payload) {
			t.Errorf("%s: opened %+v %x (%v), want %+v", v.typ, h, got, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(b []byte) []byte
		want  error
	}{
		{"empty", func([]byte) []byte { return nil }, ErrTruncated},
		{"truncated", func(b []byte) []byte { return b[:Overhead-1] }, ErrTruncated},
		{"cut short", func(b []byte) []byte { return b[:len(b)-1] }, ErrForged},
		{"too long", func(b []byte) []byte { return append(b, make([]byte, 2048)...) }, ErrOversize},
		{"type of RTP", func(b []byte) []byte { b[0] = 0x80; return b }, ErrType},
		{"unknown type", func(b []byte) []byte { b[0] = byte(Padding) + 1; return b }, ErrType},
		{"other type", func(b []byte) []byte { b[0] = byte(Repair); return b }, ErrForged},
		{"phase far ahead", func(b []byte) []byte { b[1] = 2; return b }, ErrPhase},
		{"phase before the first", func(b []byte) []byte { b[1] = 255; return b }, ErrPhase},
		{"next phase, wrong key", func(b []byte) []byte { b[1] = 1; return b }, ErrForged},
		{"number", func(b []byte) []byte { b[7]++; return b }, ErrForged},
		{"label", func(b []byte) []byte { b[11] ^= 1; return b }, ErrForged},
		{"ext", func(b []byte) []byte { b[17] ^= 1; return b }, ErrForged},
		{"connection", func(b []byte) []byte { b[21] ^= 1; return b }, ErrConn},
		{"payload", func(b []byte) []byte { b[HeaderSize] ^= 1; return b }, ErrForged},
		{"tag", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, ErrForged},
	} {
		s, o := pair(t)
		b := seal(t, s, "payload")
		if _, _, err := o.Open(c.spoil(bytes.Clone(b))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, got, err := o.Open(b); err != nil || string(got) != "payload" {
			t.Errorf("%s: the genuine record is refused after it: %v", c.name, err)
		}
	}
}

func TestReplays(t *testing.T) {
	t.Parallel()
	s, o := pair(t)
	var all [][]byte
	for range 3 * Window {
		all = append(all, seal(t, s, "x"))
	}
	open := func(i int, want error) {
		t.Helper()
		if _, _, err := o.Open(bytes.Clone(all[i])); !errors.Is(err, want) {
			t.Fatalf("record %d with highest %d: %v, want %v", i, o.Highest(), err, want)
		}
	}
	open(10, nil)
	open(10, ErrReplayed)
	open(3, nil) // below the first that came
	open(3, ErrReplayed)
	open(10+Window-1, nil)
	open(10, ErrReplayed) // the last that the window still tells apart
	open(11, nil)
	open(10+Window, nil)
	open(10, ErrTooOld)
	open(3*Window-1, nil) // a jump over the whole window
	open(2*Window-1, ErrTooOld)
	open(2*Window, nil)
	open(3*Window-1, ErrReplayed)
}

func TestRekey(t *testing.T) {
	t.Parallel()
	s, o := pair(t)
	now := int64(time.Hour)
	at := func() []byte {
		b, err := s.Seal(nil, Media, 1, 2, []byte("x"), now)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i := range 600 { // the phase on the wire wraps twice
		early, late := at(), at()
		now += int64(RekeyAfter)
		next := at()
		if next[1] != byte(i+1) {
			t.Fatalf("phase %d after %d hours", next[1], i+1)
		}
		for _, b := range [][]byte{early, next, late} { // the old key still serves what was overtaken
			if _, _, err := o.Open(b); err != nil {
				t.Fatalf("hour %d: %v", i, err)
			}
		}
	}
	late := at()
	now += int64(RekeyAfter)
	if _, _, err := o.Open(at()); err != nil {
		t.Fatal(err)
	}
	o.Forget()
	if _, _, err := o.Open(late); !errors.Is(err, ErrPhase) {
		t.Errorf("a record under a forgotten key: %v", err)
	}
	before := s.Phase()
	s.next = s.first + RekeyRecords - 1
	at()
	if at(); s.Phase() != before+1 {
		t.Error("the key does not change after so many records")
	}
	s.next = MaxNumber + 1
	if _, err := s.Seal(nil, Media, 1, 2, nil, now); !errors.Is(err, ErrExhausted) {
		t.Errorf("numbers used up: %v", err)
	}
	if _, err := s.Seal(nil, Media, 1, 2, make([]byte, MaxPayload+1), now); !errors.Is(err, ErrTooLong) {
		t.Errorf("payload too long: %v", err)
	}
}

// TestNoncesAreUnique draws connections of two nodes, in both directions, with changes of key
// at any time: no key and nonce are ever used together twice.
func TestNoncesAreUnique(t *testing.T) {
	t.Parallel()
	server, client := configs(t)
	rapid.Check(t, func(t *rapid.T) {
		type use struct {
			key   string
			nonce [nonceSize]byte
		}
		used := map[use]bool{}
		var connections []tls.ConnectionState
		for range rapid.IntRange(2, 3).Draw(t, "connections") {
			a, b := handshake(t, server, client)
			connections = append(connections, a, b)
		}
		now := int64(1)
		for i, c := range connections {
			out, _, err := Secrets(c.ExportKeyingMaterial, i%2 == 0)
			if err != nil {
				t.Fatal(err)
			}
			s, err := NewSealer(out, 1) // ids may be the same, keys are not
			if err != nil {
				t.Fatal(err)
			}
			for _, wait := range rapid.SliceOfN(rapid.Int64Range(0, int64(RekeyAfter)), 1, 12).Draw(t, "waits") {
				now += wait
				for range rapid.IntRange(1, 5).Draw(t, "records") {
					number := s.Next()
					if _, err := s.Seal(nil, Media, 1, 1, []byte("x"), now); err != nil {
						t.Fatal(err)
					}
					u := use{key: string(s.key.secret), nonce: s.nonce}
					if used[u] {
						t.Fatalf("connection %d: key and nonce of record %d have been used", i, number)
					}
					used[u] = true
				}
			}
		}
	})
}

// TestBothEndsDrawTheSameKeys: what one end seals the other opens, and never its own.
func TestBothEndsDrawTheSameKeys(t *testing.T) {
	t.Parallel()
	server, client := configs(t)
	dialled, accepted := handshake(t, server, client)
	outA, inA, errA := Secrets(dialled.ExportKeyingMaterial, true)
	outB, inB, errB := Secrets(accepted.ExportKeyingMaterial, false)
	if errA != nil || errB != nil || !bytes.Equal(outA, inB) || !bytes.Equal(outB, inA) || bytes.Equal(outA, outB) {
		t.Errorf("secrets %x %x and %x %x (%v, %v)", outA, inA, outB, inB, errA, errB)
	}
}

type fataler interface {
	Helper()
	Fatal(args ...any)
}

func configs(t fataler) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"node"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "node"}
}

func handshake(t fataler, server, client *tls.Config) (dialled, accepted tls.ConnectionState) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c, s := tls.Client(a, client), tls.Server(b, server)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		done <- err
		if err == nil { // a reader, for the session ticket's sake, is the other end's pipe
			_, _ = s.Read(make([]byte, 1))
		}
	}()
	go func() { _, _ = c.Read(make([]byte, 1)) }()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState(), s.ConnectionState()
}

func TestNothingIsAllocated(t *testing.T) {
	s, o := pair(t)
	payload := make([]byte, 1100)
	buf := make([]byte, 0, 2048)
	if n := testing.AllocsPerRun(1000, func() {
		b, err := s.Seal(buf, Media, 1, 2, payload, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := o.Open(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per record", n)
	}
}

func FuzzOpen(f *testing.F) {
	s, _ := pair(f)
	good := seal(f, s, "payload")
	f.Add(good)
	f.Add(good[:Overhead])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, o := pair(t)
		genuine := bytes.Equal(b, good)
		h, payload, err := o.Open(bytes.Clone(b))
		if (err == nil) != genuine {
			t.Fatalf("%x opens as %+v %q (%v)", b, h, payload, err)
		}
		if _, got, err := o.Open(bytes.Clone(good)); genuine != (err != nil) || err == nil && string(got) != "payload" {
			t.Fatalf("after %x the genuine record gives %q (%v)", b, got, err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	s, _ := pair(b)
	payload, buf := make([]byte, 1100), make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Seal(buf, Media, 1, 2, payload, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	s, o := pair(b)
	sealed, err := s.Seal(nil, Media, 1, 2, make([]byte, 1100), 1)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, len(sealed))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, sealed)
		o.started = false // else all but the first are replays
		if _, _, err := o.Open(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCipher is what AES-128-GCM itself takes, for comparison within one run.
func BenchmarkCipher(b *testing.B) {
	s, _ := pair(b)
	payload, buf := make([]byte, 1100), make([]byte, 0, 2048)
	for b.Loop() {
		s.key.aead.Seal(buf, s.nonce[:], payload, payload[:HeaderSize])
	}
}
