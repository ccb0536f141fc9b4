package ice

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Sizes of RFC 8489 sections 5 and 14.
const (
	headerSize    = 20
	cookie        = 0x2112a442
	integritySize = 20
	blockSize     = 64 // of SHA-1
	// MaxMessage bounds the STUN messages that are read, in bytes.
	MaxMessage = 1280
)

// Types of messages: the Binding method in its classes.
const (
	bindingRequest    = 0x0001
	bindingIndication = 0x0011
	bindingSuccess    = 0x0101
	bindingError      = 0x0111
)

// Attributes of RFC 8489 section 18.3 and RFC 8445 section 16.1.
const (
	attrUsername         = 0x0006
	attrIntegrity        = 0x0008
	attrErrorCode        = 0x0009
	attrUnknown          = 0x000a
	attrXORMappedAddress = 0x0020
	attrPriority         = 0x0024
	attrUseCandidate     = 0x0025
	attrFingerprint      = 0x8028
	attrControlled       = 0x8029
	attrControlling      = 0x802a
)

// Error codes of RFC 8489 section 14.8 and RFC 8445 section 16.2.
const (
	codeUnknownAttribute = 420
	codeRoleConflict     = 487
)

const fingerprintXOR = 0x5354554e

// transaction is a message's transaction id.
type transaction [12]byte

// Message is what of a received STUN message matters to ICE. It refers to the bytes it was
// parsed from.
type Message struct {
	raw          []byte
	kind         uint16
	id           transaction
	username     []byte
	integrityAt  int // offset of MESSAGE-INTEGRITY, 0 without
	useCandidate bool
	controlled   bool      // has ICE-CONTROLLED
	unknown      [8]uint16 // attributes that have to be understood and are not
	unknowns     int
}

// IsSTUN says that a datagram may be a STUN message (RFC 7983, RFC 8489 section 5).
func IsSTUN(b []byte) bool {
	return len(b) >= headerSize && b[0] < 4 && binary.BigEndian.Uint32(b[4:]) == cookie
}

// Ufrag is the part of a Binding request's user name that names the session it is for; nil
// when m is no such request. It is part of the parsed bytes.
func (m *Message) Ufrag() []byte {
	if m.kind != bindingRequest {
		return nil
	}
	return localPart(m.username)
}

// Answers returns the id of the agent (Config.ID) whose check m answers; false when m is
// no Binding response.
func (m *Message) Answers() (id uint32, ok bool) {
	return binary.BigEndian.Uint32(m.id[:]), m.kind == bindingSuccess || m.kind == bindingError
}

// localPart is what stands before the colon of a user name (RFC 8445 section 7.2.2).
func localPart(username []byte) []byte {
	for i, c := range username {
		if c == ':' {
			return username[:i]
		}
	}
	return nil
}

// Parse reads a message, which b must hold as long as m is used. The fingerprint, where there is one, must be right; integrity is
// for the caller to verify. Attributes behind the integrity are not looked at, but for
// the fingerprint (RFC 8489 section 14.5).
func (m *Message) Parse(b []byte) Drop {
	if !IsSTUN(b) || len(b) > MaxMessage || len(b)%4 != 0 || int(binary.BigEndian.Uint16(b[2:]))+headerSize != len(b) {
		return DropMalformed
	}
	*m = Message{raw: b, kind: binary.BigEndian.Uint16(b), id: transaction(b[8:20])}
	for at := headerSize; at < len(b); {
		if len(b)-at < 4 {
			return DropMalformed
		}
		kind, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		next := at + 4 + (n+3)&^3
		if next > len(b) {
			return DropMalformed
		}
		if drop := m.attribute(kind, b[at+4:at+4+n], at, next); drop != DropNone {
			return drop
		}
		at = next
	}
	return DropNone
}

func (m *Message) attribute(kind uint16, value []byte, at, next int) Drop {
	if kind == attrFingerprint {
		if len(value) != 4 || next != len(m.raw) || binary.BigEndian.Uint32(value) != fingerprint(m.raw[:at]) {
			return DropMalformed
		}
		return DropNone
	}
	if m.integrityAt != 0 {
		return DropNone
	}
	switch kind {
	case attrUsername:
		m.username = value
	case attrIntegrity:
		if len(value) != integritySize {
			return DropMalformed
		}
		m.integrityAt = at
	case attrUseCandidate:
		m.useCandidate = true
	case attrControlled:
		if len(value) != 8 {
			return DropMalformed
		}
		m.controlled = true
	case attrPriority, attrErrorCode, attrUnknown, attrXORMappedAddress:
	default:
		if kind < 0x8000 && m.unknowns < len(m.unknown) {
			m.unknown[m.unknowns] = kind
			m.unknowns++
		}
	}
	return DropNone
}

// authentic verifies MESSAGE-INTEGRITY with a short-term password (RFC 8489 section 9.1).
func (m *Message) authentic(password string) bool {
	if m.integrityAt == 0 {
		return false
	}
	// The length in the header counts as if the message ended with the integrity.
	var header [headerSize]byte
	copy(header[:], m.raw)
	binary.BigEndian.PutUint16(header[2:], uint16(m.integrityAt+4+integritySize-headerSize))
	sum := hmacSHA1(password, header[:], m.raw[headerSize:m.integrityAt])
	return subtle.ConstantTimeCompare(sum[:], m.raw[m.integrityAt+4:m.integrityAt+4+integritySize]) == 1
}

// hmacSHA1 is HMAC-SHA1 (RFC 2104) of two pieces, without allocating: passwords are
// shorter than a block, messages than MaxMessage.
func hmacSHA1(password string, a, b []byte) [sha1.Size]byte {
	var key [blockSize]byte
	if len(password) > blockSize {
		sum := sha1.Sum([]byte(password))
		copy(key[:], sum[:])
	} else {
		copy(key[:], password)
	}
	var room [blockSize + MaxMessage]byte
	inner := append(room[:0], key[:]...)
	for i := range inner {
		inner[i] ^= 0x36
	}
	inner = append(append(inner, a...), b...)
	sum := sha1.Sum(inner)
	var outer [blockSize + sha1.Size]byte
	for i := range key {
		outer[i] = key[i] ^ 0x5c
	}
	copy(outer[blockSize:], sum[:])
	return sha1.Sum(outer[:])
}

// fingerprint is that of a message which ends with b (RFC 8489 section 14.7).
func fingerprint(b []byte) uint32 { return crc32.ChecksumIEEE(b) ^ fingerprintXOR }

// builder appends one message to a buffer.
type builder struct {
	b     []byte
	start int
}

func begin(b []byte, kind uint16, id transaction) builder {
	m := builder{b: b, start: len(b)}
	m.b = binary.BigEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, 0, 0)
	m.b = binary.BigEndian.AppendUint32(m.b, cookie)
	m.b = append(m.b, id[:]...)
	return m
}

// add begins an attribute of n bytes, whose value the caller appends and pads.
func (m *builder) add(kind uint16, n int) {
	m.b = binary.BigEndian.AppendUint16(m.b, kind)
	m.b = binary.BigEndian.AppendUint16(m.b, uint16(n))
}

func (m *builder) pad() {
	for (len(m.b)-m.start)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

// addAddress adds XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
func (m *builder) addAddress(a netip.AddrPort) {
	xorPort := a.Port() ^ cookie>>16
	if a.Addr().Is4() {
		m.add(attrXORMappedAddress, 8)
		m.b = append(m.b, 0, 1, byte(xorPort>>8), byte(xorPort))
		ip := a.Addr().As4()
		m.b = binary.BigEndian.AppendUint32(m.b, binary.BigEndian.Uint32(ip[:])^cookie)
		return
	}
	m.add(attrXORMappedAddress, 20)
	m.b = append(m.b, 0, 2, byte(xorPort>>8), byte(xorPort))
	ip := a.Addr().As16()
	for i, mask := range m.b[m.start+4 : m.start+headerSize] { // cookie and transaction id
		m.b = append(m.b, ip[i]^mask)
	}
}

// finish adds MESSAGE-INTEGRITY and FINGERPRINT and returns the buffer.
func (m *builder) finish(password string) []byte {
	m.setLength(4 + integritySize)
	sum := hmacSHA1(password, m.b[m.start:], nil)
	m.add(attrIntegrity, integritySize)
	m.b = append(m.b, sum[:]...)
	m.setLength(8)
	crc := fingerprint(m.b[m.start:])
	m.add(attrFingerprint, 4)
	m.b = binary.BigEndian.AppendUint32(m.b, crc)
	return m.b
}

// setLength writes the header's length as it will be with more bytes.
func (m *builder) setLength(more int) {
	binary.BigEndian.PutUint16(m.b[m.start+2:], uint16(len(m.b)-m.start-headerSize+more))
}
