package packager

import "sync"

// Object is an immutable file: an init section, a part, or a segment. Chunks are
// shared by everybody and must not be written to; a segment's are its parts'.
type Object struct {
	Chunks [][]byte
	Size   int
}

// partsKept is for how many finished segments parts can still be fetched by
// themselves: 10 s at 2 s a segment, beyond what any playlist lists.
const partsKept = 5

// store holds the objects of one media playlist in memory, and forgets.
type store struct {
	mu      sync.RWMutex // guards the fields below
	objects map[Name]Object
	bytes   int64

	kept []keptSegment // owned by the writer, oldest first
}

type keptSegment struct {
	name  Name
	parts []Name
}

func newStore() *store { return &store{objects: map[Name]Object{}} }

func (s *store) get(n Name) (Object, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[n]
	return o, ok
}

func (s *store) size() (objects int, bytes int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.objects), s.bytes
}

// put adds an init section or a part.
func (s *store) put(n Name, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[n] = Object{Chunks: [][]byte{b}, Size: len(b)}
	s.bytes += int64(len(b))
}

// finish makes a segment of parts that were put (none: the name is taken by a gap),
// then forgets parts of old segments and segments beyond keep.
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
	s.kept = append(s.kept, keptSegment{n, parts})
	if i := len(s.kept) - 1 - partsKept; i >= 0 {
		for _, p := range s.kept[i].parts {
			delete(s.objects, p)
		}
		s.kept[i].parts = nil
	}
	for len(s.kept) > keep {
		gone := s.kept[0]
		for _, p := range gone.parts {
			delete(s.objects, p)
		}
		s.bytes -= int64(s.objects[gone.name].Size)
		delete(s.objects, gone.name)
		s.kept = s.kept[1:]
	}
}
