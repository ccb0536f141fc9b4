package packager

import "github.com/amphi-sfu/amphi/hls/playlist"

// Published is a media playlist as it is from one part to the next. It is
// immutable; a thousand waiting players share one.
type Published struct {
	*playlist.Snapshot
	next chan struct{}
}

// Next is closed when a newer one has been published.
func (p *Published) Next() <-chan struct{} { return p.next }
