package packager

import (
	"bytes"
	"compress/gzip"
	"sync"

	"github.com/amphi-sfu/amphi/hls/playlist"
)

// Published is a media playlist as it is from one part to the next. It is
// immutable; a thousand waiting players share one.
type Published struct {
	*playlist.Snapshot
	next  chan struct{}
	gzips [3]struct {
		once sync.Once
		b    []byte
	}
	tags [3]struct {
		once sync.Once
		s    string
	}
}

// Tag is different for every text, and the same on every node for the same text.
func (p *Published) Tag(k playlist.Skip) string {
	t := &p.tags[k]
	t.once.Do(func() { t.s = playlist.Tag(p.Bytes(k)) })
	return t.s
}

// Next is closed when a newer one has been published.
func (p *Published) Next() <-chan struct{} { return p.next }

// Gzip is Bytes compressed, done at most once per form.
func (p *Published) Gzip(k playlist.Skip) []byte {
	g := &p.gzips[k]
	g.once.Do(func() {
		var b bytes.Buffer
		// BestSpeed is a known level and a bytes.Buffer takes everything: no error is possible.
		w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		_, _ = w.Write(p.Bytes(k))
		_ = w.Close()
		g.b = b.Bytes()
	})
	return g.b
}
