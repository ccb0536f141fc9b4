package record

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/durable"
	"github.com/amphi-sfu/amphi/hls/packager"
)

// Phase of a recording.
type Phase string

// The phases.
const (
	Starting  Phase = "starting" // nothing is on the disk yet
	Active    Phase = "active"
	Paused    Phase = "paused"
	Retrying  Phase = "retrying"  // the disk does not take it; what comes meanwhile is missing
	Finishing Phase = "finishing" // it is over, and files are being made
	Stopped   Phase = "stopped"
	Failed    Phase = "failed" // it is over, and there is nothing to play
)

// State of a recording.
type State struct {
	Phase  Phase
	Since  time.Time
	Reason string // why it is retrying, failed, or stopped by itself
	// Length is how much is on the disk, of the variant that has most.
	Length time.Duration
	Bytes  int64 // of all fragmented files
	// Dropped counts parts and notes that are missing, because the disk was too slow or full.
	Dropped int64
}

// syncEvery is how often files are synced: what a loss of power costs. A killed process loses nothing that was written.
const syncEvery = time.Second

// recentAudio is how many parts of audio are kept for tapes that begin: they may be ahead of their pictures.
const recentAudio = 3

// recording is one that runs. Its goroutine owns all fields but those that say otherwise.
type recording struct {
	r     *Recorder
	log   *slog.Logger
	dir   string
	queue *queue // any goroutine

	manifest manifest
	tapes    map[string]*tape
	files    map[string]*files
	recent   []*packager.Part // of audio, for a tape that begins
	chat     file
	chatEnd  int64
	chatted  bool // something in the chat log is not synced
	paused   bool
	lost     int64 // notes that could not be written
	refused  int64 // what the queue had no room for, as of the last look
	slow     bool  // it had none then

	mu    sync.Mutex // guards the field below
	state State
}

// part is the tap.
func (c *recording) part(p *packager.Part) {
	if p == nil {
		c.queue.push(item{do: ended})
		return
	}
	c.queue.push(item{part: p})
}

// run writes until the recording or the recorder ends. It returns why it stopped by itself.
func (c *recording) run(done <-chan struct{}) (reason string, aborted bool) {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.queue.ready:
			if reason, over := c.work(); over {
				return reason, false
			}
		case <-tick.C:
			c.sync()
		case <-done:
			// What has come until now is not lost.
			reason, over := c.work()
			return reason, !over
		}
	}
}

// work does what is in the queue; over: the recording has ended with it, for reason where it did by itself.
func (c *recording) work() (reason string, over bool) {
	items, dropped := c.queue.take()
	for i := range items {
		switch items[i].do {
		case stop:
			return "", true
		case ended:
			return "the stream has ended", true
		}
		c.handle(&items[i])
	}
	c.report(dropped)
	return "", false
}

func (c *recording) handle(i *item) {
	if i.lost {
		for _, t := range c.tapes {
			t.lose()
		}
	}
	switch {
	case i.do == pause && !c.paused:
		c.paused = true
		for _, t := range c.tapes {
			t.pause()
		}
	case i.do == resume:
		c.paused = false
	case i.note != nil:
		c.writeNote(i)
	case i.part != nil && !c.paused:
		c.writePart(i.part)
	}
}

func (c *recording) writePart(p *packager.Part) {
	if p.Variant >= 0 {
		t := c.tapes[p.Media]
		if t == nil {
			f := &files{dir: c.dir, name: p.Media, create: c.r.cfg.create}
			t = newTape(p.Media, f)
			c.tapes[p.Media], c.files[p.Media] = t, f
			for _, audio := range c.recent {
				t.take(audio)
			}
		}
		t.take(p)
		return
	}
	if c.recent = append(c.recent, p); len(c.recent) > recentAudio {
		c.recent = append(c.recent[:0], c.recent[1:]...)
	}
	for _, t := range c.tapes {
		t.take(p)
	}
}

// note is a line of the chat log.
type note struct {
	// At is the time in the recording, in milliseconds.
	At   int64           `json:"at_ms"`
	Time time.Time       `json:"time"`
	Data json.RawMessage `json:"data"`
}

const chatName = "chat.jsonl"

func (c *recording) writeNote(i *item) {
	n := note{Time: i.at.UTC(), Data: i.note}
	for _, t := range c.tapes {
		n.At = max(n.At, t.position(i.at).Milliseconds())
	}
	b, err := json.Marshal(n)
	if err == nil && c.chat == nil {
		c.chat, err = c.r.cfg.create(filepath.Join(c.dir, chatName))
	}
	if err == nil {
		b = append(b, '\n')
		if _, err = c.chat.WriteAt(b, c.chatEnd); err == nil {
			c.chatEnd, c.chatted = c.chatEnd+int64(len(b)), true
			return
		}
	}
	c.lost++
	c.log.Warn("writing the chat log of a recording", "err", err)
}

func (c *recording) sync() {
	for _, f := range c.files {
		if err := f.sync(); err != nil {
			c.log.Warn("syncing a recording", "err", err)
		}
	}
	if c.chatted {
		if err := c.chat.Sync(); err != nil {
			c.log.Warn("syncing the chat log of a recording", "err", err)
			return
		}
		c.chatted = false
	}
}

// report works out the state after a batch; dropped is what the queue had no room for.
func (c *recording) report(dropped int64) {
	s := State{Phase: Starting, Dropped: dropped + c.lost}
	var failure error
	writing := false
	for name, t := range c.tapes {
		s.Length = max(s.Length, t.length())
		s.Bytes += c.files[name].total
		s.Dropped += t.left
		if t.err != nil {
			failure = t.err
		}
		writing = writing || !t.waiting
	}
	c.mu.Lock()
	was := c.state
	c.mu.Unlock()
	switch {
	case dropped > c.refused:
		c.slow, c.refused = true, dropped
	case writing:
		c.slow = false
	}
	switch {
	case c.paused:
		s.Phase = Paused
	case failure != nil:
		s.Phase, s.Reason = Retrying, reasonOf(failure)
		if was.Phase != Retrying {
			c.log.Warn("a recording cannot be written", "err", failure)
		}
	case c.slow:
		s.Phase, s.Reason = Retrying, "the disk is too slow"
	case s.Length > 0:
		s.Phase = Active
	}
	c.set(s)
}

// set notes a state, and tells of it when its phase or reason is new.
func (c *recording) set(s State) {
	c.mu.Lock()
	news := c.state.Phase != s.Phase || c.state.Reason != s.Reason
	s.Since = c.state.Since
	if news {
		s.Since = c.r.cfg.Now()
	}
	c.state = s
	c.mu.Unlock()
	if news {
		c.r.cfg.OnState(c.manifest.Request.ID, s)
	}
}

// phase changes the phase alone.
func (c *recording) phase(p Phase, reason string) {
	c.mu.Lock()
	s := c.state
	c.mu.Unlock()
	s.Phase, s.Reason = p, reason
	c.set(s)
}

// close writes what there is and closes all files. What fails leaves a file that can be read up to the last whole fragment.
func (c *recording) close() {
	for name, t := range c.tapes {
		t.pause()
		if err := c.files[name].close(); err != nil {
			c.log.Warn("closing a recording", "err", err)
		}
	}
	if c.chat != nil {
		c.sync()
		if err := c.chat.Close(); err != nil {
			c.log.Warn("closing the chat log of a recording", "err", err)
		}
	}
	if err := durable.Sync(c.dir); err != nil && !os.IsNotExist(err) {
		c.log.Warn("closing a recording", "err", err)
	}
}
