// Package seal encrypts SRTP for one receiver (RFC 3711, RFC 7714): straight from the
// shared plaintext of a packet into the memory it is sent from, under an
// explicit 48-bit packet index, so nothing guesses a rollover counter.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// MaxOverhead is how many bytes Seal adds to a packet at most.
const MaxOverhead = 16

// Sealer holds the sending keys towards one receiver. Not safe for concurrent use.
type Sealer struct {
	aead  cipher.AEAD
	salt  [12]byte
	nonce [12]byte

	// legacy encrypts with the profiles that are not AEAD; it follows the
	// rollover counter by itself.
	legacy *srtp.Context
	header rtp.Header
}

// New makes a Sealer from a master key and salt. Any profile that pion/srtp knows
// is taken; only the AES-GCM ones are sealed without a copy.
func New(profile srtp.ProtectionProfile, key, salt []byte) (*Sealer, error) {
	switch profile {
	case srtp.ProtectionProfileAeadAes128Gcm, srtp.ProtectionProfileAeadAes256Gcm:
	default:
		ctx, err := srtp.CreateContext(key, salt, profile)
		if err != nil {
			return nil, fmt.Errorf("making an SRTP context: %w", err)
		}
		return &Sealer{legacy: ctx}, nil
	}
	sessionKey, err := derive(labelKey, key, salt, len(key))
	if err != nil {
		return nil, err
	}
	sessionSalt, err := derive(labelSalt, key, salt, 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(sessionKey)
	if err != nil {
		return nil, fmt.Errorf("making the SRTP cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making the SRTP cipher: %w", err)
	}
	s := &Sealer{aead: aead}
	copy(s.salt[:], sessionSalt)
	return s, nil
}

// Seal appends the encrypted payload, and the tag, to header, which is a marshalled RTP
// header in memory with room for len(payload)+MaxOverhead more; payload may be
// part of that room already, right behind the header. The caller must never seal
// two different packets of one SSRC under one index; a Guard per SSRC helps.
func (s *Sealer) Seal(header, payload []byte, ssrc uint32, index uint64) ([]byte, error) {
	if s.legacy != nil {
		plain := append(header, payload...)
		out, err := s.legacy.EncryptRTP(plain[:0], plain, &s.header)
		if err != nil {
			return nil, fmt.Errorf("encrypting: %w", err)
		}
		return out, nil
	}
	clear(s.nonce[:2])
	binary.BigEndian.PutUint32(s.nonce[2:], ssrc)
	binary.BigEndian.PutUint32(s.nonce[6:], uint32(index>>16))
	binary.BigEndian.PutUint16(s.nonce[10:], uint16(index))
	for i := range s.nonce {
		s.nonce[i] ^= s.salt[i]
	}
	return s.aead.Seal(header, s.nonce[:], payload, header), nil
}

// Labels of RFC 3711 section 4.3.2.
const (
	labelKey  = 0x00
	labelSalt = 0x02
)

// derive is the key derivation function of RFC 3711 section 4.3 with a key
// derivation rate of zero.
func derive(label byte, key, salt []byte, n int) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("deriving SRTP keys: %w", err)
	}
	var in [aes.BlockSize]byte
	if len(salt) > len(in)-2 {
		return nil, errors.New("deriving SRTP keys: salt too long")
	}
	copy(in[:], salt)
	in[7] ^= label
	out := make([]byte, 0, n+aes.BlockSize)
	for i := uint16(0); len(out) < n; i++ {
		binary.BigEndian.PutUint16(in[14:], i)
		out = out[:len(out)+aes.BlockSize]
		block.Encrypt(out[len(out)-aes.BlockSize:], in[:])
	}
	return out[:n], nil
}
