package proto

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

// Limits of what clients may send. Bytes are of UTF-8.
const (
	MaxRoomName      = 64
	MaxUserID        = 128
	MaxPeerName      = 128
	MaxMetadata      = 4096
	MaxMessageText   = 4096
	MaxMessageType   = 64
	MaxStoreKey      = 128
	MaxSDP           = 64 << 10
	MaxSections      = 100
	MaxClientMessage = 96 << 10
	MaxPushURL       = 2048
)

// Prefixes of identifiers; an identifier tells what it names.
const (
	PeerPrefix    = "pe_"
	TrackPrefix   = "tr_"
	SessionPrefix = "se_"
	RequestPrefix = "rq_"
	NodePrefix    = "no_"
	OutputPrefix  = "ou_"
	AssetPrefix   = "as_"
	HookPrefix    = "wh_"
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID makes an identifier with 80 random bits behind the prefix.
func NewID(prefix string) string {
	var b [10]byte
	// crypto/rand.Read never fails since Go 1.24.
	_, _ = rand.Read(b[:])
	return prefix + base32Lower.EncodeToString(b[:])
}

// ValidRoomName tells whether name has 1 to MaxRoomName of the characters a-z, A-Z, 0-9, ".", "-" and "_".
func ValidRoomName(name string) bool {
	if name == "" || len(name) > MaxRoomName {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return false
		}
		return true
	}) < 0
}
