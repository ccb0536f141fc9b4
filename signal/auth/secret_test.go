package auth_test

import (
	"bytes"
	"testing"

	"github.com/amphi-sfu/amphi/proto"
	"github.com/amphi-sfu/amphi/signal/auth"
)

func TestSealedURL(t *testing.T) {
	t.Parallel()
	key, url := []byte("0123456789abcdef0123456789abcdef"), "rtmp://live.example/app/secret-key"
	sealed, err := auth.SealURL(key, url)
	if err != nil || bytes.Contains(sealed, []byte("secret")) || bytes.Contains(sealed, []byte("live")) {
		t.Fatalf("%q, %v", sealed, err)
	}
	if again, _ := auth.SealURL(key, url); !bytes.Equal(sealed, again) {
		t.Error("the same URL is sealed differently")
	}
	if other, _ := auth.SealURL(key, url+"2"); bytes.Equal(sealed[:12], other[:12]) {
		t.Error("another URL has the same nonce")
	}
	if got, err := auth.OpenURL(key, sealed); err != nil || got != url {
		t.Errorf("%q, %v", got, err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := auth.OpenURL(key, bad); proto.CodeOf(err) != proto.InvalidArgument {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
	}
	if _, err := auth.OpenURL([]byte("other"), sealed); proto.CodeOf(err) != proto.InvalidArgument {
		t.Errorf("another secret: %v", err)
	}
	if _, err := auth.OpenURL(key, nil); proto.CodeOf(err) != proto.InvalidArgument {
		t.Errorf("nothing: %v", err)
	}
	if _, err := auth.SealURL(nil, url); proto.CodeOf(err) != proto.Unavailable {
		t.Errorf("no secret: %v", err)
	}
}

func FuzzOpenURL(f *testing.F) {
	key := []byte("0123456789abcdef0123456789abcdef")
	sealed, _ := auth.SealURL(key, "rtmp://a/b")
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		url, err := auth.OpenURL(key, sealed)
		if again, _ := auth.SealURL(key, url); err == nil && !bytes.Equal(again, sealed) {
			t.Fatalf("%x is %q, which is sealed as %x", sealed, url, again)
		}
	})
}
