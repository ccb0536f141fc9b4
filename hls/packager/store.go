package packager

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/amphi-sfu/amphi/hls/spill"
)

// Object is an immutable file: an init section, a part, or a segment. Chunks are
// shared by everybody and must not be written to; a segment's are its parts'. An old
// segment is on disk instead.
type Object struct {
	Chunks [][]byte
	Size   int
	File   string
}

// Read returns the object's bytes, from disk if they are there.
func (o Object) Read() ([][]byte, error) {
	if o.File == "" {
		return o.Chunks, nil
	}
	b, err := os.ReadFile(o.File)
	return [][]byte{b}, err
}

// partsKept is for how many finished segments parts can still be fetched by
// themselves: 10 s at 2 s a segment, beyond what any playlist lists. Older segments may be on disk.
const partsKept = 5

// maxInMemory is how many segments of a playlist memory holds at most while there is a disk.
const maxInMemory = 2*liveWindow + 1

// Disk keeps old segments; *spill.Folder is one.
type Disk interface {
	// Put asks for a file; done is called by another goroutine. False: not now.
	Put(name string, chunks [][]byte, done func(path string, err error)) bool
	Remove(path string)
}

// store holds the objects of one media playlist, and forgets.
type store struct {
	disk Disk   // nil: everything is in memory
	name string // of the media playlist

	mu      sync.RWMutex // guards the fields below
	objects map[Name]Object
	bytes   int64 // in memory
	onDisk  int64 // bytes
	trouble error // why the disk does not take all
	fresh   bool  // trouble came since it was asked about

	kept []keptSegment // oldest first
}

type keptSegment struct {
	name   Name
	parts  []Name
	asked  bool // to be written
	inFile bool
}

func newStore(name string, disk Disk) *store {
	return &store{name: name, disk: disk, objects: map[Name]Object{}}
}

func (s *store) get(n Name) (Object, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[n]
	return o, ok
}

func (s *store) size() (objects int, bytes, onDisk int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.objects), s.bytes, s.onDisk
}

// troubled says why the disk does not take all, and whether that is new since the last time.
func (s *store) troubled() (err error, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err, fresh = s.trouble, s.fresh
	s.fresh = false
	return err, fresh
}

// put adds an init section or a part.
func (s *store) put(n Name, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[n] = Object{Chunks: [][]byte{b}, Size: len(b)}
	s.bytes += int64(len(b))
}

// finish makes a segment of parts that were put (none: the name is taken by a gap),
// then forgets parts of old segments and segments beyond keep, and brings old ones to disk.
func (s *store) finish(n Name, parts []Name, keep int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var o Object
	for _, p := range parts {
		for _, c := range s.objects[p].Chunks {
			o.Chunks = append(o.Chunks, c)
			o.Size += len(c)
		}
	}
	if len(o.Chunks) > 0 {
		s.objects[n] = o
	}
	s.kept = append(s.kept, keptSegment{name: n, parts: parts})
	if i := len(s.kept) - 1 - partsKept; i >= 0 {
		for _, p := range s.kept[i].parts {
			delete(s.objects, p)
		}
		s.kept[i].parts = nil
	}
	for len(s.kept) > keep {
		s.dropLocked(s.kept[0])
		s.kept = s.kept[1:]
	}
	if s.disk != nil && !s.givenUpLocked() {
		s.spillLocked()
	}
}

func (s *store) dropLocked(gone keptSegment) {
	for _, p := range gone.parts {
		delete(s.objects, p)
	}
	o := s.objects[gone.name]
	delete(s.objects, gone.name)
	if o.File != "" {
		s.onDisk -= int64(o.Size)
		s.disk.Remove(o.File)
		return
	}
	s.bytes -= int64(o.Size)
}

var errSlow = errors.New("the disk is too slow for the segments")

// spillLocked asks the disk to take segments whose parts are forgotten, the oldest in memory first.
func (s *store) spillLocked() {
	inMemory := 0
	for i := len(s.kept) - 1; i >= 0 && !s.kept[i].inFile; i-- {
		inMemory++
	}
	if inMemory > maxInMemory {
		err := errSlow
		if s.trouble != nil { // not wrapped: full is not all that is wrong any more
			err = fmt.Errorf("%v, and too many segments wait", s.trouble)
		}
		s.troubleLocked(err)
		return
	}
	for i := len(s.kept) - inMemory; i < len(s.kept)-partsKept; i++ {
		k := &s.kept[i]
		o, ok := s.objects[k.name]
		switch {
		case !ok:
			k.inFile = true // a gap
		case !k.asked:
			n := k.name
			k.asked = s.disk.Put(s.name+"-"+n.String(), o.Chunks, func(path string, err error) { s.written(n, path, err) })
			if !k.asked {
				return
			}
		}
	}
}

// written takes the disk's answer.
func (s *store) written(n Name, path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var k *keptSegment
	for i := range s.kept {
		if s.kept[i].name == n {
			k = &s.kept[i]
			break
		}
	}
	switch o := s.objects[n]; {
	case err != nil:
		s.troubleLocked(err)
		if k != nil {
			k.asked = false
		}
	case k == nil:
		s.disk.Remove(path)
	default:
		k.inFile = true
		s.bytes -= int64(o.Size)
		s.onDisk += int64(o.Size)
		s.objects[n] = Object{Size: o.Size, File: path}
	}
}

// troubleLocked notes an error; that of a disk given up is the last.
func (s *store) troubleLocked(err error) {
	if !s.givenUpLocked() {
		s.trouble, s.fresh = err, true
	}
}

// givenUpLocked says that the disk is asked for nothing any more.
func (s *store) givenUpLocked() bool { return s.trouble != nil && !isFull(s.trouble) }

// isFull says that the disk works, but has no room.
func isFull(err error) bool { return errors.Is(err, spill.ErrFull) }
