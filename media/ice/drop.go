package ice

import "encoding/binary"

// Drop is a reason for dropping a STUN message.
type Drop uint8

// The reasons.
const (
	DropNone         Drop = iota
	DropMalformed         // not a well-formed STUN message, or a wrong fingerprint
	DropMethod            // of no use to ICE
	DropUnknownUfrag      // names no session
	DropUnauthentic       // MESSAGE-INTEGRITY is missing or wrong
	DropUnexpected        // a response to nothing that was asked
)

// String is the reason's name in metrics.
func (d Drop) String() string {
	return [...]string{"none", "stun_malformed", "stun_method", "stun_ufrag", "stun_integrity", "stun_unexpected"}[d]
}

// refuse builds the error response to a request (RFC 8489 section 6.3.1).
func refuse(b []byte, m *Message, password string, code int, reason string) []byte {
	answer := begin(b, bindingError, m.id)
	answer.add(attrErrorCode, 4+len(reason))
	answer.b = append(answer.b, 0, 0, byte(code/100), byte(code%100))
	answer.b = append(answer.b, reason...)
	answer.pad()
	if code == codeUnknownAttribute {
		answer.add(attrUnknown, 2*m.unknowns)
		for _, kind := range m.unknown[:m.unknowns] {
			answer.b = binary.BigEndian.AppendUint16(answer.b, kind)
		}
		answer.pad()
	}
	return answer.finish(password)
}
