package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
)

// Keys that Raft keeps, and the file: two slots, written in turn, of checksum (4 bytes), number (8), term (8), term of the
// last vote (8), length of the candidate's id (2) and the id. The newest whole slot counts.
const (
	keyTerm      = "CurrentTerm"
	keyVoteTerm  = "LastVoteTerm"
	keyCandidate = "LastVoteCand"
	slotSize     = 4096
	slotHeader   = 30
	maxCandidate = slotSize - slotHeader
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// votes is what a node must not forget between elections, in a file that never grows: a full disk must not keep a
// running node from following a new leader, for Raft ends the process when it cannot keep its term.
type votes struct {
	mu     sync.Mutex // guards the fields below
	file   *os.File
	number uint64
	kept   slot
}

type slot struct {
	term, voteTerm uint64
	candidate      []byte
}

func openVotes(name string) (*votes, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	v := &votes{file: f}
	if err := v.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return v, nil
}

func (v *votes) load() error {
	data := make([]byte, 2*slotSize)
	n, _ := v.file.ReadAt(data, 0)
	if n < len(data) {
		if n > 0 {
			return errors.New("the file is too short")
		}
		// Every block is written once, so that later writes need no room.
		if _, err := v.file.WriteAt(data, 0); err != nil {
			return err
		}
		if err := v.write(); err != nil {
			return err
		}
		return v.write()
	}
	found := false
	for i := range 2 {
		if number, s, ok := readSlot(data[i*slotSize : (i+1)*slotSize]); ok && (!found || number > v.number) {
			v.number, v.kept, found = number, s, true
		}
	}
	if !found {
		return errors.New("both slots are damaged")
	}
	return nil
}

func readSlot(b []byte) (number uint64, s slot, ok bool) {
	if crc32.Checksum(b[4:], castagnoli) != binary.BigEndian.Uint32(b) {
		return 0, slot{}, false
	}
	n := int(binary.BigEndian.Uint16(b[28:]))
	if n > maxCandidate {
		return 0, slot{}, false
	}
	s = slot{term: binary.BigEndian.Uint64(b[12:]), voteTerm: binary.BigEndian.Uint64(b[20:])}
	if n > 0 {
		s.candidate = append([]byte(nil), b[slotHeader:slotHeader+n]...)
	}
	return binary.BigEndian.Uint64(b[4:]), s, true
}

func (v *votes) write() error {
	b := make([]byte, slotSize)
	v.number++
	binary.BigEndian.PutUint64(b[4:], v.number)
	binary.BigEndian.PutUint64(b[12:], v.kept.term)
	binary.BigEndian.PutUint64(b[20:], v.kept.voteTerm)
	binary.BigEndian.PutUint16(b[28:], uint16(len(v.kept.candidate)))
	copy(b[slotHeader:], v.kept.candidate)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	if _, err := v.file.WriteAt(b, int64(v.number%2)*slotSize); err != nil {
		return err
	}
	return v.file.Sync()
}

// Set implements raft.StableStore for the keys above, as do the other methods.
func (v *votes) Set(key, val []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if string(key) != keyCandidate || len(val) > maxCandidate {
		return fmt.Errorf("there is no place for %q", key)
	}
	v.kept.candidate = append([]byte(nil), val...)
	return v.write()
}

// Get returns an empty value for what was never set.
func (v *votes) Get(key []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if string(key) != keyCandidate {
		return nil, fmt.Errorf("there is no place for %q", key)
	}
	return v.kept.candidate, nil
}

// SetUint64 returns when the number is on disk.
func (v *votes) SetUint64(key []byte, val uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch string(key) {
	case keyTerm:
		v.kept.term = val
	case keyVoteTerm:
		v.kept.voteTerm = val
	default:
		return fmt.Errorf("there is no place for %q", key)
	}
	return v.write()
}

// GetUint64 returns 0 for what was never set.
func (v *votes) GetUint64(key []byte) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch string(key) {
	case keyTerm:
		return v.kept.term, nil
	case keyVoteTerm:
		return v.kept.voteTerm, nil
	}
	return 0, fmt.Errorf("there is no place for %q", key)
}

// Close closes the file.
func (v *votes) Close() error { return v.file.Close() }
