// Package auth makes and checks what proves who somebody is: app, management and playback tokens (RFC 7519),
// and the resume tokens with which a client comes back.
package auth

import (
	"time"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Type is what a token is for, its claim "typ".
type Type string

// The token types of PROTOCOL.md section 1.
const (
	App        Type = "app"
	Management Type = "management"
	Play       Type = "play"
)

// Audience is the claim "aud" of every token.
const Audience = "amphi"

// Limits on tokens.
const (
	// MaxLife is the longest time from "iat" to "exp".
	MaxLife = 90 * 24 * time.Hour
	// Leeway is how far clocks may differ.
	Leeway = 30 * time.Second
	// MaxToken is the longest token, in bytes, that is looked at.
	MaxToken = 4096
)

// Grant is what a valid token says.
type Grant struct {
	Type Type
	// Room is set in app and playback tokens, Role in app tokens. Stream is that of a playback token; empty: all of the room.
	Room, Role, Stream string
	// UserID and Name are optional.
	UserID, Name string
	// ID is the claim "jti", optional.
	ID string
	// KeyID is the key that signed it.
	KeyID     string
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// Keys finds API keys by id. It is called from many goroutines and must not block for long.
type Keys interface {
	Key(id string) (*pb.ApiKey, bool)
}
