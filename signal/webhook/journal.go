package webhook

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// journal is the outbox's file: lines of JSON, appended; written anew when most of it is of no use any more. Without a
// directory there is none.
type journal struct {
	path string
	file *os.File
	size int64
	// torn: the last write failed half-way.
	torn bool
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
	in := bufio.NewScanner(f)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	bad := 0
	for in.Scan() {
		var l line
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		if json.Unmarshal(in.Bytes(), &l) != nil {
			bad++
			continue
		}
		s.take(&l, owed, from)
	}
	if bad > 0 {
		s.log.Warn("lines of the webhooks' outbox are left out", "lines", bad)
	}
	return in.Err()
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
	if err := s.journal.append(events, marks); err != nil {
		s.log.Error("the webhooks' outbox cannot be written; it goes on in memory", "err", err)
	}
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
	if s.journal.size > 4<<20+4*int64(s.bytes) {
		if err := s.rewrite(); err != nil {
			s.log.Error("the webhooks' outbox cannot be written anew", "err", err)
		}
	}
}

// prune lets the oldest events go that are beyond the bounds.
func (s *Sender) prune(now time.Time) {
	n := 0
	for n < len(s.entries) && (len(s.entries)-n > MaxEvents || s.bytes > MaxBytes || now.Sub(s.entries[n].at) > MaxAge) {
		e := s.entries[n]
		s.bytes -= e.size()
		delete(s.byID, e.id)
		for _, t := range s.targets {
			if l := t.lanes[e.room]; l != nil && len(l.queue) > 0 && l.queue[0] == e && !l.flying {
				t.pop(l)
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
	out := json.NewEncoder(&b)
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
	n, err := j.file.Write(b.Bytes())
	j.size += int64(n)
	j.torn = err != nil
	if err == nil && len(events) > 0 {
		err = j.file.Sync()
	}
	return err
}

// rewrite makes the file anew, of what is still of use.
func (s *Sender) rewrite() error {
	j := s.journal
	if j.path == "" {
		return nil
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	for _, e := range s.entries {
		if err := out.Encode(lineOf(e)); err != nil {
			return err
		}
	}
	for _, t := range s.targets {
		first := s.last
		if len(s.entries) > 0 {
			first = s.entries[0].n - 1
		}
		if err := out.Encode(line{mark: mark{To: t.key, From: &first}}); err != nil {
			return err
		}
		for _, e := range s.entries {
			if t.has(e) {
				continue
			}
			if err := out.Encode(line{mark: mark{Done: e.n, To: t.key}}); err != nil {
				return err
			}
		}
	}
	made := j.path + ".new"
	if err := writeSynced(made, b.Bytes()); err != nil {
		return err
	}
	if err := os.Rename(made, j.path); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_ = j.close()
	j.file, j.size, j.torn = f, int64(b.Len()), false
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
