package packager

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/playlist"
)

// Media is one media playlist with its objects: a variant or the audio. Readers
// use Published and Object from any goroutine; all else belongs to the Packager.
type Media struct {
	packager  *Packager
	name      string
	uri       string // as seen from a sister playlist
	cfg       *Config
	list      *playlist.Media
	store     *store
	published atomic.Pointer[Published]
	reloads   atomic.Int64
	touched   atomic.Int64 // since Config.Start, when it was wanted last
	idle      atomic.Bool  // nobody wanted it for a while

	unitsPerPart int64         // length of a part in the track's own time units
	partTarget   time.Duration // longest part
	maxBytes     int           // of a part

	init        fmp4.Init
	initVersion int
	initKey     string // parameter sets that init was made of
	sequence    uint32

	open    openPart
	parts   []Name       // of the open segment
	due     int64        // time of the next sample if none is missing
	silence []byte       // audio: an access unit of it; nil when there is none for the configuration
	events  []fmp4.Event // cues that wait for their part; video only
	rate    rate
	next    time.Time // of captions: where the next segment begins
	gaps    int64     // parts and segments without anything
	filled  int64     // parts that one picture stands for, silent access units
}

// openPart gathers samples until the grid ends it.
type openPart struct {
	index   int64 // on the grid: floor(time / unitsPerPart)
	samples []fmp4.Sample
	base    int64 // time of the first sample, in units
	last    int64 // time of the last sample
	bytes   int
}

// Name is the first part of the path: the variant's name or AudioName.
func (m *Media) Name() string { return m.name }

// Epoch is in all names of its objects.
func (m *Media) Epoch() uint64 { return m.cfg.Epoch }

// Published is the playlist as it is now.
func (m *Media) Published() *Published { return m.published.Load() }

// PartLength is how long a part is, or a segment where there are no parts.
func (m *Media) PartLength() time.Duration {
	if m.unitsPerPart == 0 {
		return m.partTarget
	}
	return m.cfg.ticks(int64(m.cfg.PartTicks))
}

// CountReload notes that a player was given the playlist.
func (m *Media) CountReload() { m.reloads.Add(1) }

// Object finds an object that exists and has not left the window.
func (m *Media) Object(n Name) (Object, bool) { return m.store.get(n) }

// objectName makes the name of a part (or with part -1 of the segment) of the open segment.
func (m *Media) objectName(part int) Name {
	return Name{Epoch: m.cfg.Epoch, MSN: m.list.OpenMSN(), Part: part, Init: -1}
}

// setInit makes init the one that following segments refer to.
func (m *Media) setInit(key string, init fmp4.Init) {
	if m.initKey != "" {
		m.initVersion++
	}
	m.init, m.initKey = init, key
	n := Name{Epoch: m.cfg.Epoch, Part: -1, Init: m.initVersion}
	m.store.put(n, init.Data)
	m.list.SetMap(n.String())
}

// date is the wall-clock time of a time in units.
func (m *Media) date(units int64) time.Time { return m.cfg.Start.Add(m.span(units)) }

func (m *Media) span(units int64) time.Duration {
	if m.isAudio() {
		return samples(units)
	}
	return m.cfg.ticks(units)
}

func (m *Media) isAudio() bool { return m.name == AudioName }

// sampleDuration turns units into the timescale of the track.
func (m *Media) sampleDuration(units int64) uint32 {
	if m.isAudio() {
		return uint32(units)
	}
	return uint32(units) * videoUnit
}

// indexOf is the part of the grid that a time belongs to. Audio may begin a little before
// the first part of its run.
func (m *Media) indexOf(at, first int64) int64 {
	i := at / m.unitsPerPart
	if m.isAudio() && i == first-1 {
		return first
	}
	return i
}

// add puts a sample into the open part. A hole since the last one makes that one
// longer; a picture missing at the part's start makes the first one begin there, so
// that parts keep the length of the grid.
func (m *Media) add(at int64, s fmp4.Sample) {
	o := &m.open
	if len(o.samples) == 0 {
		if !m.isAudio() {
			at = o.index * m.unitsPerPart
		}
		o.base = at
	} else {
		o.samples[len(o.samples)-1].Duration = m.sampleDuration(at - o.last)
	}
	o.samples = append(o.samples, s)
	o.last = at
	o.bytes += len(s.Data)
}

// partsPerSegment of the grid.
func (c *Config) partsPerSegment() int64 { return int64(c.SegmentTicks / c.PartTicks) }

// closePart ends the open part, and the segment where the grid says so. until is where
// the part ends in units; the last sample is stretched to it (video only).
func (m *Media) closePart(until int64) error {
	if m.list.OpenParts() == 0 {
		start := m.open.index * m.unitsPerPart
		if len(m.open.samples) > 0 {
			start = m.open.base
		}
		if err := m.list.Begin(m.date(start)); err != nil {
			return fmt.Errorf("beginning a segment of %s: %w", m.name, err)
		}
	}
	if err := m.addPart(until); err != nil {
		return err
	}
	m.open = openPart{index: m.open.index + 1}
	if m.open.index%m.cfg.partsPerSegment() == 0 {
		return m.finish()
	}
	return nil
}

func (m *Media) addPart(until int64) error {
	o := &m.open
	part := m.list.OpenParts()
	n := m.objectName(part)
	if len(o.samples) == 0 {
		m.gaps++
		return m.list.AddPart(playlist.Part{URI: n.String(), Duration: m.partTarget, Gap: true})
	}
	if !m.isAudio() {
		o.samples[len(o.samples)-1].Duration = m.sampleDuration(until - o.last)
	}
	m.sequence++
	b, err := fmp4.Part(m.sequence, uint64(max(0, o.base))*uint64(m.sampleDuration(1)), o.samples)
	if err != nil {
		return fmt.Errorf("making a part of %s: %w", m.name, err)
	}
	end := until
	if m.isAudio() {
		end = o.last + samplesPerAU
	}
	served := b
	if len(m.events) > 0 { // for players; taps get the media
		served = append(m.takeEvents(uint64(until)*uint64(m.sampleDuration(1))), b...)
	}
	m.store.put(n, served)
	m.parts = append(m.parts, n)
	m.rate.bytes += len(served)
	m.rate.sparse = m.rate.sparse || !m.isAudio() && 2*int64(len(o.samples)) < m.unitsPerPart
	length := min(m.span(end)-m.span(o.base), m.partTarget)
	m.tell(n, m.span(o.base), length, o.samples[0].Key, b)
	return m.list.AddPart(playlist.Part{URI: n.String(), Duration: length, Independent: o.samples[0].Key})
}

// finish closes the segment; one without any part that exists is a gap.
func (m *Media) finish() error {
	n := m.objectName(-1)
	gap := len(m.parts) == 0
	_, length, _ := m.list.Segment(n.MSN)
	m.rate.segment(length)
	m.slide()
	if err := m.list.Finish(n.String(), gap); err != nil {
		return fmt.Errorf("finishing a segment of %s: %w", m.name, err)
	}
	m.store.finish(n, m.parts, m.keep())
	m.parts = nil
	return nil
}

// cut ends what is open, because nothing more comes from where it came from. Pictures last until end, where those of
// all variants do, but no longer than their part.
func (m *Media) cut(end int64) error {
	if len(m.open.samples) > 0 {
		until := m.open.last + 1
		if !m.isAudio() {
			until = max(until, min(end, (m.open.index+1)*m.unitsPerPart))
		}
		if err := m.closePart(until); err != nil {
			return err
		}
	}
	m.open = openPart{}
	if m.list.OpenParts() > 0 {
		return m.finish()
	}
	return nil
}

// follow takes the segment numbers that a sister has and this one has nothing for, as
// gaps of the same time.
func (m *Media) follow(lead *Media) error {
	for m.list.OpenMSN() < lead.list.OpenMSN() {
		start, d, ok := lead.list.Segment(m.list.OpenMSN())
		if !ok { // so far behind that the sister has forgotten it
			start, d = m.cfg.Start, m.cfg.ticks(int64(m.cfg.SegmentTicks))
		}
		n := m.objectName(-1)
		if err := m.list.FinishGap(n.String(), start, d); err != nil {
			return fmt.Errorf("leaving out a segment of %s: %w", m.name, err)
		}
		m.store.finish(n, nil, m.keep())
		m.gaps++
	}
	return nil
}

// publish swaps in the playlist as it is now and wakes those who wait.
func (m *Media) publish(sisters []*Media) {
	reports := make([]playlist.Report, 0, len(sisters))
	for _, s := range sisters {
		if s == m {
			continue
		}
		if msn, part, ok := s.published.Load().LastPart(); ok {
			reports = append(reports, playlist.Report{URI: s.uri, MSN: msn, Part: part})
		}
	}
	if m.unitsPerPart > 0 { // captions have no parts
		m.list.Hint(m.objectName(m.list.OpenParts()).String())
	}
	p := &Published{Snapshot: m.list.Render(reports), next: make(chan struct{})}
	if old := m.published.Swap(p); old != nil {
		close(old.next)
	}
}
