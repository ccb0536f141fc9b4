package trunk

import (
	"context"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/udp"
)

// read takes records from the socket until it is closed.
func (s *Set) read() {
	r := s.sock.NewReader()
	var scratch []byte
	for {
		batch, err := r.ReadBatch()
		if err != nil {
			return
		}
		now := s.cfg.Now()
		for i := range batch {
			scratch = s.receive(batch[i], scratch, now)
		}
		if s.deps.Flush != nil {
			s.deps.Flush()
		}
	}
}

// receive takes one datagram. scratch is for packets to send again; it returns it, maybe grown.
func (s *Set) receive(d udp.Datagram, scratch []byte, now int64) []byte {
	h, err := record.Parse(d.Data)
	if err != nil {
		s.drops.add(reasonOf(err))
		return scratch
	}
	c := s.table.Load().byID[h.Conn]
	if c == nil {
		s.drops.add(dropConn)
		return scratch
	}
	h, payload, err := c.line.open(d.Data, now)
	if err != nil {
		s.drops.add(reasonOf(err))
		return scratch
	}
	c.moved(d.From, h.Number)
	came := now - int64(d.Age) // a node that is held up is not a narrow path
	poke := false
	switch h.Type {
	case record.Media, record.Repair:
		if !s.deps.Handler.TrunkMedia(c.node, h.Label, h.Ext, payload, came) {
			s.drops.add(dropLabel)
			h.Type = record.Padding // it came, but nothing of it is to be asked for again
		}
		poke, err = c.line.took(h, payload, came)
	case record.Request:
		poke = true
		err = c.line.answer(h, payload, now, func(label uint32, ext uint64) []byte {
			scratch = s.deps.Handler.TrunkPacket(c.node, label, ext, scratch[:0])
			return scratch
		})
	case record.Report: // its reader's clock must not go back
		poke, err = c.line.took(h, payload, now)
	default:
		poke, err = c.line.took(h, payload, came)
	}
	if err != nil {
		s.drops.add(reasonOf(err))
	}
	if poke {
		s.poke(c)
	}
	return scratch
}

// write polls the lines that have something to do, and sends what they write, until ctx ends.
func (s *Set) write(ctx context.Context) {
	sender := s.sock.NewSender()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		list := s.table.Load().list
		next := never
		for _, c := range list {
			if now := s.cfg.Now(); c.dirty.Swap(false) || c.at <= now {
				c.pollInto(sender, now)
			}
			next = min(next, c.at)
		}
		sender.Flush()
		for _, c := range list {
			c.tell()
		}
		pause := time.Hour
		if next != never {
			pause = time.Duration(next - s.cfg.Now())
		}
		if pause <= 0 {
			continue
		}
		timer.Reset(pause)
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}
