package webhook

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// journal is the outbox's file: lines of JSON, appended; written anew when most of it is of no use any more. Without a
// directory there is none.
type journal struct {
	path string
	file *os.File
	size int64
	// torn: the last write failed half-way. behind: events are missing; again is when at the earliest it is written anew
	// after that failed.
	torn, behind bool
	again        time.Time
}

const journalName = "webhooks.jsonl"

// maxLine bounds a line that is read.
const maxLine = 2 * MaxBody

// line is an event, or what became of one at a target. At most one of the groups is set.
type line struct {
	N    uint64 `json:"n,omitempty"`
	ID   string `json:"id,omitempty"`
	Type string `json:"type,omitempty"`
	Room string `json:"room,omitempty"`
	Ms   int64  `json:"ms,omitempty"`
	Body []byte `json:"body,omitempty"`

	mark
}

// mark is what became of an event at a target.
type mark struct {
	// Done: it was delivered, or given up. Again: it is to be delivered again.
	Done  uint64 `json:"done,omitempty"`
	Again uint64 `json:"again,omitempty"`
	// To is the target. With From alone: it is told events above this number.
	To   string  `json:"to,omitempty"`
	From *uint64 `json:"from,omitempty"`
}

func lineOf(e *entry) line {
	return line{N: e.n, ID: e.id, Type: e.kind, Room: e.room, Ms: e.at.UnixMilli(), Body: e.body}
}

// load reads the outbox's file, if there is one. Lines that cannot be read are left out: the last one may be half there.
func (s *Sender) load() error {
	s.journal = &journal{}
	if s.cfg.Dir == "" {
		return nil
	}
	s.journal.path = filepath.Join(s.cfg.Dir, journalName)
	known := map[string]map[uint64]bool{} // what each target is owed, by number
	from := map[string]uint64{}
	if err := s.read(known, from); err != nil {
		return fmt.Errorf("reading the webhooks' outbox: %w", err)
	}
	for _, t := range s.targets {
		first, told := from[t.key]
		for _, e := range s.entries {
			if !t.wants(e.kind) || !told || e.n <= first {
				continue
			}
			if state, ok := known[t.key][e.n]; !ok || state {
				t.add(e)
			}
		}
	}
	s.prune(time.Now())
	return s.rewrite()
}

// read fills in the entries; owed tells of a target's events whether they are to be delivered, where a mark says so.
func (s *Sender) read(owed map[string]map[uint64]bool, from map[string]uint64) error {
	f, err := os.Open(s.journal.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, maxLine)
	bad, long := 0, false
	for err == nil {
		var text []byte
		text, err = in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long, err = true, nil
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case !long && len(bytes.TrimSpace(text)) == 0:
			continue
		}
		var l line
		if long || json.Unmarshal(text, &l) != nil {
			bad, long = bad+1, false
			continue
		}
		s.take(&l, owed, from)
	}
	if bad > 0 {
		s.log.Warn("lines of the webhooks' outbox are left out", "lines", bad)
	}
	return nil
}

func (s *Sender) take(l *line, owed map[string]map[uint64]bool, from map[string]uint64) {
	switch {
	case l.To != "" && l.From != nil:
		from[l.To] = *l.From
	case l.To != "":
		if owed[l.To] == nil {
			owed[l.To] = map[uint64]bool{}
		}
		if l.Again != 0 {
			owed[l.To][l.Again] = true
		} else {
			owed[l.To][l.Done] = false
		}
	case l.N > s.last && l.ID != "" && len(l.Body) <= MaxBody && json.Valid(l.Body) && s.byID[l.ID] == nil:
		s.keep(&entry{n: l.N, id: l.ID, kind: l.Type, room: l.Room, at: time.UnixMilli(l.Ms), body: l.Body})
		s.last = l.N
	}
}

func (s *Sender) keep(e *entry) {
	s.entries = append(s.entries, e)
	s.byID[e.id] = e
	s.bytes += e.size()
}

// store puts what is new into the journal, and then lets it be delivered.
func (s *Sender) store(now time.Time) {
	s.mu.Lock()
	events, marks := s.incoming, s.marks
	s.incoming, s.marks = nil, nil
	s.mu.Unlock()
	if len(events)+len(marks) == 0 {
		return
	}
	j := s.journal
	err := j.append(events, marks)
	if err != nil && !j.behind {
		s.log.Error("the webhooks' outbox cannot be written; it goes on in memory", "err", err)
	}
	j.behind = j.behind || err != nil
	s.receive(now, events)
	if now.Before(j.again) || !j.behind && j.size <= 4<<20+4*int64(s.kept()) {
		return
	}
	if err := s.rewrite(); err != nil {
		j.again = now.Add(rewriteAgain)
		s.log.Error("the webhooks' outbox cannot be written anew", "err", err)
	}
}

// rewriteAgain is how long a file is left as it is that could not be written anew.
const rewriteAgain = time.Minute

func (s *Sender) kept() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// receive lets events be delivered that are in the journal.
func (s *Sender) receive(now time.Time, events []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		s.keep(e)
		for _, t := range s.targets {
			if t.wants(e.kind) {
				t.add(e)
			}
		}
	}
	s.prune(now)
}

// prune lets the oldest events go that are beyond the bounds.
func (s *Sender) prune(now time.Time) {
	n := 0
	for n < len(s.entries) && (len(s.entries)-n > MaxEvents || s.bytes > MaxBytes || now.Sub(s.entries[n].at) > MaxAge) {
		e := s.entries[n]
		s.bytes -= e.size()
		delete(s.byID, e.id)
		for _, t := range s.targets {
			if t.drop(e) {
				s.drop("full", 1)
			}
		}
		n++
	}
	s.entries = s.entries[n:]
}

// append writes lines at the end, events so that they are on the disk.
func (j *journal) append(events []*entry, marks []mark) error {
	if j.path == "" || j.file == nil {
		return nil
	}
	var b bytes.Buffer
	if j.torn {
		b.WriteByte('\n')
	}
	if err := encode(&b, events, marks); err != nil {
		return err
	}
	n, err := j.file.Write(b.Bytes())
	j.size += int64(n)
	j.torn = err != nil
	if err == nil && len(events) > 0 {
		err = j.file.Sync()
	}
	return err
}

// rewrite makes the file anew, of what is still of use. The lock is held only to find that out.
func (s *Sender) rewrite() error {
	if s.journal.path == "" {
		return nil
	}
	var marks []mark
	s.mu.Lock()
	entries := slices.Clone(s.entries)
	first := s.last
	switch {
	case len(entries) > 0:
		first = entries[0].n - 1
	case len(s.incoming) > 0:
		first = s.incoming[0].n - 1
	}
	for _, t := range s.targets {
		marks = append(marks, mark{To: t.key, From: &first})
		for _, e := range entries {
			if !t.has(e) {
				marks = append(marks, mark{Done: e.n, To: t.key})
			}
		}
	}
	s.mu.Unlock()
	var b bytes.Buffer
	if err := encode(&b, entries, marks); err != nil {
		return err
	}
	return s.journal.replace(b.Bytes())
}

func encode(b *bytes.Buffer, events []*entry, marks []mark) error {
	out := json.NewEncoder(b)
	for _, e := range events {
		if err := out.Encode(lineOf(e)); err != nil {
			return err
		}
	}
	for _, m := range marks {
		if err := out.Encode(line{mark: m}); err != nil {
			return err
		}
	}
	return nil
}

// replace puts a new file in place of the one that there is, and goes on in it.
func (j *journal) replace(data []byte) error {
	made := j.path + ".new"
	f, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(made, j.path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(made))
	}
	_ = j.close()
	j.file, j.size, j.torn, j.behind = f, int64(len(data)), false, false
	dir, err := os.Open(filepath.Dir(j.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
