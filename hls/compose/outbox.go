package compose

import (
	"sync"

	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media/packet"
)

// maxControl bounds control frames that wait; a process that leaves so many unread is
// stuck.
const maxControl = 12 << 20

// outbox holds the frames on their way to the process. Control goes first and is never
// dropped; packets are, when the process does not read fast enough.
type outbox struct {
	maxMedia int
	wake     chan struct{} // has a token when there is something to take

	mu      sync.Mutex // guards the fields below
	control []byte
	media   []byte
	spare   []byte // the buffer that was written last, to be filled again
}

func newOutbox(maxMedia int) *outbox {
	return &outbox{maxMedia: maxMedia, wake: make(chan struct{}, 1)}
}

// rtp queues a packet; the reason is empty when it was.
func (o *outbox) rtp(input uint32, p *packet.Packet) Drop {
	h := wire.RTPHeader{
		PayloadType: p.PayloadType, Marker: p.Marker, SequenceNumber: uint16(p.ExtSeq), Timestamp: p.Timestamp, SSRC: p.SSRC,
	}
	o.mu.Lock()
	if len(o.media)+len(p.Payload)+64 > o.maxMedia {
		o.mu.Unlock()
		return DropQueueFull
	}
	b, err := wire.AppendRTP(o.media, input, h, p.Payload)
	o.media = b
	o.mu.Unlock()
	if err != nil {
		return DropTooLong
	}
	o.signal()
	return ""
}

// report queues a sender report. They count as media: the next one says the same.
func (o *outbox) report(input uint32, sr packet.SenderReport) Drop {
	o.mu.Lock()
	if len(o.media)+64 > o.maxMedia {
		o.mu.Unlock()
		return DropQueueFull
	}
	o.media = wire.AppendSenderReport(o.media, wire.SenderReport{Input: input, SSRC: sr.SSRC, NTP: sr.NTP, RTP: sr.RTP})
	o.mu.Unlock()
	o.signal()
	return ""
}

// addControl queues control frames; false when far too many are unread.
func (o *outbox) addControl(frames []byte) bool {
	o.mu.Lock()
	o.control = append(o.control, frames...)
	ok := len(o.control) <= maxControl
	o.mu.Unlock()
	o.signal()
	return ok
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take returns all that waits, control first; done gives the media's buffer back.
func (o *outbox) take() (control, media []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	control, media = o.control, o.media
	o.control = nil
	o.media, o.spare = o.spare[:0], nil
	return control, media
}

func (o *outbox) done(media []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spare = media
}
