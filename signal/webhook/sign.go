package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Headers of Standard Webhooks.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const secretPrefix = "whsec_"

// ParseSecret answers the bytes of a secret: those behind "whsec_" in base64, else the text's. They must be 24 to 64.
func ParseSecret(s string) ([]byte, error) {
	secret := []byte(s)
	if rest, ok := strings.CutPrefix(s, secretPrefix); ok {
		var err error
		if secret, err = base64.StdEncoding.DecodeString(rest); err != nil {
			return nil, errors.New("the secret is not base64 behind whsec_")
		}
	}
	if len(secret) < 24 || len(secret) > 64 {
		return nil, fmt.Errorf("the secret has %d bytes; 24 to 64 are possible", len(secret))
	}
	return secret, nil
}

// Sign is the signature of one attempt: "v1," and base64 of HMAC-SHA256 over id, seconds since 1970 and body.
func Sign(secret []byte, id string, seconds int64, body []byte) string {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "%s.%d.", id, seconds)
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// keyOf names a target in the journal, which holds no URL.
func keyOf(url string) string {
	sum := sha256.Sum256([]byte(url))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}
