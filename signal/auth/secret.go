package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"

	"github.com/amphi-sfu/amphi/proto"
)

// urlDomain separates the keys of sealed URLs from everything else that the cluster's secret is used for.
const urlDomain = "amphi push url v1 "

// SealURL encrypts a URL that holds secrets, so that it may be kept and travel where these must not be seen: AES-256-GCM, with a
// nonce that follows from the URL. Equal URLs give equal bytes, which tells nothing but that they are equal.
func SealURL(secret []byte, url string) ([]byte, error) {
	aead, err := urlCipher(secret)
	if err != nil {
		return nil, err
	}
	nonce := derive(secret, "nonce "+url)[:aead.NonceSize()]
	return aead.Seal(nonce, nonce, []byte(url), nil), nil
}

// OpenURL is what SealURL was given. Errors are a proto.Error: unavailable where the cluster has no secret yet,
// invalid_argument for what was not sealed with it.
func OpenURL(secret, sealed []byte) (string, error) {
	aead, err := urlCipher(secret)
	if err != nil {
		return "", err
	}
	bad := proto.Errorf(proto.InvalidArgument, "the URL was not sealed by this cluster")
	if len(sealed) < aead.NonceSize() {
		return "", bad
	}
	url, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], nil)
	if err != nil {
		return "", bad
	}
	return string(url), nil
}

func urlCipher(secret []byte) (cipher.AEAD, error) {
	if len(secret) == 0 {
		return nil, proto.Errorf(proto.Unavailable, "the cluster has no secret yet")
	}
	block, err := aes.NewCipher(derive(secret, "key"))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func derive(secret []byte, what string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(urlDomain + what))
	return h.Sum(nil)
}
