package trunk

import (
	"encoding/binary"
	"time"

	"github.com/amphi-sfu/amphi/media/nack"
)

const (
	// maxLabels is how many labels of one trunk are followed, each way; of more, what is
	// lost stays lost.
	maxLabels = 16384
	// labelIdle is after which silence a label is forgotten.
	labelIdle = int64(10 * time.Second)
	// maxMissing is how many packets of one label are asked for at a time.
	maxMissing = 512
	// reorderWait is how long a gap may be mere reordering, where none has been seen lately.
	reorderWait = 2 * time.Millisecond
	// requestSize and goneSize are the entries of their records, in bytes.
	requestSize = 12
	goneSize    = 16
	// maxEntries is how many entries one record has: it fits any MTU.
	maxEntries = 72
	// requestSpan is how many packets one entry of a request can name.
	requestSpan = 17
)

// request names RTP packets of one label: ext, and of the 16 after it those whose bit is set.
type request struct {
	label uint32
	ext   uint64
	mask  uint16
}

// gone names RTP packets of one label that will not come.
type gone struct {
	label       uint32
	first, last uint64
}

func appendUint48(dst []byte, v uint64) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(v>>32))
	return binary.BigEndian.AppendUint32(dst, uint32(v))
}

func uint48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

func (r request) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, r.label)
	return binary.BigEndian.AppendUint16(appendUint48(dst, r.ext), r.mask)
}

// parseRequests appends the entries of a Request's payload to dst; false when it is none.
func parseRequests(b []byte, dst []request) ([]request, bool) {
	if len(b) == 0 || len(b)%requestSize != 0 || len(b) > maxEntries*requestSize {
		return dst, false
	}
	for ; len(b) > 0; b = b[requestSize:] {
		dst = append(dst, request{binary.BigEndian.Uint32(b), uint48(b[4:]), binary.BigEndian.Uint16(b[10:])})
	}
	return dst, true
}

func (g gone) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, g.label)
	return appendUint48(appendUint48(dst, g.first), g.last)
}

// parseGone appends the entries of a Gone's payload to dst; false when it is none.
func parseGone(b []byte, dst []gone) ([]gone, bool) {
	if len(b) == 0 || len(b)%goneSize != 0 || len(b) > maxEntries*goneSize {
		return dst, false
	}
	for ; len(b) > 0; b = b[goneSize:] {
		g := gone{binary.BigEndian.Uint32(b), uint48(b[4:]), uint48(b[10:])}
		if g.last < g.first {
			return dst, false
		}
		dst = append(dst, g)
	}
	return dst, true
}

// inLabel is a label of ours that the other end sends.
type inLabel struct {
	label   uint32
	gaps    *nack.Generator
	heard   int64
	lacking bool // in repairs.lacking
}

// repairs finds out what is missing of every label, and asks for it.
type repairs struct {
	labels  map[uint32]*inLabel
	lacking []*inLabel
	rtt     time.Duration
	wire    []uint16 // scratch
	done    nack.Stats
}

// take notes an RTP packet that came; repaired says that it was asked for.
func (r *repairs) take(label uint32, ext uint64, repaired bool, now int64) {
	l := r.labels[label]
	if l == nil {
		if len(r.labels) >= maxLabels {
			return
		}
		gaps, err := nack.New(nack.Config{
			Separate: true, RTT: max(r.rtt, time.Millisecond), MaxMissing: maxMissing, ReorderWait: reorderWait,
		})
		if err != nil {
			return // the constants above are wrong, as every test would tell
		}
		l = &inLabel{label: label, gaps: gaps}
		if r.labels == nil {
			r.labels = map[uint32]*inLabel{}
		}
		r.labels[label] = l
	}
	l.heard = now
	if repaired {
		l.gaps.Repaired(ext, time.Duration(now))
	} else {
		l.gaps.Receive(ext, time.Duration(now))
	}
	if !l.lacking && l.gaps.Missing() > 0 {
		l.lacking = true
		r.lacking = append(r.lacking, l)
	}
}

// skip notes packets that will not come.
func (r *repairs) skip(g gone) {
	if l := r.labels[g.label]; l != nil {
		l.gaps.Skip(g.first, g.last)
	}
}

// setRTT says how long a request and its answer take.
func (r *repairs) setRTT(rtt time.Duration) {
	if d := rtt - r.rtt; d > -r.rtt/8 && d < r.rtt/8 && r.rtt != 0 {
		return
	}
	r.rtt = rtt
	for _, l := range r.labels {
		l.gaps.SetRTT(rtt)
	}
}

// due appends what to ask for now.
func (r *repairs) due(now int64, dst []request) []request {
	kept := r.lacking[:0]
	for _, l := range r.lacking {
		if len(dst) < maxEntries { // the rest is asked for at the next turn
			r.wire = l.gaps.Due(time.Duration(now), r.wire[:0])
			dst = appendRequests(dst, l.label, l.gaps.Highest(), r.wire)
		}
		if l.lacking = l.gaps.Missing() > 0; l.lacking {
			kept = append(kept, l)
		}
	}
	clear(r.lacking[len(kept):])
	r.lacking = kept
	return dst
}

func appendRequests(dst []request, label uint32, highest uint64, wire []uint16) []request {
	at := -1
	for _, w := range wire {
		ext := highest - uint64(uint16(highest)-w)
		if at >= 0 && ext-dst[at].ext < requestSpan {
			dst[at].mask |= 1 << (ext - dst[at].ext - 1)
			continue
		}
		at = len(dst)
		dst = append(dst, request{label: label, ext: ext})
	}
	return dst
}

// next is when due has something to say although nothing comes.
func (r *repairs) next() int64 {
	at := never
	for _, l := range r.lacking {
		if d, ok := l.gaps.Next(); ok {
			at = min(at, int64(d))
		}
	}
	return at
}

// forget lets go of labels that are silent.
func (r *repairs) forget(now int64) {
	for label, l := range r.labels {
		if now-l.heard > labelIdle && !l.lacking {
			addStats(&r.done, l.gaps.Stats())
			delete(r.labels, label)
		}
	}
}

// stats is what was missing and what came of it, of all labels so far.
func (r *repairs) stats() nack.Stats {
	s := r.done
	for _, l := range r.labels {
		addStats(&s, l.gaps.Stats())
	}
	return s
}

func addStats(s *nack.Stats, o nack.Stats) {
	s.Missing += o.Missing
	s.Requested += o.Requested
	s.Recovered += o.Recovered
	s.Reordered += o.Reordered
	s.Needless += o.Needless
	s.GivenUp += o.GivenUp
}
