package wire

import "encoding/binary"

// RTP is one packet of an input. Packet aliases the frame.
type RTP struct {
	Input  uint32
	Packet []byte // RFC 3550 section 5.1, header included
}

// RTPHeader is the fixed part of an RTP header, for those who don't have the
// packet's own bytes any more.
type RTPHeader struct {
	PayloadType    uint8
	Marker         bool
	SequenceNumber uint16
	Timestamp      uint32
	SSRC           uint32
}

// AppendRTP appends an RTP frame made of a header and a payload to dst.
func AppendRTP(dst []byte, input uint32, h RTPHeader, payload []byte) ([]byte, error) {
	if 4+12+len(payload) > MaxRTP {
		return dst, malformed(TypeRTP, "packet too long")
	}
	from := len(dst)
	dst = binary.BigEndian.AppendUint32(open(dst, TypeRTP), input)
	pt := h.PayloadType & 0x7f
	if h.Marker {
		pt |= 0x80
	}
	dst = append(dst, 2<<6, pt)
	dst = binary.BigEndian.AppendUint16(dst, h.SequenceNumber)
	dst = binary.BigEndian.AppendUint32(dst, h.Timestamp)
	dst = binary.BigEndian.AppendUint32(dst, h.SSRC)
	return seal(append(dst, payload...), from), nil
}

// RTP decodes the body of a TypeRTP frame; the packet itself isn't looked at.
func (f Frame) RTP() (RTP, error) {
	if f.Type != TypeRTP || len(f.Body) < 4 {
		return RTP{}, malformed(f.Type, "no packet")
	}
	return RTP{Input: binary.BigEndian.Uint32(f.Body), Packet: f.Body[4:]}, nil
}

// SenderReport maps a stream's RTP clock to its sender's wall clock (RFC 3550
// section 6.4.1).
type SenderReport struct {
	Input uint32
	SSRC  uint32
	NTP   uint64 // 64-bit NTP format
	RTP   uint32
}

// AppendSenderReport appends a SenderReport frame to dst.
func AppendSenderReport(dst []byte, r SenderReport) []byte {
	from := len(dst)
	dst = binary.BigEndian.AppendUint32(open(dst, TypeSenderReport), r.Input)
	dst = binary.BigEndian.AppendUint32(dst, r.SSRC)
	dst = binary.BigEndian.AppendUint64(dst, r.NTP)
	return seal(binary.BigEndian.AppendUint32(dst, r.RTP), from)
}

// SenderReport decodes the body of a TypeSenderReport frame.
func (f Frame) SenderReport() (SenderReport, error) {
	if f.Type != TypeSenderReport || len(f.Body) != 20 {
		return SenderReport{}, malformed(f.Type, "not a sender report")
	}
	return SenderReport{
		Input: binary.BigEndian.Uint32(f.Body),
		SSRC:  binary.BigEndian.Uint32(f.Body[4:]),
		NTP:   binary.BigEndian.Uint64(f.Body[8:]),
		RTP:   binary.BigEndian.Uint32(f.Body[16:]),
	}, nil
}

// VideoAU is one encoded picture of one variant. There are no B-pictures:
// decoding order is presentation order. SPS and PPS precede every IDR.
type VideoAU struct {
	Variant int
	Key     bool   // IDR
	Tick    int64  // ticks since the epoch
	TimeNS  int64  // wall-clock time of the tick, in UNIX nanoseconds
	Data    []byte // H.264 Annex B; aliases the frame
}

// AppendVideoAU appends a VideoAU frame to dst.
func AppendVideoAU(dst []byte, au VideoAU) ([]byte, error) {
	if len(au.Data) > MaxVideoAU-videoHead {
		return dst, malformed(TypeVideoAU, "access unit too long")
	}
	from := len(dst)
	var flags byte
	if au.Key {
		flags = 1
	}
	dst = append(open(dst, TypeVideoAU), byte(au.Variant), flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(au.Tick))
	dst = binary.BigEndian.AppendUint64(dst, uint64(au.TimeNS))
	return seal(append(dst, au.Data...), from), nil
}

// VideoAU decodes the body of a TypeVideoAU frame.
func (f Frame) VideoAU() (VideoAU, error) {
	if f.Type != TypeVideoAU || len(f.Body) <= videoHead {
		return VideoAU{}, malformed(f.Type, "no access unit")
	}
	return VideoAU{
		Variant: int(f.Body[0]),
		Key:     f.Body[1]&1 != 0,
		Tick:    int64(binary.BigEndian.Uint64(f.Body[2:])),
		TimeNS:  int64(binary.BigEndian.Uint64(f.Body[10:])),
		Data:    f.Body[videoHead:],
	}, nil
}

// AudioAU is one AAC-LC frame of 1,024 samples at 48 kHz.
type AudioAU struct {
	Samples int64  // of the first sample, since the epoch; the encoder's delay is taken off
	TimeNS  int64  // wall-clock time of the first sample, in UNIX nanoseconds
	Data    []byte // raw data block without ADTS; aliases the frame
}

// AppendAudioAU appends an AudioAU frame to dst.
func AppendAudioAU(dst []byte, au AudioAU) ([]byte, error) {
	if len(au.Data) > MaxAudioAU-audioHead {
		return dst, malformed(TypeAudioAU, "access unit too long")
	}
	from := len(dst)
	dst = binary.BigEndian.AppendUint64(open(dst, TypeAudioAU), uint64(au.Samples))
	dst = binary.BigEndian.AppendUint64(dst, uint64(au.TimeNS))
	return seal(append(dst, au.Data...), from), nil
}

// AudioAU decodes the body of a TypeAudioAU frame.
func (f Frame) AudioAU() (AudioAU, error) {
	if f.Type != TypeAudioAU || len(f.Body) <= audioHead {
		return AudioAU{}, malformed(f.Type, "no access unit")
	}
	return AudioAU{
		Samples: int64(binary.BigEndian.Uint64(f.Body)),
		TimeNS:  int64(binary.BigEndian.Uint64(f.Body[8:])),
		Data:    f.Body[audioHead:],
	}, nil
}

// KeyframeRequest asks for a keyframe of an input, sent at most about twice a
// second per input while one is missing.
type KeyframeRequest struct {
	Input uint32
	SSRC  uint32 // 0 when no packet was seen yet
}

// AppendKeyframeRequest appends a KeyframeRequest frame to dst.
func AppendKeyframeRequest(dst []byte, r KeyframeRequest) []byte {
	from := len(dst)
	dst = binary.BigEndian.AppendUint32(open(dst, TypeKeyframeRequest), r.Input)
	return seal(binary.BigEndian.AppendUint32(dst, r.SSRC), from)
}

// KeyframeRequest decodes the body of a TypeKeyframeRequest frame.
func (f Frame) KeyframeRequest() (KeyframeRequest, error) {
	if f.Type != TypeKeyframeRequest || len(f.Body) != 8 {
		return KeyframeRequest{}, malformed(f.Type, "not an input")
	}
	return KeyframeRequest{binary.BigEndian.Uint32(f.Body), binary.BigEndian.Uint32(f.Body[4:])}, nil
}
