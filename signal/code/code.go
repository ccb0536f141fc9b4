// Package code makes and reads room codes, "abc-defg-hij": short words that stand for a room and a role.
package code

import (
	"crypto/rand"
	"strings"
)

// letters are those that nobody confuses, neither read nor heard: no i, l and o, and no vowel besides e and u.
const letters = "bcdefghjkmnpqrstuvwxyz"

// groups are the lengths between the dashes; 22^10 codes are 44 bits.
const (
	first, second, third = 3, 4, 3
	length               = first + second + third
)

// New makes a code from crypto/rand. Whether it is taken already is for the caller to see.
func New() string {
	var code, random [length]byte
	for i := range code {
		code[i] = letters[draw(random[:1])]
	}
	return dashed(string(code[:]))
}

// draw picks an index of letters, each equally likely.
func draw(b []byte) int {
	const fair = 256 - 256%len(letters)
	for {
		// crypto/rand.Read never fails since Go 1.24.
		_, _ = rand.Read(b)
		if int(b[0]) < fair {
			return int(b[0]) % len(letters)
		}
	}
}

func dashed(s string) string { return s[:first] + "-" + s[first:first+second] + "-" + s[first+second:] }

// Parse brings a code that somebody typed into its one form: upper case, spaces and missing dashes are forgiven.
// False: it cannot be a code. Letters that New does not use are allowed, so that codes may be imported.
func Parse(typed string) (string, bool) {
	if len(typed) > 64 {
		return "", false
	}
	var b strings.Builder
	for _, r := range strings.ToLower(typed) {
		switch {
		case r >= 'a' && r <= 'z':
			b.WriteRune(r)
		case r == '-' || r == ' ':
		default:
			return "", false
		}
	}
	if b.Len() != length {
		return "", false
	}
	return dashed(b.String()), true
}
