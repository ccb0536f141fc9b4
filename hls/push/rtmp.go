package push

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/bluenviron/gortmplib"
	"github.com/bluenviron/gortmplib/pkg/codecs"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"

	"github.com/amphi-sfu/amphi/hls/rtmp"
)

// maxFromServer bounds what a server may say on one connection: acknowledgements, and little else.
const maxFromServer = 16 << 20

// rtmpLink is a connection to an RTMP server.
type rtmpLink struct {
	client *gortmplib.Client
	conn   *sharedConn
	done   chan struct{} // closed by the reader
	idle   func() bool   // the end of the push does not close the connection any more

	writer       *gortmplib.Writer
	video, audio *gortmplib.Track
	sps, pps     []byte
	config       []byte
	base         time.Time // of the connection's time 0
}

// sharedConn lets one goroutine read messages while another writes them, although the library answers some of what it
// reads: whoever does anything but wait for bytes has the lock.
type sharedConn struct {
	net.Conn
	shared bool // set before the second goroutine starts
	mu     sync.Mutex
	read   int
	chunks rtmp.Chunks
}

// Read implements net.Conn.
func (c *sharedConn) Read(b []byte) (int, error) {
	if c.shared {
		c.mu.Unlock()
		defer c.mu.Lock()
	}
	n, err := c.Conn.Read(b)
	if err := c.chunks.Take(b[:n]); err != nil {
		return 0, err
	}
	if c.read += n; c.read > maxFromServer {
		return n, errors.New("server says too much")
	}
	return n, err
}

// Write implements net.Conn. A write that stalls ends the connection.
func (c *sharedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// dialRTMP connects until ctx ends. The end of life closes the connection, be somebody writing or not.
func dialRTMP(ctx, life context.Context, t *target, g guard, tlsConfig *tls.Config) (link, error) {
	l := &rtmpLink{done: make(chan struct{})}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := net.Dialer{Control: g.control}
		conn, err := d.DialContext(ctx, network, t.address)
		if err != nil {
			return nil, err
		}
		if t.scheme == schemeRTMPS {
			cfg := &tls.Config{MinVersion: tls.VersionTLS12}
			if tlsConfig != nil {
				cfg = tlsConfig.Clone()
			}
			if cfg.ServerName == "" {
				cfg.ServerName = t.host
			}
			secure := tls.Client(conn, cfg)
			if err := secure.HandshakeContext(ctx); err != nil {
				_ = conn.Close()
				return nil, err
			}
			conn = secure
		}
		l.conn = &sharedConn{Conn: conn}
		return l.conn, nil
	}
	// The library takes the stream key from the fragment.
	u, err := url.Parse(t.scheme + "://" + t.address + "/" + t.app)
	if err != nil {
		return nil, err
	}
	u.Fragment = t.key
	l.client = &gortmplib.Client{URL: u, Publish: true, DialContext: dial, DialTLSContext: dial}
	if err := l.client.Initialize(ctx); err != nil {
		return nil, err
	}
	l.conn.shared = true
	l.idle = context.AfterFunc(life, func() { _ = l.conn.Close() })
	go func() {
		defer close(l.done)
		l.conn.mu.Lock()
		defer l.conn.mu.Unlock()
		for {
			if _, err := l.client.Read(); err != nil {
				_ = l.conn.Close()
				return
			}
		}
	}()
	return l, nil
}

func (l *rtmpLink) trouble() string { return "" }

func (l *rtmpLink) gone() <-chan struct{} { return l.done }

func (l *rtmpLink) close() {
	l.idle()
	_ = l.conn.Close()
	<-l.done
}

func (l *rtmpLink) write(u *unit) error {
	l.conn.mu.Lock()
	defer l.conn.mu.Unlock()
	if u.video {
		return l.writeVideo(u)
	}
	at := u.at.Sub(l.base)
	if l.writer == nil || at < 0 {
		return nil // sound of before the first picture
	}
	if string(u.config) != string(l.config) {
		if err := l.describe(u.config); err != nil {
			return err
		}
	}
	return l.writer.WriteMPEG4Audio(l.audio, at, u.data)
}

func (l *rtmpLink) writeVideo(u *unit) error {
	var nalus h264.AnnexB
	if err := nalus.Unmarshal(u.data); err != nil {
		return fmt.Errorf("splitting an access unit: %w", err)
	}
	slices := nalus[:0]
	changed := false
	for _, n := range nalus {
		switch h264.NALUType(n[0] & 0x1f) {
		case h264.NALUTypeSPS:
			changed = changed || string(n) != string(l.sps)
			l.sps = n
		case h264.NALUTypePPS:
			changed = changed || string(n) != string(l.pps)
			l.pps = n
		case h264.NALUTypeAccessUnitDelimiter:
		default:
			slices = append(slices, n)
		}
	}
	if l.writer == nil {
		if l.sps == nil || l.pps == nil {
			return errors.New("keyframe without parameter sets")
		}
		l.base = u.at
	}
	if changed || string(u.config) != string(l.config) {
		if err := l.describe(u.config); err != nil {
			return err
		}
	}
	at := u.at.Sub(l.base)
	return l.writer.WriteH264(l.video, at, at, slices)
}

// describe tells the server what it gets from now on.
func (l *rtmpLink) describe(config []byte) error {
	var sps h264.SPS
	if err := sps.Unmarshal(l.sps); err != nil {
		return fmt.Errorf("parsing the SPS: %w", err)
	}
	var asc mpeg4audio.AudioSpecificConfig
	if err := asc.Unmarshal(config); err != nil {
		return fmt.Errorf("parsing the audio configuration: %w", err)
	}
	l.config = config
	l.video = &gortmplib.Track{Codec: &codecs.H264{SPS: l.sps, PPS: l.pps}}
	l.audio = &gortmplib.Track{Codec: &codecs.MPEG4Audio{Config: &asc}}
	l.writer = &gortmplib.Writer{Conn: l.client, Tracks: []*gortmplib.Track{l.video, l.audio}}
	return l.writer.Initialize()
}
