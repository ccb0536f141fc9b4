package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/amphi-sfu/amphi/proto"
)

// Playback is what a playback token of the deployment holds: who may play which stream until when. It is good for
// playing alone.
type Playback struct {
	Room, Stream string
	// Viewer is a peer or user id; empty: nobody said.
	Viewer string
	// Expires is in whole seconds.
	Expires time.Time
}

const (
	playbackVersion = 1
	// maxPlayback bounds a playback token, in bytes.
	maxPlayback = 768
	// playbackDomain keeps signatures of playback tokens apart from others under the same secret.
	playbackDomain = "amphi playback 1\x00"
)

// SealPlayback makes a playback token, signed with the cluster's secret: base64url of version, expiry in seconds (8
// bytes), the three texts each behind its length (1 byte), HMAC-SHA256. A text over 255 bytes is an error of the
// caller's and makes a token that does not open.
func SealPlayback(secret []byte, p Playback) string {
	b := appendTexts(binary.BigEndian.AppendUint64([]byte{playbackVersion}, uint64(p.Expires.Unix())), p.Room, p.Stream, p.Viewer)
	return base64.RawURLEncoding.EncodeToString(append(b, sign(secret, playbackDomain, b)...))
}

// OpenPlayback checks a playback token. Errors are a proto.Error: unauthenticated for one that this cluster did not make,
// token_expired for one past its time.
func OpenPlayback(secret []byte, now time.Time, token string) (Playback, error) {
	bad := refuse("the playback token is not valid here")
	if len(token) > maxPlayback || len(secret) == 0 {
		return Playback{}, bad
	}
	all, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(all) < 1+8+3+sha256.Size {
		return Playback{}, bad
	}
	body, ok := opened(secret, playbackDomain, all)
	if !ok || body[0] != playbackVersion {
		return Playback{}, bad
	}
	p := Playback{Expires: time.Unix(int64(binary.BigEndian.Uint64(body[1:9])), 0)}
	if !takeTexts(body[9:], &p.Room, &p.Stream, &p.Viewer) {
		return Playback{}, bad
	}
	if now.After(p.Expires) {
		return Playback{}, proto.Errorf(proto.TokenExpired, "the playback token has expired")
	}
	return p, nil
}
