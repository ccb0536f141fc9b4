package seal

import (
	"bytes"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

func pair(t testing.TB, profile srtp.ProtectionProfile) (*Sealer, *srtp.Context) {
	t.Helper()
	keyLen, err := profile.KeyLen()
	if err != nil {
		t.Fatal(err)
	}
	saltLen, _ := profile.SaltLen()
	key, salt := make([]byte, keyLen), make([]byte, saltLen)
	for i := range key {
		key[i] = byte(i * 7)
	}
	for i := range salt {
		salt[i] = byte(i * 3)
	}
	s, err := New(profile, key, salt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := srtp.CreateContext(key, salt, profile)
	if err != nil {
		t.Fatal(err)
	}
	return s, ctx
}

func TestPionOpensWhatWeSeal(t *testing.T) {
	t.Parallel()
	for _, profile := range []srtp.ProtectionProfile{
		srtp.ProtectionProfileAeadAes128Gcm, srtp.ProtectionProfileAeadAes256Gcm, srtp.ProtectionProfileAes128CmHmacSha1_80,
	} {
		s, ctx := pair(t, profile)
		for index := uint64(65530); index < 65545; index++ { // across the rollover
			h := rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: uint16(index), SSRC: 99, Timestamp: 5}
			if err := h.SetExtension(3, []byte{1, 2}); err != nil {
				t.Fatal(err)
			}
			header := make([]byte, h.MarshalSize(), 200)
			if _, err := h.MarshalTo(header); err != nil {
				t.Fatal(err)
			}
			payload := []byte("the payload, shared by all")
			if index%2 == 0 { // already in place
				payload = append(header, payload...)[len(header):]
			}
			// pion starts at rollover 0 whatever the first index: 65530 fits both.
			out, err := s.Seal(header, payload, h.SSRC, index)
			if err != nil {
				t.Fatal(err)
			}
			if len(out) > len(header)+26+MaxOverhead {
				t.Fatalf("%v adds more than MaxOverhead", profile)
			}
			plain, err := ctx.DecryptRTP(nil, out, nil)
			if err != nil {
				t.Fatalf("%v index %d: %v", profile, index, err)
			}
			if !bytes.HasSuffix(plain, []byte("the payload, shared by all")) {
				t.Fatalf("%v index %d: %q", profile, index, plain)
			}
		}
	}
}

func TestSealAllocatesNothing(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{
		srtp.ProtectionProfileAeadAes128Gcm, srtp.ProtectionProfileAes128CmHmacSha1_80,
	} {
		s, _ := pair(t, profile)
		buf, payload := make([]byte, 12, 1400), make([]byte, 1100)
		buf[0] = 0x80
		index := uint64(1)
		if n := testing.AllocsPerRun(1000, func() {
			buf[2], buf[3] = byte(index>>8), byte(index)
			if _, err := s.Seal(buf[:12], payload, 0, index); err != nil {
				t.Fatal(err)
			}
			index++
		}); n != 0 {
			t.Errorf("%v: %v allocations", profile, n)
		}
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	var g Guard
	for _, c := range []struct {
		index uint64
		want  bool
	}{
		{100, true}, {100, false}, {99, true}, {99, false}, {103, true}, {101, true}, {101, false},
		{5000, true}, {5000 - guardWindow, false}, {5001 - guardWindow, true}, {5001 - guardWindow, false}, {103, false},
		{5000 + guardWindow, true}, {5000, false}, {5001, true},
	} {
		if got := g.Use(c.index); got != c.want {
			t.Fatalf("Use(%d) = %v", c.index, got)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	s, _ := pair(b, srtp.ProtectionProfileAeadAes128Gcm)
	buf, payload := make([]byte, 20, 1400), make([]byte, 1100)
	b.ReportAllocs()
	index := uint64(1)
	for b.Loop() {
		s.Seal(buf[:20], payload, 1, index)
		index++
	}
}
