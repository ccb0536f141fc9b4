package record

import (
	"bytes"
	"time"

	"github.com/amphi-sfu/amphi/hls/movie"
	"github.com/amphi-sfu/amphi/hls/packager"
)

// sink takes the files of a tape. What was appended counts only when append returned nil.
type sink interface {
	// begin ends the file before and begins another.
	begin(header []byte) error
	append(b []byte) error
}

// tape turns the parts of one variant and of the audio into fragmented files. It has a time of its own, in which nothing is
// missing: pauses, changes of compositor and what was lost are closed up, by the same for picture and sound. A plain value.
type tape struct {
	name string
	to   sink

	video, audio         movie.Track
	videoInit, audioInit []byte
	opened, withAudio    bool // a file has these tracks
	sequence             uint32

	waiting bool // for a picture that decodes by itself
	life    int
	shift   int64 // source's time of pictures less the tape's
	due     int64 // source's time of the next picture
	end     int64 // tape's time of the next picture to be written
	heard   int64 // tape's time of the next sound
	pieces  []piece
	sounds  []sound
	wall    time.Time // of the last piece
	wallAt  int64     // its time on the tape

	spans  int   // that began
	faults int64 // parts that were no use
	left   int64 // pieces that could not be written
	err    error // of the last that could not
}

// piece are the pictures of one part.
type piece struct {
	base    int64 // source's time
	at      int64 // tape's time
	length  int64
	samples []movie.Sample
	data    []byte
	wall    time.Time
}

// sound is one access unit of audio.
type sound struct {
	at       int64 // source's time
	duration uint32
	data     []byte
}

const (
	// patience is for how many parts of pictures the sound of the first is waited for; patienceInit is it when there was none yet.
	patience, patienceInit = 2, 4
	// maxSounds are kept for pictures that have not come; 6 s.
	maxSounds = 300
	// rounding is by how many units times of sound may be off, where pictures have another clock.
	rounding = 2
	// maxHole is the longest time without pictures that the one before stands for, in seconds.
	maxHole = 2
)

func newTape(name string, to sink) *tape { return &tape{name: name, to: to, waiting: true} }

// length is how much is on the tape.
func (t *tape) length() time.Duration {
	if t.video.Timescale == 0 {
		return 0
	}
	return t.video.Duration(t.end)
}

// position is the tape's time of a moment.
func (t *tape) position(now time.Time) time.Duration {
	if t.video.Timescale == 0 || t.waiting || t.wall.IsZero() {
		return t.length()
	}
	return max(0, t.video.Duration(t.wallAt)+now.Sub(t.wall))
}

// take takes a part of the variant or of the audio, in the order in which they were published.
func (t *tape) take(p *packager.Part) {
	base, samples, data, err := unwrap(p.Data)
	if err != nil {
		t.faults++
		return
	}
	if p.Variant < 0 {
		t.takeAudio(p, base, samples, data)
		return
	}
	t.takeVideo(p, piece{base: base, samples: samples, data: data, wall: p.Start})
}

// unwrap reads a part, which has one run whose bytes lie together.
func unwrap(b []byte) (base int64, samples []movie.Sample, data []byte, err error) {
	runs, err := movie.ParseChunk(b)
	if err != nil {
		return 0, nil, nil, err
	}
	if len(runs) != 1 || len(runs[0].Samples) == 0 {
		return 0, nil, nil, movie.ErrEmpty
	}
	samples = runs[0].Samples
	from := samples[0].Offset
	end := from
	for _, s := range samples {
		if s.Offset != end {
			return 0, nil, nil, movie.ErrMalformed
		}
		end += int64(s.Size)
	}
	return runs[0].Base, samples, b[from:end], nil
}

func (t *tape) takeVideo(p *packager.Part, v piece) {
	for _, s := range v.samples {
		v.length += int64(s.Duration)
	}
	hole := v.base - t.due
	jump := t.waiting || p.Life != t.life || hole < 0 || t.video.Timescale > 0 && hole > maxHole*int64(t.video.Timescale)
	if jump && !p.Independent {
		t.drain(true)
		t.waiting = true
		return
	}
	if jump || !bytes.Equal(p.Init, t.videoInit) {
		t.drain(true)
	}
	if !bytes.Equal(p.Init, t.videoInit) {
		if !t.describe(p.Init, &t.video, 1) {
			return
		}
		t.videoInit = p.Init
	}
	if jump {
		t.waiting, t.life = false, p.Life
		t.shift = v.base - t.end
		t.spans++
		t.forget(v.base)
	}
	v.at = v.base - t.shift
	t.due = v.base + v.length
	t.wall, t.wallAt = v.wall, v.at
	t.pieces = append(t.pieces, v)
	t.drain(false)
}

func (t *tape) takeAudio(p *packager.Part, base int64, samples []movie.Sample, data []byte) {
	if !bytes.Equal(p.Init, t.audioInit) {
		if t.audioInit != nil {
			t.drain(true)
		}
		if !t.describe(p.Init, &t.audio, 2) {
			return
		}
		t.audioInit = p.Init
	}
	for _, s := range samples {
		t.sounds = append(t.sounds, sound{base, s.Duration, data[:s.Size]})
		base, data = base+int64(s.Duration), data[s.Size:]
	}
	if n := len(t.sounds) - maxSounds; n > 0 {
		t.sounds = append([]sound(nil), t.sounds[n:]...)
	}
	t.drain(false)
}

// describe reads an init section; the next piece begins a file.
func (t *tape) describe(init []byte, track *movie.Track, id uint32) bool {
	tracks, err := movie.ParseInit(init)
	if err != nil || len(tracks) != 1 {
		t.faults++
		return false
	}
	if track.Timescale != 0 && track.Timescale != tracks[0].Timescale { // a program keeps its clocks
		t.faults++
		return false
	}
	*track = tracks[0]
	track.ID = id
	t.opened = false
	return true
}

// sounding is the source's time of sound at that of a picture.
func (t *tape) sounding(picture int64) int64 {
	if t.video.Timescale == 0 || t.audio.Timescale == 0 {
		return 0
	}
	scale, audio := int64(t.video.Timescale), int64(t.audio.Timescale)
	whole, rest := picture/scale, picture%scale
	return whole*audio + rest*audio/scale
}

// forget drops sound from before a picture.
func (t *tape) forget(picture int64) {
	from := t.sounding(picture)
	n := 0
	for n < len(t.sounds) && t.sounds[n].at < from {
		n++
	}
	t.sounds = t.sounds[n:]
}

// pause writes what there is and waits for the next keyframe.
func (t *tape) pause() {
	t.drain(true)
	t.waiting = true
}

// lose says that parts are missing.
func (t *tape) lose() {
	t.drain(true)
	t.waiting = true
}

// drain writes pieces whose sound is there, or that have waited for it long enough; all of them when there is no more to wait for.
func (t *tape) drain(all bool) {
	for len(t.pieces) > 0 {
		if !all && !t.sounded(&t.pieces[0]) {
			return
		}
		p := t.pieces[0]
		t.pieces = t.pieces[1:]
		if t.err = t.write(&p); t.err != nil {
			t.left += int64(len(t.pieces)) + 1
			t.pieces, t.waiting = nil, true
			return
		}
	}
}

// sounded says that a piece has waited long enough for its sound.
func (t *tape) sounded(p *piece) bool {
	if t.audio.Timescale == 0 {
		return len(t.pieces) >= patienceInit
	}
	if len(t.pieces) >= patience {
		return true
	}
	n := len(t.sounds)
	return n > 0 && t.sounds[n-1].at+int64(t.sounds[n-1].duration) >= t.sounding(p.base+p.length)
}

// write appends one piece with its sound as a fragment.
func (t *tape) write(p *piece) error {
	hasAudio := t.audio.Timescale > 0
	if !t.opened || hasAudio != t.withAudio {
		tracks := []movie.Track{t.video}
		if hasAudio {
			tracks = append(tracks, t.audio)
		}
		if err := t.to.begin(movie.AppendHeader(nil, tracks)); err != nil {
			return err
		}
		t.opened, t.withAudio, t.sequence = true, hasAudio, 0
	}
	runs := []movie.Run{{Track: t.video.ID, Base: p.at, Samples: p.samples, Data: p.data}}
	heard, used := t.heard, 0
	if hasAudio {
		var run movie.Run
		if run, used = t.soundOf(p); len(run.Samples) > 0 {
			runs = append(runs, run)
			heard = run.Base + run.Length()
		}
	}
	b := movie.AppendReference(nil, t.video.ID, p.wall, p.at)
	if err := t.to.append(movie.AppendFragment(b, t.sequence+1, runs)); err != nil {
		return err
	}
	t.sequence++
	t.end, t.heard = p.at+p.length, heard
	t.sounds = t.sounds[used:]
	return nil
}

// soundOf makes a run of the sound that belongs to a piece, in the tape's time; used is how many sounds that settles. A sound that would overlap
// the one before, where times were closed up, is left out; the one in front of a hole lasts longer.
func (t *tape) soundOf(p *piece) (run movie.Run, used int) {
	run = movie.Run{Track: t.audio.ID}
	until := t.sounding(p.base + p.length)
	// Picture and sound are moved by the same time.
	move := t.sounding(p.base) - t.sounding(p.at)
	next := t.heard
	for _, s := range t.sounds {
		if s.at >= until {
			break
		}
		used++
		at := s.at - move
		if at < next-rounding {
			continue
		}
		at = max(at, next)
		if n := len(run.Samples); n > 0 {
			run.Samples[n-1].Duration += uint32(at - next)
		} else {
			run.Base = at
		}
		run.Samples = append(run.Samples, movie.Sample{Size: uint32(len(s.data)), Duration: s.duration, Key: true})
		run.Data = append(run.Data, s.data...)
		next = at + int64(s.duration)
	}
	return run, used
}
