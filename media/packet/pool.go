package packet

import (
	"sync"
	"sync/atomic"

	"github.com/amphi-sfu/amphi/media/descriptor"
)

// Pool recycles packets. The zero value is ready; it is safe for concurrent use.
type Pool struct {
	free sync.Pool
	live atomic.Int64
}

// Get returns a packet with one reference, which the caller owns. Its fields are
// zero, its buffer holds whatever was there before.
func (p *Pool) Get() *Packet {
	pkt, ok := p.free.Get().(*Packet)
	if !ok {
		pkt = &Packet{pool: p}
	}
	p.live.Add(1)
	pkt.refs.Store(1)
	pkt.AudioLevel = NoAudioLevel
	return pkt
}

// Live returns how many packets are out of the pool now.
func (p *Pool) Live() int64 { return p.live.Load() }

// Buffer returns the packet's whole buffer, MaxSize bytes, to be filled before
// the packet is handed to anybody; Payload has to be a part of it.
func (p *Packet) Buffer() []byte { return p.buf[:] }

// Retain adds a reference.
func (p *Packet) Retain() { p.refs.Add(1) }

// Release gives back one reference; the last one returns the packet to its pool.
// Releasing more often than retaining is a bug and panics.
func (p *Packet) Release() {
	switch n := p.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("packet: released too often")
	}
	pool := p.pool
	if pool == nil {
		return
	}
	p.reset()
	pool.live.Add(-1)
	pool.free.Put(p)
}

func (p *Packet) reset() {
	p.ExtSeq, p.Timestamp, p.SSRC, p.PayloadType = 0, 0, 0, 0
	p.Marker, p.Keyframe, p.StartOfFrame = false, false, false
	p.ArrivalNS, p.Payload, p.Counters = 0, nil, Counters{}
	if p.Frame.Structure != nil || p.Descriptor != nil {
		p.Frame, p.Descriptor = descriptor.Frame{}, nil
	}
}
