// Package codec knows the codecs that are forwarded: their names in SDP, their
// router-wide payload types, and as much of their payload formats as choosing
// and rewriting packets needs. It never decodes media.
package codec

import (
	"slices"
	"strconv"
	"strings"
)

// Kind is audio or video.
type Kind uint8

// Kinds.
const (
	Audio Kind = iota + 1
	Video
)

// String returns the media name of SDP.
func (k Kind) String() string {
	switch k {
	case Audio:
		return "audio"
	case Video:
		return "video"
	}
	return "unknown"
}

// ParseKind is the reverse of String; ok is false for anything else.
func ParseKind(s string) (k Kind, ok bool) {
	switch s {
	case "audio":
		return Audio, true
	case "video":
		return Video, true
	}
	return 0, false
}

// Name identifies a payload format.
type Name uint8

// Names.
const (
	Opus Name = iota + 1
	VP8
	H264
	VP9
	AV1
)

// String returns the encoding name of a=rtpmap.
func (n Name) String() string {
	switch n {
	case Opus:
		return "opus"
	case VP8:
		return "VP8"
	case H264:
		return "H264"
	case VP9:
		return "VP9"
	case AV1:
		return "AV1"
	}
	return "unknown"
}

// Profile distinguishes streams of one format that not every decoder of it can decode.
type Profile uint8

// Profiles: of H.264 by what a decoder must be capable of, and VP9's with 10 bits. NoProfile
// is that of other codecs and the ordinary one of VP9 and AV1, number 0.
const (
	NoProfile Profile = iota
	ConstrainedBaseline
	Baseline
	Main
	High
	Profile2
)

// Codec is a payload format on the router. Values are comparable; the zero value
// stands for a codec that is not supported.
type Codec struct {
	Name      Name
	Profile   Profile
	ClockRate uint32
	// PayloadType is the router-wide one.
	PayloadType uint8
}

// Kind says whether the codec carries audio or video.
func (c Codec) Kind() Kind {
	if c.Name == Opus {
		return Audio
	}
	return Video
}

// String returns for example "opus" or "H264 constrained-baseline".
func (c Codec) String() string {
	if c.Profile == NoProfile {
		return c.Name.String()
	}
	return c.Name.String() + " " + [...]string{"", "constrained-baseline", "baseline", "main", "high", "profile-2"}[c.Profile]
}

// Supported lists the codecs of the router with their router-wide payload types.
func Supported() []Codec { return slices.Clone(supported[:]) }

var supported = [...]Codec{
	{Name: Opus, ClockRate: 48000, PayloadType: 111},
	{Name: VP8, ClockRate: 90000, PayloadType: 96},
	{Name: H264, Profile: ConstrainedBaseline, ClockRate: 90000, PayloadType: 102},
	{Name: H264, Profile: Baseline, ClockRate: 90000, PayloadType: 103},
	{Name: H264, Profile: Main, ClockRate: 90000, PayloadType: 104},
	{Name: H264, Profile: High, ClockRate: 90000, PayloadType: 105},
	{Name: VP9, ClockRate: 90000, PayloadType: 98},
	{Name: VP9, Profile: Profile2, ClockRate: 90000, PayloadType: 100},
	{Name: AV1, ClockRate: 90000, PayloadType: 45},
}

// ByPayloadType finds a codec by its router-wide payload type; the zero value when
// there is none. It allocates nothing.
func ByPayloadType(pt uint8) Codec {
	for _, c := range supported {
		if c.PayloadType == pt {
			return c
		}
	}
	return Codec{}
}

// Match finds the router's codec for what SDP says: a=rtpmap's encoding name and
// clock rate and a=fmtp's parameters. H.264 has to use packetization-mode 1
// (RFC 6184 section 6.3), in which single NAL units may come as well; of VP9 there are
// profiles 0 and 2, of AV1 profile 0.
func Match(encoding string, clockRate uint32, fmtp string) (Codec, bool) {
	profile, ok := parseProfile(encoding, fmtp)
	if !ok {
		return Codec{}, false
	}
	for _, c := range supported {
		if strings.EqualFold(c.Name.String(), encoding) && c.ClockRate == clockRate && c.Profile == profile {
			return c, true
		}
	}
	return Codec{}, false
}

// parseProfile reads the profile from a=fmtp; ok is false for one that is not forwarded.
func parseProfile(encoding, fmtp string) (p Profile, ok bool) {
	switch strings.ToUpper(encoding) {
	case "H264":
		params := ParseFmtp(fmtp)
		p = h264Profile(params["profile-level-id"])
		return p, p != NoProfile && params["packetization-mode"] == "1"
	case "VP9": // RFC 9628 section 6
		switch ParseFmtp(fmtp)["profile-id"] {
		case "", "0":
			return NoProfile, true
		case "2":
			return Profile2, true
		}
		return NoProfile, false
	case "AV1":
		v := ParseFmtp(fmtp)["profile"]
		return NoProfile, v == "" || v == "0"
	}
	return NoProfile, true
}

// Decodes says whether a decoder that offered c can decode a stream of codec s.
func (c Codec) Decodes(s Codec) bool {
	if c.Name != s.Name {
		return false
	}
	// Constrained baseline is what all H.264 profiles have in common, and what
	// encoders that announce baseline really send.
	return c.Profile == s.Profile || s.Profile == ConstrainedBaseline || s.Profile == Baseline && c.Profile != NoProfile ||
		s.Profile == Main && c.Profile == High
}

// ParseFmtp splits the parameters of a=fmtp; keys come in lower case.
func ParseFmtp(s string) map[string]string {
	params := make(map[string]string)
	for part := range strings.SplitSeq(s, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if k != "" {
			params[strings.ToLower(k)] = v
		}
	}
	return params
}

// h264Profile reads profile-level-id (RFC 6184 section 8.1); absent it is baseline.
func h264Profile(id string) Profile {
	if id == "" {
		return Baseline
	}
	v, err := strconv.ParseUint(id, 16, 32)
	if err != nil || len(id) != 6 {
		return NoProfile
	}
	idc, iop := v>>16, v>>8&0xff
	switch idc {
	case 0x42:
		if iop&0x40 != 0 {
			return ConstrainedBaseline
		}
		return Baseline
	case 0x4d:
		if iop&0x80 != 0 {
			return ConstrainedBaseline
		}
		return Main
	case 0x64:
		return High
	}
	return NoProfile
}
