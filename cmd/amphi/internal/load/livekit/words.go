package livekit

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of the fields that are spoken, by message of livekit_rtc.proto and livekit_models.proto.
const (
	// SignalRequest.
	requestOffer    = 1
	requestAddTrack = 4
	requestLeave    = 8
	requestPing     = 16

	// SignalResponse.
	responseJoin           = 1
	responseAnswer         = 2
	responseTrickle        = 4
	responseTrackPublished = 6
	responseLeave          = 8
	responsePong           = 20
	responseRefusal        = 22
	responseSections       = 25

	// WrappedJoinRequest, JoinRequest, ClientInfo and ConnectionSettings.
	wrappedJoin       = 2
	joinClient        = 1
	joinConnection    = 2
	clientProtocol    = 3
	autoSubscribe     = 1
	protocolVersion   = 16
	joinParticipant   = 2 // JoinResponse
	joinOthers        = 3
	participantSID    = 1
	participantTracks = 4

	// AddTrackRequest, TrackPublishedResponse and TrackInfo.
	addCID         = 1
	addType        = 3
	addWidth       = 4
	addHeight      = 5
	addSource      = 8
	addDisableRED  = 13
	publishedCID   = 1
	publishedTrack = 2
	trackSID       = 1
	trackType      = 2
	typeVideo      = 1
	sourceCamera   = 1
	sourceMic      = 2

	// SessionDescription and an entry of its map, TrickleRequest, MediaSectionsRequirement, Ping, LeaveRequest and RequestResponse.
	sdpType          = 1
	sdpText          = 2
	sdpID            = 3
	sdpTracks        = 4
	entryKey         = 1
	entryValue       = 2
	trickleCandidate = 1
	trickleFinal     = 3
	sectionsAudio    = 1
	sectionsVideo    = 2
	pingTime         = 1
	leaveReason      = 2
	refusalReason    = 2
	refusalMessage   = 3
)

// message is a protobuf message being written.
type message []byte

func (m message) number(field protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), v)
}

func (m message) text(field protowire.Number, v string) message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), v)
}

// part adds a message as a field of m.
func (m message) part(field protowire.Number, v message) message { return m.text(field, string(v)) }

// fields are those of a protobuf message that was read, but for fixed-size numbers, of which none is spoken.
type fields struct {
	numbers map[protowire.Number]uint64
	bytes   map[protowire.Number][][]byte
}

func parse(b []byte) (fields, error) {
	f := fields{make(map[protowire.Number]uint64), make(map[protowire.Number][][]byte)}
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return f, fmt.Errorf("reading a message: %w", protowire.ParseError(n))
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			f.numbers[field], n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			var v []byte
			v, n = protowire.ConsumeBytes(b)
			f.bytes[field] = append(f.bytes[field], v)
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return f, fmt.Errorf("reading field %d of a message: %w", field, protowire.ParseError(n))
		}
		b = b[n:]
	}
	return f, nil
}

func (f fields) text(field protowire.Number) string {
	if v := f.bytes[field]; len(v) > 0 {
		return string(v[len(v)-1])
	}
	return ""
}

// parts are the messages in a field. One that can't be read is empty.
func (f fields) parts(field protowire.Number) []fields {
	var out []fields
	for _, v := range f.bytes[field] {
		part, _ := parse(v)
		out = append(out, part)
	}
	return out
}

// part is the last message in a field, empty if there is none.
func (f fields) part(field protowire.Number) fields {
	if all := f.parts(field); len(all) > 0 {
		return all[len(all)-1]
	}
	return fields{}
}

func (f fields) has(field protowire.Number) bool { return len(f.bytes[field]) > 0 }
