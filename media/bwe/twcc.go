package bwe

import (
	"encoding/binary"
	"errors"
	"time"
)

// MaxStatuses is the most packets one feedback report may speak of. Browsers
// report every 50 to 100 ms; this is 5 s of 10 Mbit/s.
const MaxStatuses = 8192

// Errors of ParseTWCC.
var (
	ErrNotTWCC   = errors.New("bwe: not a transport-wide feedback packet")
	ErrTruncated = errors.New("bwe: feedback ends early")
	ErrTooMany   = errors.New("bwe: feedback speaks of too many packets")
	ErrReserved  = errors.New("bwe: feedback has a reserved packet status")
)

// Status is what a feedback report says of one packet.
type Status struct {
	Received bool
	// Arrival is the time of arrival, on the receiver's clock, from the report's
	// Reference; meaningless unless Received.
	Arrival time.Duration
}

// Report is one parsed feedback packet.
type Report struct {
	// Base is the transport-wide sequence of the first status.
	Base uint16
	// Count is the report's own running number.
	Count uint8
	// Reference is the receiver's clock at the start of the report; it wraps
	// after 2^24 × 64 ms.
	Reference time.Duration
	// Statuses speak of Base, Base+1 and so on.
	Statuses []Status
}

const (
	twccHeader = 20 // with the RTCP header
	twccFormat = 15
	rtpfb      = 205
	deltaUnit  = 250 * time.Microsecond
	refUnit    = 64 * time.Millisecond
	refWrap    = (1 << 24) * refUnit
)

// ParseTWCC parses one RTCP packet with its header
// (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1) into r, whose
// Statuses are reused: no allocation in steady state.
func ParseTWCC(b []byte, r *Report) error {
	r.Statuses = r.Statuses[:0]
	if len(b) < twccHeader {
		return ErrTruncated
	}
	if b[0]>>6 != 2 || b[0]&0x1f != twccFormat || b[1] != rtpfb {
		return ErrNotTWCC
	}
	size := (int(binary.BigEndian.Uint16(b[2:])) + 1) * 4
	if size > len(b) || size < twccHeader {
		return ErrTruncated
	}
	b = b[:size]
	if b[0]&0x20 != 0 { // padding, RFC 3550 section 6.4.1
		pad := int(b[size-1])
		if pad == 0 || pad > size-twccHeader {
			return ErrTruncated
		}
		b = b[:size-pad]
	}
	r.Base = binary.BigEndian.Uint16(b[12:])
	count := int(binary.BigEndian.Uint16(b[14:]))
	r.Reference = time.Duration(uint32(b[16])<<16|uint32(b[17])<<8|uint32(b[18])) * refUnit
	r.Count = b[19]
	if count > MaxStatuses {
		return ErrTooMany
	}
	deltas, err := parseChunks(b[twccHeader:], count, r)
	if err != nil {
		r.Statuses = r.Statuses[:0]
		return err
	}
	if err := parseDeltas(deltas, r); err != nil {
		r.Statuses = r.Statuses[:0]
		return err
	}
	return nil
}

// Symbols of a status chunk. While a report is parsed they sit in
// Status.Arrival of the packets that arrived.
const (
	symbolLost  = 0
	symbolSmall = 1
	symbolLarge = 2
)

// parseChunks fills count statuses and returns what follows the chunks.
func parseChunks(b []byte, count int, r *Report) ([]byte, error) {
	for len(r.Statuses) < count {
		if len(b) < 2 {
			return nil, ErrTruncated
		}
		chunk := binary.BigEndian.Uint16(b)
		b = b[2:]
		left := count - len(r.Statuses)
		switch {
		case chunk>>15 == 0: // run length
			n := min(int(chunk&0x1fff), left)
			if n == 0 {
				return nil, ErrTruncated // a run of nothing would never end
			}
			for range n {
				if err := r.add(chunk >> 13 & 3); err != nil {
					return nil, err
				}
			}
		case chunk>>14&1 == 0: // 14 symbols of one bit
			for i := range min(14, left) {
				if err := r.add(chunk >> (13 - i) & 1); err != nil {
					return nil, err
				}
			}
		default: // 7 symbols of two bits
			for i := range min(7, left) {
				if err := r.add(chunk >> (12 - 2*i) & 3); err != nil {
					return nil, err
				}
			}
		}
	}
	return b, nil
}

func (r *Report) add(symbol uint16) error {
	if symbol > symbolLarge {
		return ErrReserved
	}
	r.Statuses = append(r.Statuses, Status{Received: symbol != symbolLost, Arrival: time.Duration(symbol)})
	return nil
}

func parseDeltas(b []byte, r *Report) error {
	var at time.Duration
	for i := range r.Statuses {
		s := &r.Statuses[i]
		if !s.Received {
			continue
		}
		if s.Arrival == symbolSmall {
			if len(b) < 1 {
				return ErrTruncated
			}
			at += time.Duration(b[0]) * deltaUnit
			b = b[1:]
		} else {
			if len(b) < 2 {
				return ErrTruncated
			}
			at += time.Duration(int16(binary.BigEndian.Uint16(b))) * deltaUnit
			b = b[2:]
		}
		s.Arrival = at
	}
	return nil
}
