package tracks

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
)

const (
	// patience is how long frames are kept at the beginning, for the other track and for sender reports.
	patience = 5 * time.Second
	// rowLength is how much is written at once: what a killed process loses, besides what waits for missing packets.
	rowLength = time.Second
	// silence is after how long without frames a track is not waited for.
	silence = 2 * time.Second
	// maxPending bounds what is kept, in frames.
	maxPending = 4096
)

// mux brings the frames of up to two tracks into files. It belongs to the recording's goroutine.
type mux struct {
	dir, name string
	inputs    []*muxInput
	pending   []timed // by time; only the beginning is in a file's order for good
	file      container
	takes     int
	startedAt int64         // Unix nanoseconds of the take's time 0
	written   time.Duration // up to where rows are written
	tracks    []bool        // inputs that the file has
	codecs    []codec.Name  // theirs
	frames    int64
	err       error // of the last row that was not written
	torn      bool  // pictures are of no use until the next keyframe: some are missing, or a file begins in which there is none yet
	left      int64
}

type muxInput struct {
	clock  clock
	codec  codec.Name
	seen   bool
	newest int64         // Unix nanoseconds of its newest frame
	last   time.Duration // time of the last frame in the file
}

// add takes a frame of an input, at a time of the wall clock in nanoseconds.
func (m *mux) add(input int, f frame, wall int64) {
	in := m.inputs[input]
	switch {
	case in.seen && in.codec != f.codec:
		m.end() // another codec is another file
	case m.file != nil && !m.tracks[input]:
		if f.codec != codec.Opus && !f.key {
			return
		}
		m.end() // a track that was not there
	}
	if f.codec != codec.Opus && m.torn {
		if !f.key {
			m.left++
			return
		}
		m.torn = false
	}
	in.seen, in.codec, in.newest = true, f.codec, max(in.newest, wall)
	if m.file == nil && len(m.pending) == 0 {
		m.startedAt, m.written = wall, 0
		for _, other := range m.inputs {
			other.last = 0
		}
	}
	at := time.Duration(wall - m.startedAt)
	if m.file == nil && at < 0 { // the earliest frame is time 0
		for i := range m.pending {
			m.pending[i].at -= at
		}
		for _, other := range m.inputs {
			if other.last > 0 {
				other.last -= at
			}
		}
		m.startedAt, at = wall, 0
	}
	at = max(at, m.written)
	if in.last > 0 {
		at = max(at, in.last+time.Millisecond) // times are in milliseconds in WebM, and a track's are never the same
	}
	in.last = at
	t := timed{frame: f, input: input, at: at}
	i := len(m.pending)
	for i > 0 && (m.pending[i-1].at > t.at || m.pending[i-1].at == t.at && m.pending[i-1].codec == codec.Opus && f.codec != codec.Opus) {
		i--
	}
	m.pending = slices.Insert(m.pending, i, t)
	m.flush(false)
}

// settled says that all that is worth waiting for at the beginning is there.
func (m *mux) settled() bool {
	first, last := m.pending[0].at, m.pending[len(m.pending)-1].at
	if last-first > patience || len(m.pending) >= maxPending {
		return true
	}
	for _, in := range m.inputs {
		if !in.seen || !in.clock.locked {
			return false
		}
	}
	return last-first >= rowLength
}

// watermark is up to which time no more frames are expected.
func (m *mux) watermark() time.Duration {
	newest := int64(0)
	for _, in := range m.inputs {
		newest = max(newest, in.newest)
	}
	mark := newest
	for i, in := range m.inputs {
		if m.tracks[i] && newest-in.newest < int64(silence) {
			mark = min(mark, in.newest)
		}
	}
	return time.Duration(mark - m.startedAt)
}

// flush writes rows that are complete; all of them in the end.
func (m *mux) flush(all bool) {
	if len(m.pending) == 0 || m.file == nil && !all && !m.settled() {
		return
	}
	if m.file == nil {
		m.begin()
		if m.file == nil {
			return
		}
	}
	for len(m.pending) > 0 {
		mark := m.watermark()
		n := 0
		for n < len(m.pending) && (all || m.pending[n].at <= mark) {
			if n > 0 && m.pending[n].codec != codec.Opus && m.pending[n].key {
				break // a row begins with a keyframe, so that players can begin there
			}
			if m.pending[n].at-m.pending[0].at >= rowLength {
				break
			}
			n++
		}
		complete := n < len(m.pending) && m.pending[n].at <= mark || all
		if n == 0 || !complete && len(m.pending) < maxPending {
			return
		}
		m.row(m.pending[:n])
		m.pending = append(m.pending[:0], m.pending[n:]...)
	}
}

func (m *mux) row(row []timed) {
	m.written = max(m.written, row[len(row)-1].at)
	if m.err = m.file.write(row); m.err != nil {
		m.left += int64(len(row))
		m.torn = true
		return
	}
	m.frames += int64(len(row))
}

// begin begins a file of the tracks that have frames.
func (m *mux) begin() {
	var firsts []timed
	m.tracks = make([]bool, len(m.inputs))
	m.codecs = make([]codec.Name, len(m.inputs))
	for _, t := range m.pending {
		if !m.tracks[t.input] {
			m.tracks[t.input], m.codecs[t.input] = true, t.codec
			firsts = append(firsts, t)
		}
	}
	slices.SortStableFunc(firsts, func(a, b timed) int { // video first
		return btoi(a.codec == codec.Opus) - btoi(b.codec == codec.Opus)
	})
	started := time.Unix(0, m.startedAt).UTC()
	n := m.takes
	if firsts[0].codec == codec.H264 {
		m.file, m.err = asContainer(newMP4(func(k int) string { return filepath.Join(m.dir, rawName(m.name, n, k)) }, firsts, started))
	} else {
		m.file, m.err = asContainer(newWebM(filepath.Join(m.dir, webmName(m.name, n)), firsts, started))
	}
	if m.err != nil { // tried again with what comes
		m.file = nil
		m.left += int64(len(m.pending))
		m.pending, m.torn = nil, true
		return
	}
	m.takes++
}

// asContainer keeps a nil pointer from being a container.
func asContainer[T container](c T, err error) (container, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// end writes what there is and closes the file; the next frame begins another, its pictures with a keyframe.
func (m *mux) end() {
	m.flush(true)
	if m.file != nil {
		m.torn = true
		if err := m.file.close(); err != nil {
			m.err = err
		}
	}
	m.file, m.pending = nil, nil
	for _, in := range m.inputs {
		in.seen = false
	}
}
