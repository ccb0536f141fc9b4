package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/amphi-sfu/amphi/proto"
)

// Resume is what a resume token holds: which peer of which session its bearer was, and where.
type Resume struct {
	Room      string
	PeerID    string
	SessionID string
	// Node is the node that terminated the client and may still have its transport.
	Node string
	// Expires is in whole seconds.
	Expires time.Time
}

const (
	resumeVersion = 1
	// maxResume bounds a resume token, in bytes.
	maxResume = 1024
	// resumeDomain keeps signatures of resume tokens apart from others under the same secret.
	resumeDomain = "amphi resume 1\x00"
)

// SealResume makes a resume token, signed with the cluster's secret: base64url of
// version, expiry in seconds (8 bytes), the four texts each behind its length (1 byte), HMAC-SHA256.
// A text over 255 bytes is an error of the caller's and makes a token that does not open.
func SealResume(secret []byte, r Resume) string {
	b := appendTexts(binary.BigEndian.AppendUint64([]byte{resumeVersion}, uint64(r.Expires.Unix())), r.Room, r.PeerID, r.SessionID, r.Node)
	return base64.RawURLEncoding.EncodeToString(append(b, sign(secret, resumeDomain, b)...))
}

// appendTexts writes each text behind its length.
func appendTexts(b []byte, texts ...string) []byte {
	for _, s := range texts {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// takeTexts reads back what appendTexts wrote, to the last byte.
func takeTexts(b []byte, texts ...*string) bool {
	for _, s := range texts {
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return false
		}
		end := 1 + int(b[0])
		*s, b = string(b[1:end]), b[end:]
	}
	return len(b) == 0
}

func sign(secret []byte, domain string, body []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(domain))
	h.Write(body)
	return h.Sum(nil)
}

// opened is the body in front of a good signature.
func opened(secret []byte, domain string, all []byte) ([]byte, bool) {
	body, mac := all[:len(all)-sha256.Size], all[len(all)-sha256.Size:]
	return body, hmac.Equal(mac, sign(secret, domain, body))
}

// OpenResume checks a resume token. Errors are a proto.Error: unauthenticated for one that this cluster did not
// make, resume_expired for one past its time.
func OpenResume(secret []byte, now time.Time, token string) (Resume, error) {
	bad := refuse("the resume token is not valid here")
	if len(token) > maxResume || len(secret) == 0 {
		return Resume{}, bad
	}
	all, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(all) < 1+8+4+sha256.Size {
		return Resume{}, bad
	}
	body, ok := opened(secret, resumeDomain, all)
	if !ok || body[0] != resumeVersion {
		return Resume{}, bad
	}
	r := Resume{Expires: time.Unix(int64(binary.BigEndian.Uint64(body[1:9])), 0)}
	if !takeTexts(body[9:], &r.Room, &r.PeerID, &r.SessionID, &r.Node) {
		return Resume{}, bad
	}
	if now.After(r.Expires) {
		return Resume{}, proto.Errorf(proto.ResumeExpired, "the resume token has expired; join again")
	}
	return r, nil
}
