package record

import (
	"errors"
	"time"
)

// When a Sealer changes its key.
const (
	// RekeyAfter is how long a key is used, RekeyRecords how many records it seals at most:
	// half of what RFC 9001 appendix B.1.1 allows for records of this length.
	RekeyAfter   = time.Hour
	RekeyRecords = 1 << 27
)

// Errors of a Sealer.
var (
	ErrExhausted = errors.New("record: packet numbers are used up")
	ErrTooLong   = errors.New("record: payload too long")
)

// Sealer encrypts the records of one direction of one connection. It numbers them itself, so
// that no number can be used twice. Not safe for concurrent use.
type Sealer struct {
	key   *phaseKey
	conn  uint32
	phase uint8
	next  uint64 // packet number
	since int64  // when the present key was taken into use; 0 before the first record
	first uint64 // number of the first record under it
	nonce [nonceSize]byte
}

// NewSealer makes a Sealer from a direction's first secret and the connection id that the
// other end has chosen.
func NewSealer(secret []byte, conn uint32) (*Sealer, error) {
	key, err := newPhaseKey(secret)
	if err != nil {
		return nil, err
	}
	return &Sealer{key: key, conn: conn}, nil
}

// Next is the packet number of the next record.
func (s *Sealer) Next() uint64 { return s.next }

// Phase is the present key's running number, modulo 256.
func (s *Sealer) Phase() uint8 { return s.phase }

// Seal appends one record to dst, which must not overlap payload. now is in nanoseconds of a
// monotonic clock and decides about a change of key. Nothing is allocated where dst has room,
// but when the key changes.
func (s *Sealer) Seal(dst []byte, t Type, label uint32, ext uint64, payload []byte, now int64) ([]byte, error) {
	switch {
	case len(payload) > MaxPayload:
		return dst, ErrTooLong
	case s.next > MaxNumber:
		return dst, ErrExhausted
	}
	if s.since == 0 {
		s.since = max(now, 1)
	}
	if now-s.since >= int64(RekeyAfter) || s.next-s.first >= RekeyRecords {
		if err := s.Rekey(now); err != nil {
			return dst, err
		}
	}
	at := len(dst)
	var header [HeaderSize]byte
	Header{Type: t, Phase: s.phase, Number: s.next, Label: label, Ext: ext & MaxExt, Conn: s.conn}.put(header[:])
	dst = append(dst, header[:]...)
	s.key.nonce(&s.nonce, s.next)
	s.next++
	return s.key.aead.Seal(dst, s.nonce[:], payload, dst[at:at+HeaderSize]), nil
}

// Rekey goes on with the next phase's key.
func (s *Sealer) Rekey(now int64) error {
	key, err := s.key.after()
	if err != nil {
		return err
	}
	s.key, s.since, s.first = key, max(now, 1), s.next
	s.phase++
	return nil
}
