package hls

import (
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// idleAfter is how long nobody must have asked for a variant until it idles.
const idleAfter = time.Minute

// idle says which variants the compositor may make of one picture a part. Their playlists go on as before: every part is there, as
// long as the grid says, and begins where those of the others begin, so nobody can tell but by looking. The lowest variant
// never idles: players that begin, or whose network breaks down, come to it.
func (l *loop) idle(now time.Time) wire.Idle {
	if len(l.settings.Variants) < 2 || now.Sub(l.started) < l.idleAfter {
		return 0
	}
	low := lowest(l.settings.Variants)
	var out wire.Idle
	for i, idle := range l.pack.Idle(now.Add(-l.idleAfter)) {
		if idle && i != low && !l.taps.take(i) {
			out |= 1 << i
		}
	}
	return out
}

func lowest(variants []packager.Variant) int {
	at := 0
	for i, v := range variants {
		if v.Bitrate < variants[at].Bitrate {
			at = i
		}
	}
	return at
}
