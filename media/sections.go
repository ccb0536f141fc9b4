package media

import (
	"fmt"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/negotiate"
)

// Words of the leaves that are part of this package's interface, for those who
// import nothing below it.
type (
	// Kind is audio or video.
	Kind = codec.Kind
	// Layer is a spatial and a temporal layer of a track.
	Layer = layer.Layer
	// Direction is that of a section as the client sees it.
	Direction = negotiate.Direction
	// NegotiationError is the error for an offer that cannot be answered; its
	// Reason is stable.
	NegotiationError = negotiate.Error
)

// Kinds of tracks.
const (
	Audio = codec.Audio
	Video = codec.Video
)

// Section is what an offer says about one audio or video section.
type Section struct {
	// Mid is the section's id, made up when the offer has none.
	Mid       string
	Kind      Kind
	Direction Direction
	// Stream and Track are those of a=msid, empty without.
	Stream, Track string
	// RIDs are the simulcast streams, empty without.
	RIDs []string
}

// Sections lists the usable audio and video sections of an offer, for those who cannot
// know them beforehand, as WHIP servers. Errors are as those of Endpoint.Negotiate.
func Sections(offer string) ([]Section, error) {
	o, err := negotiate.Parse(offer)
	if err != nil {
		return nil, fmt.Errorf("reading the offer: %w", err)
	}
	var list []Section
	for _, s := range o.Sections {
		if s.Rejected || s.Kind == 0 || len(s.Formats) == 0 {
			continue
		}
		list = append(list, Section{
			Mid: s.Mid, Kind: s.Kind, Direction: s.Direction, Stream: s.Stream, Track: s.Track, RIDs: s.RIDs,
		})
	}
	return list, nil
}
