package playlist

import (
	"bytes"
	"compress/flate"
	"slices"
	"sync"
)

// chunkLen is how many old segments are compressed together, once.
const chunkLen = 128

// past is the text of the segments beyond the skip boundary. It never changes but at its ends: segments are added behind, and leave
// in front. A copy is a view that stays as it is while the original goes on; both share the text.
type past struct {
	first, next uint64   // media sequence numbers of the oldest segment, and of the one to come
	chunks      []*chunk // each up to a multiple of chunkLen, so that every node compresses the same together
	gone        int      // how many of the first chunk have left
	loose       [][]byte // the newest
	bytes       int
}

// chunk is the text of segments in a row: chunkLen of them, or less where a past began within.
type chunk struct {
	text []byte
	ends []int // of each segment's text

	once   sync.Once
	packed []byte
}

// pack compresses the chunk to blocks of deflate that refer to nothing outside, end with a byte, and are not the last.
func (c *chunk) pack(w *flate.Writer) []byte {
	c.once.Do(func() {
		var b bytes.Buffer // takes everything
		w.Reset(&b)
		_, _ = w.Write(c.text)
		_ = w.Flush()
		c.packed = b.Bytes()
	})
	return c.packed
}

// packers keeps what compresses: a writer has a megabyte of tables, which takes longer to make than a playlist to compress.
type packers struct{ pool sync.Pool }

func newPackers() *packers {
	return &packers{sync.Pool{New: func() any {
		w, _ := flate.NewWriter(nil, flate.BestSpeed) // a known level: no error is possible
		return w
	}}}
}

// rest is the text from segment i on.
func (c *chunk) rest(i int) []byte {
	if i == 0 {
		return c.text
	}
	return c.text[c.ends[i-1]:]
}

func (p *past) len() int { return int(p.next - p.first) }

// add appends a segment's text, which must not change afterwards.
func (p *past) add(text []byte) {
	p.loose = append(p.loose, text)
	p.bytes += len(text)
	if p.next++; p.next%chunkLen > 0 {
		return
	}
	c := &chunk{text: slices.Concat(p.loose...)}
	end := 0
	for _, s := range p.loose {
		end += len(s)
		c.ends = append(c.ends, end)
	}
	p.chunks, p.loose = append(p.chunks, c), nil
}

// whole says that the first chunk is one, and nothing of it has left.
func (p *past) whole() bool { return p.gone == 0 && len(p.chunks[0].ends) == chunkLen }

// oldest is the text of the segment that leaves next; there must be one.
func (p *past) oldest() []byte {
	if len(p.chunks) == 0 {
		return p.loose[0]
	}
	c := p.chunks[0]
	return c.text[len(c.text)-len(c.rest(p.gone)) : c.ends[p.gone]]
}

// shift takes the oldest segment away; there must be one.
func (p *past) shift() {
	p.first++
	p.bytes -= len(p.oldest())
	if len(p.chunks) == 0 {
		p.loose = p.loose[1:]
	} else if p.gone++; p.gone == len(p.chunks[0].ends) {
		p.chunks, p.gone = p.chunks[1:], 0
	}
}

// append writes it all.
func (p *past) append(b []byte) []byte {
	for i, c := range p.chunks {
		if i == 0 {
			b = append(b, c.rest(p.gone)...)
			continue
		}
		b = append(b, c.text...)
	}
	for _, s := range p.loose {
		b = append(b, s...)
	}
	return b
}
