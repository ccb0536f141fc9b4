package rtmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bluenviron/gortmplib"
	"github.com/bluenviron/gortmplib/pkg/message"
)

// Limits of one connection, in bytes.
const (
	maxHandshake = 64 << 10 // until it publishes
	maxUnpaid    = 12 << 20 // read beyond what came out as media
	perMessage   = 64       // headers
	maxKey       = 4096
)

// writeTimeout bounds an answer to an encoder that does not read.
const writeTimeout = 5 * time.Second

var (
	errFlood     = errors.New("more bytes than media")
	errBitrate   = errors.New("bit rate above the limit")
	errGone      = errors.New("nobody takes the publication any more")
	errNoPublish = errors.New("does not publish")
	errMedia     = errors.New("only H.264 and AAC are taken")
	errChanged   = errors.New("publication became another kind of stream")
)

// boundConn counts what is read against what it is good for.
type boundConn struct {
	net.Conn
	budget  int64 // bytes that may still be read; media adds to it
	paying  bool  // media comes
	idle    time.Duration
	perSec  int64
	credit  int64 // of the bit rate, in bytes
	since   time.Time
	current func() time.Time
	chunks  Chunks
}

// Read implements net.Conn.
func (c *boundConn) Read(b []byte) (int, error) {
	if c.idle > 0 {
		if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Read(b)
	if err := c.chunks.Take(b[:n]); err != nil {
		return 0, err
	}
	if c.budget -= int64(n); c.budget < 0 {
		return n, errFlood
	}
	if c.paying {
		now := c.current()
		burst := c.perSec * 4
		c.credit = min(c.credit+int64(now.Sub(c.since).Seconds()*float64(c.perSec)), burst) - int64(n)
		c.since = now
		if c.credit < -burst {
			return n, errBitrate
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *boundConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// publishes begins to count the bit rate, and lets the connection live.
func (c *boundConn) publishes(idle time.Duration, maxBitrate int) error {
	c.budget, c.paying, c.idle = maxUnpaid, true, idle
	c.perSec, c.since = int64(maxBitrate/8), c.current()
	return c.SetDeadline(time.Time{})
}

// pay adds a message to the budget.
func (c *boundConn) pay(n int) {
	c.budget = min(c.budget+int64(n)+int64(n)/16+perMessage, maxUnpaid)
}

// serve has one connection to its end.
func (s *Server) serve(ctx context.Context, raw net.Conn) {
	log := s.log.With("remote", raw.RemoteAddr().String())
	begun := time.Now()
	err := s.protected(ctx, raw)
	if ctx.Err() != nil {
		err = nil
	}
	log.Info("RTMP connection ended", "err", err, "after", time.Since(begun).Round(time.Millisecond))
}

// protected is session for bytes from anywhere: should the library that parses them panic, this connection ends and no other.
func (s *Server) protected(ctx context.Context, raw net.Conn) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("RTMP input that breaks its parser", "panic", fmt.Sprint(r))
			err = errors.New("bad input")
		}
	}()
	return s.session(ctx, raw)
}

func (s *Server) session(ctx context.Context, raw net.Conn) error {
	conn := &boundConn{Conn: raw, budget: maxHandshake, current: time.Now}
	limit := time.Now().Add(s.cfg.Handshake)
	if err := conn.SetDeadline(limit); err != nil {
		return err
	}
	early, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	server := &gortmplib.ServerConn{RW: conn}
	if err := server.Initialize(); err != nil {
		return short(err)
	}
	if err := server.Accept(); err != nil {
		return short(err)
	}
	if !server.Publish {
		return errNoPublish
	}
	app, key, ok := split(server.URL)
	if !ok {
		return errors.New("path is not /app/key")
	}
	publication, err := s.stage.Publish(early, Request{App: app, Key: key, Remote: raw.RemoteAddr().String()})
	if err != nil {
		return fmt.Errorf("not admitted: %w", err)
	}
	defer publication.Close()
	s.published.Add(1)
	if err := conn.publishes(s.cfg.Idle, s.cfg.MaxBitrate); err != nil {
		return err
	}
	// Whatever ends the publication ends the connection, which is being read all the time.
	ended := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-publication.Gone():
			_ = raw.Close()
		case <-ended:
		}
	})
	defer watcher.Wait()
	defer close(ended)
	err = s.stream(ctx, server, conn, &demux{to: publication})
	select {
	case <-publication.Gone():
		err = errGone
	default:
	}
	return err
}

// stream hands on messages until the connection ends.
func (s *Server) stream(ctx context.Context, server *gortmplib.ServerConn, conn *boundConn, d *demux) error {
	for {
		m, err := server.Read()
		if err != nil {
			return short(err)
		}
		n, err := d.take(ctx, m)
		if err != nil {
			return err
		}
		conn.pay(n)
		if c, ok := m.(*message.CommandAMF0); ok && (c.Name == "deleteStream" || c.Name == "FCUnpublish" || c.Name == "closeStream") {
			return nil
		}
	}
}

// split takes a URL apart as rtmp://host/app/key. Queries are the key's.
func split(u *url.URL) (app, key string, ok bool) {
	if u == nil {
		return "", "", false
	}
	app, key, ok = strings.Cut(strings.Trim(u.Path, "/"), "/")
	if u.RawQuery != "" {
		key += "?" + u.RawQuery
	}
	return app, key, ok && app != "" && key != "" && len(app) <= 64 && len(key) <= maxKey
}

// short is an error of the library without what the encoder said: that may be long, or hold the key.
func short(err error) error {
	for _, known := range []error{errFlood, errBitrate, errNotRTMP, errChunks, errTooLong} {
		if errors.Is(err, known) {
			return known
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("nothing came for too long")
	}
	text := err.Error()
	if i := strings.IndexAny(text, ":\"&{["); i >= 0 {
		text = text[:i]
	}
	return errors.New(strings.TrimSpace(text[:min(len(text), 60)]))
}
