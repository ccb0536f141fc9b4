package packager

import "time"

// liveWindow is how many segments are listed where nothing else is said, and where the disk fails.
const liveWindow = 15

// window is how many segments are listed now. It is one for all media playlists of a program.
type window struct {
	segments int
	event    bool  // EXT-X-PLAYLIST-TYPE:EVENT
	failure  error // why it is shorter than it should be
}

// shorten reacts to a disk in trouble: one that is full keeps what it has, and what leaves makes room; of another one nothing is
// expected any more. It never grows again: what fitted once is what fits.
func (w *window) shorten(err error, listed int) {
	w.failure = err
	if isFull(err) {
		w.segments = max(liveWindow, min(w.segments, listed-max(1, listed/20)))
	} else {
		w.segments = min(w.segments, liveWindow)
	}
	w.event = false
}

// slide sets the window of a media playlist that finishes a segment.
func (m *Media) slide() {
	w := &m.packager.window
	if err, fresh := m.store.troubled(); fresh {
		w.shorten(err, m.list.Len())
	}
	m.list.SetWindow(w.segments, w.event)
}

// keep is how many segments can be fetched: those listed, and those that the oldest
// playlist in any player's hands may still list (RFC 8216bis section 6.2.2). A disk in trouble has no room for these.
func (m *Media) keep() int {
	w := &m.packager.window
	if w.failure != nil {
		return w.segments + liveWindow + 1
	}
	return 2*w.segments + 1
}

// DVR is how far back viewers can go.
type DVR struct {
	Length  time.Duration
	OnDisk  int64 // bytes
	Failure error // why it is shorter than it should be; nil: it is not
}

func (p *Packager) dvrLocked() DVR {
	d := DVR{Failure: p.window.failure, Length: p.medias[0].list.Length()}
	for _, m := range p.medias {
		_, _, onDisk := m.store.size()
		d.OnDisk += onDisk
	}
	return d
}
