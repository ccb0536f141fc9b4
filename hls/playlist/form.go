package playlist

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
)

// Form is one text of a playlist, which any number of players may be given. It is immutable; plain and compressed it is made when
// somebody asks first. What that costs grows with the segments that came lately, and hardly with how many are listed: those of the
// past are compressed once for all playlists that list them.
type Form struct {
	front []byte // all of it, where there is no past
	lead  []byte // EXT-X-MAP of the first segment, if that does not show it
	past  past
	tail  []byte
	packs *packers // nil for one that is compressed already

	plainOnce, zipOnce, tagOnce sync.Once
	plain, zipped               []byte
	tag                         string
}

// NewForm is a text that is there already, compressed too.
func NewForm(plain, zipped []byte) *Form { return &Form{front: plain, zipped: zipped} }

// Size is how many bytes there are.
func (t *Form) Size() int { return len(t.front) + len(t.lead) + t.past.bytes + len(t.tail) }

// Bytes is the text; it must not be written to.
func (t *Form) Bytes() []byte {
	t.plainOnce.Do(func() {
		if len(t.front) == t.Size() {
			t.plain = t.front
			return
		}
		b := make([]byte, 0, t.Size())
		b = append(append(b, t.front...), t.lead...)
		t.plain = append(t.past.append(b), t.tail...)
	})
	return t.plain
}

// gzipHead is a member's header (RFC 1952): deflate, no name, no time, compressed fast, of an unknown system.
const gzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"

// Gzip is the text compressed by gzip; it must not be written to.
func (t *Form) Gzip() []byte {
	t.zipOnce.Do(func() {
		if t.zipped != nil {
			return
		}
		b := bytes.NewBufferString(gzipHead) // takes everything
		w := t.packs.pool.Get().(*flate.Writer)
		defer t.packs.pool.Put(w)
		w.Reset(b)
		var sum uint32
		size := 0
		count := func(s []byte) []byte {
			sum, size = crc32.Update(sum, crc32.IEEETable, s), size+len(s)
			return s
		}
		put := func(s []byte) { _, _ = w.Write(count(s)) }
		put(t.front)
		put(t.lead)
		chunks := t.past.chunks
		if len(chunks) > 0 {
			if !t.past.whole() {
				put(chunks[0].rest(t.past.gone))
				chunks = chunks[1:]
			}
			_ = w.Flush()
			for _, c := range chunks {
				count(c.text)
				_, _ = b.Write(c.pack(w))
			}
			w.Reset(b)
		}
		for _, s := range t.past.loose {
			put(s)
		}
		put(t.tail)
		_ = w.Close()
		end := binary.LittleEndian.AppendUint32(b.AvailableBuffer(), sum)
		_, _ = b.Write(binary.LittleEndian.AppendUint32(end, uint32(size)))
		t.zipped = b.Bytes()
	})
	return t.zipped
}

// Tag names the text among all that its URL ever has, the same on every node. The past is no part of it: what follows tells which
// program it is of, and the front where it begins.
func (t *Form) Tag() string {
	t.tagOnce.Do(func() {
		if t.past.len() == 0 {
			t.tag = Tag(t.Bytes())
			return
		}
		t.tag = Tag(slices.Concat(t.front, t.tail)) + "w"
	})
	return t.tag
}

// Tag names a playlist's text, the same on every node.
func Tag(text []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(text) // a hash takes everything
	return strconv.FormatUint(h.Sum64(), 36)
}
