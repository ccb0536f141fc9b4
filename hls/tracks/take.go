package tracks

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/movie"
	"github.com/amphi-sfu/amphi/hls/webm"
	"github.com/amphi-sfu/amphi/media/codec"
)

// timed is a frame with its place in the file.
type timed struct {
	frame
	input int
	at    time.Duration
}

// container writes rows of frames, in the order of their times; a row that write returned for outlives the process.
type container interface {
	write(row []timed) error
	close() error
}

// out is a file that only grows by what was written whole.
type out struct {
	f    *os.File
	size int64
}

func newOut(path string) (*out, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, fmt.Errorf("creating a track's file: %w", err)
	}
	return &out{f: f}, nil
}

func (o *out) append(b []byte) error {
	if _, err := o.f.WriteAt(b, o.size); err != nil {
		return fmt.Errorf("writing a track: %w", err)
	}
	o.size += int64(len(b))
	return nil
}

func (o *out) close() error {
	err := o.f.Truncate(o.size)
	if err == nil {
		err = o.f.Sync()
	}
	if closed := o.f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("closing a track's file: %w", err)
	}
	return nil
}

// webmFile writes clusters. Video, where there is any, is the first track.
type webmFile struct {
	*out
	numbers map[int]int // of the file's tracks, by input
}

// newWebM begins a file with the first frames of its tracks.
func newWebM(path string, firsts []timed, started time.Time) (*webmFile, error) {
	w := &webmFile{numbers: map[int]int{}}
	var tracks []webm.Track
	for _, f := range firsts {
		t, err := describe(&f.frame)
		if err != nil {
			return nil, err
		}
		w.numbers[f.input] = len(tracks)
		tracks = append(tracks, t)
	}
	var err error
	if w.out, err = newOut(path); err != nil {
		return nil, err
	}
	if err := w.append(webm.Header(tracks, started)); err != nil {
		return nil, w.fail(err)
	}
	return w, nil
}

func (o *out) fail(err error) error {
	_ = o.f.Close()           // it is of no use
	_ = os.Remove(o.f.Name()) // and nobody misses it
	return err
}

func (w *webmFile) write(row []timed) error {
	blocks := make([]webm.Block, 0, len(row))
	for i := range row {
		blocks = append(blocks, webm.Block{Track: w.numbers[row[i].input], Time: row[i].at.Milliseconds(), Key: row[i].key, Data: row[i].data})
	}
	b, err := webm.AppendCluster(nil, blocks)
	if err != nil {
		return err
	}
	return w.append(b)
}

// mp4Files writes fragments; other parameter sets begin another file, which belongs to the same movie.
type mp4Files struct {
	current  *out
	path     func(n int) string
	count    int
	tracks   map[int]*movie.Track // by input
	order    []int                // of inputs
	sets     string               // parameter sets in force
	sequence uint32
	last     map[int]uint32 // duration of a frame of the input
	started  time.Time
}

var errNoFile = errors.New("writing a track: its file could not be begun")

func newMP4(path func(n int) string, firsts []timed, started time.Time) (*mp4Files, error) {
	m := &mp4Files{path: path, tracks: map[int]*movie.Track{}, last: map[int]uint32{}, started: started}
	for i, f := range firsts {
		m.order = append(m.order, f.input)
		m.last[f.input] = videoRate / 30
		if f.codec == codec.Opus {
			t, err := opusEntry()
			if err != nil {
				return nil, err
			}
			t.ID, m.last[f.input] = uint32(i+1), audioRate/50
			m.tracks[f.input] = &t
		}
	}
	for i := range firsts { // the file is there for what is heard before the first picture
		if firsts[i].codec != codec.H264 {
			continue
		}
		au, err := fmp4.ParseAnnexB(firsts[i].data)
		if err != nil {
			return nil, fmt.Errorf("reading a keyframe: %w", err)
		}
		if err := m.begin(firsts[i].input, &au, string(au.SPS)+string(au.PPS)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// write cuts a row where parameter sets change.
func (m *mp4Files) write(row []timed) error {
	from := 0
	units := make([]fmp4.AccessUnit, len(row))
	for i := range row {
		if row[i].codec == codec.Opus {
			units[i] = fmp4.AccessUnit{Data: row[i].data, Key: true}
			continue
		}
		au, err := fmp4.ParseAnnexB(row[i].data)
		if err != nil {
			return fmt.Errorf("reading a frame: %w", err)
		}
		units[i] = au
		if sets := string(au.SPS) + string(au.PPS); sets != "" && sets != m.sets {
			if err := m.fragment(row[from:i], units[from:i]); err != nil {
				return err
			}
			from = i
			if err := m.begin(row[i].input, &au, sets); err != nil {
				return err
			}
		}
	}
	return m.fragment(row[from:], units[from:])
}

// begin begins a file for the parameter sets of a keyframe.
func (m *mp4Files) begin(input int, au *fmp4.AccessUnit, sets string) error {
	t, err := h264Entry(au.SPS, au.PPS)
	if err != nil {
		return err
	}
	for i, in := range m.order {
		if in == input {
			t.ID = uint32(i + 1)
		}
	}
	// Until all of it has gone well there is no file, and the next keyframe tries again.
	before := m.current
	m.current, m.sets = nil, ""
	if before != nil {
		if err := before.close(); err != nil {
			return err
		}
	}
	m.tracks[input] = &t
	list := make([]movie.Track, 0, len(m.order))
	for _, in := range m.order {
		if m.tracks[in] != nil {
			list = append(list, *m.tracks[in])
		}
	}
	opened, err := newOut(m.path(m.count))
	if err != nil {
		return err
	}
	if err := opened.append(movie.AppendHeader(nil, list)); err != nil {
		return opened.fail(err)
	}
	m.count++
	m.current, m.sets, m.sequence = opened, sets, 0
	return nil
}

// fragment appends frames as one fragment. The last frame of each track lasts as long as the one before it: the next fragment says better.
func (m *mp4Files) fragment(row []timed, units []fmp4.AccessUnit) error {
	if len(row) == 0 {
		return nil
	}
	if m.current == nil {
		return errNoFile
	}
	var runs []movie.Run
	for _, in := range m.order {
		t := m.tracks[in]
		run := movie.Run{}
		var last int64
		for i := range row {
			if row[i].input != in || t == nil {
				continue
			}
			at := t.Units(row[i].at)
			if n := len(run.Samples); n == 0 {
				run.Track, run.Base = t.ID, at
			} else {
				at = max(at, last+1)
				m.last[in] = uint32(at - last)
				run.Samples[n-1].Duration = m.last[in]
			}
			last = at
			run.Samples = append(run.Samples, movie.Sample{Size: uint32(len(units[i].Data)), Duration: m.last[in], Key: units[i].Key})
			run.Data = append(run.Data, units[i].Data...)
		}
		if len(run.Samples) > 0 {
			runs = append(runs, run)
		}
	}
	m.sequence++
	b := movie.AppendReference(nil, runs[0].Track, m.started.Add(row[0].at), runs[0].Base)
	return m.current.append(movie.AppendFragment(b, m.sequence, runs))
}

func (m *mp4Files) close() error {
	if m.current == nil {
		return nil
	}
	return m.current.close()
}

// File names of a take: {name}-{n}.webm, or {name}-{n}.mp4 made of {name}-{n}.{k}.mp4.
func webmName(name string, n int) string   { return fmt.Sprintf("%s-%d.webm", name, n) }
func mp4Name(name string, n int) string    { return fmt.Sprintf("%s-%d.mp4", name, n) }
func rawName(name string, n, k int) string { return fmt.Sprintf("%s-%d.%d.mp4", name, n, k) }
