// Package negotiate reads a client's SDP offer (RFC 9429, RFC 8866) into what the
// media engine has to know, and writes the answer. The client is always the
// offerer, everything is bundled (RFC 9143), there is no trickle and no data channel.
package negotiate

import (
	"slices"
	"strconv"
	"strings"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/descriptor"
)

// Limits on offers.
const (
	MaxSize     = 64 << 10 // bytes
	MaxSections = 100
	maxToken    = 256 // longest mid, rid, ufrag …, in bytes
	maxCodecs   = 64  // payload types per section
	maxRIDs     = 4   // simulcast streams per section that are used
	maxSSRCs    = 32  // a=ssrc lines per section that are remembered
)

// Direction is that of a media section as the offerer sees it.
type Direction uint8

// Directions.
const (
	Inactive Direction = iota
	SendOnly
	RecvOnly
	SendRecv
)

// String returns the attribute name.
func (d Direction) String() string {
	return [...]string{"inactive", "sendonly", "recvonly", "sendrecv"}[d]
}

// Sends says that the offerer wants to send.
func (d Direction) Sends() bool { return d == SendOnly || d == SendRecv }

// Receives says that the offerer is ready to receive.
func (d Direction) Receives() bool { return d == RecvOnly || d == SendRecv }

// Format is one payload type of a section that the router has a codec for.
type Format struct {
	PayloadType uint8
	Codec       codec.Codec
	RTPMap      string // as offered, e.g. "opus/48000/2"
	Fmtp        string // as offered
	RTX         uint8  // payload type of retransmissions (RFC 4588), 0 without
	RED         uint8  // payload type of Opus with redundancy (RFC 2198), 0 without
	Feedback    Feedback

	redFirst bool // offered before the format itself, and so preferred to it
	redMap   string
	redFmtp  string
}

// Feedback is what a=rtcp-fb offers for a format.
type Feedback struct {
	NACK, PLI, FIR, TransportCC, REMB bool
}

// Extensions are the ids of the header extensions in use, 0 where not offered.
type Extensions struct {
	MID, RID, RepairedRID, AudioLevel, TransportCC uint8
	// Descriptor is the dependency descriptor. It is 0 too where the two-byte form may not
	// be mixed with the other (RFC 8285 section 6), as it does not always fit into that.
	Descriptor uint8
}

// URIs of header extensions.
const (
	uriMID         = "urn:ietf:params:rtp-hdrext:sdes:mid"
	uriRID         = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	uriRepairedRID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
	uriAudioLevel  = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	uriDescriptor  = descriptor.URI
	uriTransportCC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
)

// Section is one media section of an offer.
type Section struct {
	Mid       string
	Kind      codec.Kind // 0 for anything but audio and video
	Direction Direction
	// Rejected sections stay in the answer with port 0.
	Rejected bool
	// Stream and Track are those of a=msid, empty without.
	Stream, Track string
	Formats       []Format
	Extensions    Extensions
	// RIDs are those the offerer sends with simulcast, in the order of a=simulcast.
	RIDs []string
	// SSRCs are the announced ones of media, RTX maps those of retransmissions to them.
	SSRCs []uint32
	RTX   map[uint32]uint32

	media, proto string
	formats      []string
	hasMid       bool
	rtcpMux      bool
	rtcpRsize    bool
	mixed        bool // one- and two-byte extensions
}

// Fingerprint is that of a certificate (RFC 8122): Hash in lower case, Value in upper-case
// hexadecimal with colons.
type Fingerprint struct {
	Hash, Value string
}

// Offer is a parsed offer.
type Offer struct {
	Ufrag, Pwd   string
	Fingerprints []Fingerprint
	// Setup is active, passive or actpass (RFC 4145); actpass when absent.
	Setup    string
	Sections []Section

	bundle []string
	lite   bool // a=ice-lite
}

// Parse reads an offer. Every error is an *Error.
func Parse(sdp string) (*Offer, error) {
	if len(sdp) > MaxSize {
		return nil, refuse(TooLarge, "%d bytes, at most %d are accepted", len(sdp), MaxSize)
	}
	if !strings.HasPrefix(sdp, "v=0") {
		return nil, refuse(Malformed, "it does not begin with v=0")
	}
	p := parser{offer: &Offer{Setup: "actpass"}}
	for line := range strings.SplitSeq(sdp, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			continue
		}
		if len(line) < 2 || line[1] != '=' {
			return nil, refuse(Malformed, "a line is not of the form x=…")
		}
		if err := p.line(line[0], line[2:]); err != nil {
			return nil, err
		}
	}
	if err := p.endSection(); err != nil {
		return nil, err
	}
	return p.offer, p.offer.check()
}

// Section returns the section with the given mid, nil when there is none.
func (o *Offer) Section(mid string) *Section {
	for i := range o.Sections {
		if o.Sections[i].Mid == mid {
			return &o.Sections[i]
		}
	}
	return nil
}

func (o *Offer) check() error {
	if len(o.Sections) == 0 {
		return refuse(NoMedia, "there is no media section")
	}
	seen := make(map[string]bool, len(o.Sections))
	live := 0
	for i := range o.Sections {
		s := &o.Sections[i]
		if seen[s.Mid] {
			return refuse(Malformed, "mid %q occurs twice", s.Mid)
		}
		seen[s.Mid] = true
		if s.Rejected {
			continue
		}
		live++
		if s.Kind != 0 && !s.rtcpMux {
			return refuse(NoRTCPMux, "section %q has no a=rtcp-mux", s.Mid)
		}
		if len(o.Sections) > 1 && s.Kind != 0 && !slices.Contains(o.bundle, s.Mid) {
			return refuse(NoBundle, "section %q is not in the BUNDLE group", s.Mid)
		}
	}
	if live == 0 {
		return refuse(NoMedia, "every media section is rejected")
	}
	if o.lite {
		// Somebody has to begin with the checks, and candidates of clients are not used.
		return refuse(ICELite, "an ICE-lite client can't be reached")
	}
	if len(o.Ufrag) < 4 || len(o.Pwd) < 22 {
		return refuse(NoICE, "ice-ufrag or ice-pwd is missing or too short")
	}
	if len(o.Fingerprints) == 0 {
		return refuse(NoFingerprint, "there is no usable a=fingerprint")
	}
	switch o.Setup {
	case "active", "passive", "actpass":
	default:
		return refuse(Malformed, "a=setup:%.20s", o.Setup)
	}
	return nil
}

func parseUint(s string, bits int) (uint64, bool) {
	v, err := strconv.ParseUint(s, 10, bits)
	return v, err == nil
}
