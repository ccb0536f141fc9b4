package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// life is one process from its start to its end.
type life struct {
	c    *Child
	conn net.Conn
	box  *outbox
	dead chan struct{} // closed when the process has been waited for

	once   sync.Once
	cause  error         // why it ends; set before ending is closed
	ending chan struct{} // closed when it shall end
}

// abort ends the life for a reason; the first one counts.
func (l *life) abort(err error) {
	l.once.Do(func() {
		l.cause = err
		close(l.ending)
	})
}

// live runs one process to its end and says why it ended.
func (c *Child) live(ctx context.Context) error {
	conn, childEnd, err := wire.Pair()
	if err != nil {
		return err
	}
	l := &life{c: c, conn: conn, box: newOutbox(c.cfg.MaxQueue), dead: make(chan struct{}), ending: make(chan struct{})}
	c.note(func(s *Stats) {
		s.State, s.Compositor, s.FirstPicture = Starting, nil, 0
		s.Spawns++
	})
	begun := time.Now()
	p, err := c.spawn(childEnd, l.dead)
	_ = childEnd.Close() // the process has its own, and must see the end when ours closes
	if err != nil {
		_ = conn.Close()
		return err
	}
	c.note(func(s *Stats) { s.PID = p.cmd.Process.Pid })
	c.log.Info("compositor started", "pid", p.cmd.Process.Pid)

	var wg sync.WaitGroup
	if err := c.open(l); err != nil {
		l.abort(err)
	}
	wg.Go(func() { l.abort(l.write()) })
	wg.Go(func() { l.abort(l.read(begun)) })
	select {
	case <-ctx.Done():
		l.abort(errStopped)
	case <-l.dead:
		l.drain()
	case <-l.ending:
	}
	c.current.CompareAndSwap(l, nil)
	l.finish(p)
	wg.Wait()
	if exit := p.exit(); exit != "" && !errors.Is(l.cause, errStopped) {
		return fmt.Errorf("%w (%s)", l.cause, exit)
	}
	return l.cause
}

// drain lets the reader take what a dead process had still written.
func (l *life) drain() {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-l.ending: // the reader met the end
	case <-t.C:
		l.abort(errHangUp)
	}
}

// finish hangs up and waits for the process: with patience if it was asked to stop, a
// moment if it seems to be ending (then its status tells why), else not at all.
func (l *life) finish(p *process) {
	_ = l.conn.Close() // its end: the process ends by itself
	patience := time.Duration(0)
	switch {
	case errors.Is(l.cause, errStopped):
		patience = l.c.cfg.StopTimeout
	case errors.Is(l.cause, errHangUp), errors.Is(l.cause, syscall.EPIPE):
		patience = 100 * time.Millisecond
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-l.dead:
		return
	case <-t.C:
	}
	p.kill()
	<-l.dead
}

// write sends what waits until the socket closes.
func (l *life) write() error {
	for {
		select {
		case <-l.ending:
			return nil
		case <-l.box.wake:
		}
		control, media := l.box.take()
		for _, b := range [][]byte{control, media} {
			if len(b) == 0 {
				continue
			}
			if _, err := l.conn.Write(b); err != nil {
				return fmt.Errorf("writing to the compositor: %w", err)
			}
		}
		l.box.done(media)
	}
}

// read takes what the process says. Its deadline is the watchdog: pictures move it.
func (l *life) read(begun time.Time) error {
	r := reader{life: l, begun: begun}
	err := r.run()
	if r.ready {
		l.c.out.Gone()
	}
	return err
}

// reader is the receiving side of a life.
type reader struct {
	*life
	begun   time.Time
	ready   bool // Begin was called and not refused
	picture bool // one has come
	warned  bool // the watchdog's time is up, and the last grace runs
}

func (r *reader) run() error {
	if err := r.conn.SetReadDeadline(r.begun.Add(r.c.cfg.ReadyTimeout)); err != nil {
		return fmt.Errorf("setting the watchdog: %w", err)
	}
	frames := wire.NewReader(r.conn)
	for {
		f, err := frames.Next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if r.warned {
				return errSilent
			}
			// The machine may have stood still, not the process: what it sent meanwhile is
			// there now.
			r.warned = true
			if err := r.conn.SetReadDeadline(time.Now().Add(r.c.cfg.Watchdog / 4)); err != nil {
				return fmt.Errorf("setting the watchdog: %w", err)
			}
			continue
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
			return errHangUp
		case err != nil:
			return fmt.Errorf("reading from the compositor: %w", err)
		}
		if err := r.handle(f); err != nil {
			return err
		}
	}
}

// handle hands one frame on. A frame that makes no sense is counted; only a refused
// start is fatal.
func (r *reader) handle(f wire.Frame) error {
	out := r.c.out
	var err error
	switch f.Type {
	case wire.TypeReady:
		var ready *wire.Ready
		if ready, err = f.Ready(); err == nil && !r.ready {
			if err := out.Begin(ready); err != nil {
				return fmt.Errorf("beginning with a compositor: %w", err)
			}
			r.ready = true
		}
	case wire.TypeVideoAU:
		var au wire.VideoAU
		if au, err = f.VideoAU(); err == nil {
			return r.video(au)
		}
	case wire.TypeAudioAU:
		var au wire.AudioAU
		if au, err = f.AudioAU(); err == nil {
			out.Audio(au)
		}
	case wire.TypeKeyframeRequest:
		var k wire.KeyframeRequest
		if k, err = f.KeyframeRequest(); err == nil {
			out.KeyframeRequest(k.Input)
		}
	case wire.TypeStats:
		var st *wire.Stats
		if st, err = f.Stats(); err == nil {
			r.c.note(func(s *Stats) { s.Compositor = st })
		}
	default: // a frame that only goes the other way
		err = wire.ErrMalformed
	}
	if err != nil {
		r.c.note(func(s *Stats) { s.Malformed++ })
	}
	return nil
}

func (r *reader) video(au wire.VideoAU) error {
	now := time.Now()
	if !r.picture {
		r.picture = true
		r.c.note(func(s *Stats) { s.State, s.FirstPicture = Running, now.Sub(r.begun) })
		r.c.log.Info("compositor delivers", "first_tick", au.Tick, "after", now.Sub(r.begun).Round(time.Millisecond))
	}
	if au.Variant == int(r.c.lead.Load()) {
		r.c.observe(now, au)
	}
	r.c.out.Video(au)
	r.warned = false
	if err := r.conn.SetReadDeadline(now.Add(r.c.cfg.Watchdog)); err != nil {
		return fmt.Errorf("setting the watchdog: %w", err)
	}
	return nil
}
