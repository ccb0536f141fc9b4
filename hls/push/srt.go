package push

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts/codecs"
	srt "github.com/datarhei/gosrt"
)

const (
	srtConnect = 1500 * time.Millisecond // the library asks once
	srtIdle    = 4 * time.Second         // a listener says something every 10 ms while it gets packets
	tsPacket   = 188
	tsGroup    = 7 * tsPacket // what fits an SRT packet
	tsClock    = 90_000
	tsStart    = tsClock // the first time, so that the clock reference before it is positive
	tsMask     = 1<<33 - 1
	checkEvery = 2 * time.Second
	linger     = 300 * time.Millisecond // beside the latency, until a link is closed
)

// srtLink is a connection to an SRT listener, MPEG-TS inside.
type srtLink struct {
	conn       *srtConn
	life       <-chan struct{} // closed with the push
	out        tsWriter
	done       chan struct{}
	latency    time.Duration
	background func(func())

	mux          *mpegts.Writer
	video, audio *mpegts.Track
	config       []byte
	base, began  time.Time

	checked time.Time
	lost    uint64
	late    time.Time
}

// tsWriter hands transport packets on by sevens.
type tsWriter struct {
	conn *srtConn
	buf  []byte
}

// Write implements io.Writer.
func (w *tsWriter) Write(b []byte) (int, error) {
	w.buf = append(w.buf, b...)
	for len(w.buf) >= tsGroup {
		if _, err := w.conn.Write(w.buf[:tsGroup]); err != nil {
			return 0, err
		}
		w.buf = w.buf[:copy(w.buf, w.buf[tsGroup:])]
	}
	return len(b), nil
}

func (w *tsWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.conn.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// srtConn is the library's connection, and knows whether the goroutine that reads its socket has ended: that one ends only when
// it has told why, and who reads or writes after the end is who is told.
type srtConn struct {
	srt.Conn
	ended atomic.Bool
}

func (c *srtConn) note(err error) {
	var broken *net.OpError
	if errors.Is(err, srt.ErrClientClosed) || errors.As(err, &broken) {
		c.ended.Store(true)
	}
}

// Read implements srt.Conn.
func (c *srtConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(err)
	return n, err
}

// Write implements srt.Conn.
func (c *srtConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.note(err)
	return n, err
}

// end closes the connection and waits for the library's goroutine, which is about to end by then. Whether the library itself has
// listened to it meanwhile nobody can know; so there is an end to asking. Nobody else may read any more.
func (c *srtConn) end() {
	_ = c.Close()
	ask := time.NewTicker(5 * time.Millisecond)
	defer ask.Stop()
	buf := make([]byte, 2048)
	for began := time.Now(); !c.ended.Load() && time.Since(began) < asking; <-ask.C {
		_, _ = c.Read(buf)
	}
}

// closing is the library's log, by which one learns that it gives up connecting and closes its socket. The goroutine that reads
// the socket looks up every 3 s at least and then waits for the library to listen; closing the socket before that would leave
// it behind for good. Once there is a connection srtConn.end sees to it.
type closing struct {
	told      chan struct{}
	connected atomic.Bool
}

// patience is a little more than what the library's reader waits for a packet.
const patience = 3200 * time.Millisecond

// asking is how long to ask a reader whose socket is closed whether it has ended, which takes it microseconds.
const asking = time.Second

// HasTopic implements srt.Logger.
func (c *closing) HasTopic(string) bool { return false }

// Print implements srt.Logger.
func (c *closing) Print(topic string, _ uint32, _ int, message func() string) {
	if topic != "dial" || message() != "closing socket" {
		return
	}
	close(c.told)
	if !c.connected.Load() {
		time.Sleep(patience)
	}
}

// Listen implements srt.Logger.
func (c *closing) Listen() <-chan srt.Log { return nil }

// Close implements srt.Logger.
func (c *closing) Close() {}

// resolve finds an address of the target that may be pushed to.
func resolve(ctx context.Context, t *target, g guard) (string, error) {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", t.host)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(t.address)
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", err
	}
	for _, ip := range ips {
		if g.check(ip) == nil {
			return netip.AddrPortFrom(ip.Unmap(), uint16(n)).String(), nil
		}
	}
	return "", ErrDenied
}

// dialSRT connects. What the library is slow to end goes on in the background.
func dialSRT(ctx, life context.Context, t *target, g guard, background func(func())) (link, error) {
	address, err := resolve(ctx, t, g)
	if err != nil {
		return nil, err
	}
	log := &closing{told: make(chan struct{})}
	cfg := srt.DefaultConfig()
	cfg.Logger = log
	cfg.ConnectionTimeout = srtConnect
	cfg.PeerIdleTimeout = srtIdle
	cfg.StreamId = t.srt.streamID
	cfg.Passphrase = t.srt.passphrase
	cfg.PBKeylen = t.srt.keyLength
	cfg.PeerLatency, cfg.ReceiverLatency = t.srt.latency, t.srt.latency
	type result struct {
		conn *srtConn
		err  error
	}
	dialed := make(chan result, 1)
	background(func() {
		conn, err := srt.Dial("srt", address, cfg)
		log.connected.Store(err == nil)
		dialed <- result{&srtConn{Conn: conn}, err}
	})
	select {
	case r := <-dialed:
		if r.err != nil {
			return nil, r.err
		}
		return newSRTLink(r.conn, life, t.srt.latency, background), nil
	case <-log.told:
		err = errors.New("target does not answer, or refuses stream id or passphrase")
	case <-ctx.Done():
		err = ctx.Err()
	}
	background(func() {
		if r := <-dialed; r.err == nil {
			r.conn.end()
		}
	})
	return nil, err
}

func newSRTLink(conn *srtConn, life context.Context, latency time.Duration, background func(func())) *srtLink {
	now := time.Now()
	l := &srtLink{
		conn: conn, life: life.Done(), out: tsWriter{conn: conn}, done: make(chan struct{}), latency: latency, background: background,
		began: now, checked: now,
	}
	background(func() {
		defer conn.end()
		defer close(l.done)
		for buf := make([]byte, 2048); ; { // a listener has nothing to say
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	})
	return l
}

func (l *srtLink) gone() <-chan struct{} { return l.done }

// close ends the link. The library's goroutines end a little later.
func (l *srtLink) close() {
	l.background(func() {
		t := time.NewTimer(l.latency + linger) // the listener may still ask for what was lost
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.done:
		}
		_ = l.conn.Close()
	})
}

func (l *srtLink) trouble() string {
	if time.Since(l.late) < slowFor {
		return "path to the target loses packets for good"
	}
	return ""
}

func (l *srtLink) write(u *unit) error {
	if l.mux == nil && !u.key {
		return nil
	}
	if l.mux == nil {
		l.base = u.at
	}
	at := u.at.Sub(l.base)
	if at < 0 {
		return nil // sound of before the first picture
	}
	// What waited since the last keyframe goes out at most at double speed, for networks do not like bursts.
	if early := time.Until(l.began.Add(at / 2)); early > 0 {
		t := time.NewTimer(early)
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.done:
			return errGone
		case <-l.life:
			return nil
		}
	}
	if l.mux == nil || string(u.config) != string(l.config) {
		if err := l.describe(u.config); err != nil {
			return err
		}
	}
	pts := (tsStart + int64(at/time.Second)*tsClock + int64(at%time.Second)*tsClock/int64(time.Second)) & tsMask
	var err error
	if u.video {
		err = l.writeVideo(pts, u.data)
	} else {
		err = l.mux.WriteMPEG4Audio(l.audio, pts, [][]byte{u.data})
	}
	if err == nil {
		err = l.out.flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	l.check()
	return nil
}

func (l *srtLink) writeVideo(pts int64, data []byte) error {
	var au h264.AnnexB
	if err := au.Unmarshal(data); err != nil {
		return fmt.Errorf("splitting an access unit: %w", err)
	}
	return l.mux.WriteH264(l.video, pts, pts, au)
}

func (l *srtLink) describe(config []byte) error {
	var asc mpeg4audio.AudioSpecificConfig
	if err := asc.Unmarshal(config); err != nil {
		return fmt.Errorf("parsing the audio configuration: %w", err)
	}
	l.config = config
	l.video = &mpegts.Track{Codec: &codecs.H264{}}
	l.audio = &mpegts.Track{Codec: &codecs.MPEG4Audio{Config: asc}}
	l.mux = &mpegts.Writer{W: &l.out, Tracks: []*mpegts.Track{l.video, l.audio}}
	return l.mux.Initialize()
}

// check looks whether packets were given up.
func (l *srtLink) check() {
	now := time.Now()
	if now.Sub(l.checked) < checkEvery {
		return
	}
	l.checked = now
	var s srt.Statistics
	l.conn.Stats(&s)
	if n := s.Accumulated.PktSendDrop; n != l.lost {
		l.lost, l.late = n, now
	}
}
