//go:build cgo

// Package transcode makes what one publisher sends, H.264 of any profile and AAC, into
// what a room carries: H.264 of constrained baseline profile and Opus.
package transcode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// maxWaiting is how many access units wait for the video goroutine; beyond it all are dropped up to the next keyframe.
const maxWaiting = 90

// Run transcodes what comes over conn until the other end closes it or ctx ends (nil), or something fails.
func Run(ctx context.Context, log *slog.Logger, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	r := wire.NewReader(conn)
	f, err := r.Next()
	if err != nil {
		return ending(ctx, err)
	}
	cfg, err := f.Transcode()
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	t := &transcoder{log: log, cfg: cfg, conn: conn, waiting: make(chan source, maxWaiting)}
	if len(cfg.AudioConfig) > 0 {
		if t.audio, err = newAudio(cfg, t.send); err != nil {
			return err
		}
		defer t.audio.close()
	}
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		if failed = t.runVideo(); failed != nil {
			_ = conn.Close() // ends the reader
		}
	})
	err = t.obey(r)
	close(t.waiting)
	wg.Wait()
	if failed != nil {
		err = failed
	}
	return ending(ctx, err)
}

// ending is nil for the ends that were asked for.
func ending(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

type source struct {
	unit wire.Unit
	key  bool
}

type transcoder struct {
	log     *slog.Logger
	cfg     *wire.Transcode
	audio   *audio
	waiting chan source
	force   atomic.Bool // a keyframe was asked for

	mu   sync.Mutex // guards the fields below, and writes to conn
	conn net.Conn
	buf  []byte
}

func (t *transcoder) send(typ wire.Type, u wire.Unit) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := wire.AppendUnit(t.buf[:0], typ, u)
	if err != nil {
		return nil // an access unit beyond all bounds is left out
	}
	t.buf = b
	_, err = t.conn.Write(b)
	return err
}

// obey reads until the end. Sound is made here; pictures wait for their goroutine, so that they don't delay it.
func (t *transcoder) obey(r *wire.Reader) error {
	skipping := false
	for {
		f, err := r.Next()
		if err != nil {
			return err
		}
		switch f.Type {
		case wire.TypeForceKeyframe:
			t.force.Store(true)
		case wire.TypeSourceAudio:
			u, err := f.Unit()
			if err != nil || t.audio == nil {
				continue
			}
			if err := t.audio.take(u); err != nil {
				return err
			}
		case wire.TypeSourceVideo:
			u, err := f.Unit()
			if err != nil || !t.cfg.Video {
				continue
			}
			s := source{unit: u, key: isKey(u.Data)}
			if skipping = skipping && !s.key; skipping {
				continue
			}
			s.unit.Data = slices.Clone(u.Data)
			select {
			case t.waiting <- s:
			default:
				skipping = true
			}
		default:
			return fmt.Errorf("frame type %d: %w", f.Type, wire.ErrMalformed)
		}
	}
}

// isKey says whether the first slice of an access unit is an IDR picture's.
func isKey(b []byte) bool {
	for i := 0; i+3 < len(b); i++ {
		if b[i] != 0 || b[i+1] != 0 || b[i+2] != 1 {
			continue
		}
		switch b[i+3] & 0x1f {
		case 5:
			return true
		case 1, 2:
			return false
		}
	}
	return false
}

// runVideo decodes, scales and encodes until nothing more can come.
func (t *transcoder) runVideo() error {
	v := &video{t: t, last: -1, lastKey: -1}
	defer v.close()
	for s := range t.waiting {
		if err := v.take(s, len(t.waiting)); err != nil {
			for range t.waiting { // until the reader has ended too
			}
			return err
		}
	}
	return nil
}

// maxFaults is how many access units in a row may fail before the decoder is made anew.
const maxFaults = 15

// behind is how many access units may wait before pictures are decoded but not encoded.
const behind = 8

type video struct {
	t       *transcoder
	decoder *av.Decoder
	scaler  av.Scaler
	canvas  *av.Canvas
	encoder av.VideoEncoder
	inW     int
	inH     int
	faults  int
	last    int64 // tick of the last picture
	lastKey int64
}

func (v *video) close() {
	if v.decoder != nil {
		v.decoder.Close()
	}
	if v.encoder != nil {
		v.encoder.Close()
	}
	if v.canvas != nil {
		v.canvas.Free()
	}
	v.scaler.Close()
}

// take decodes an access unit and sends the picture that comes out, if any. What makes no sense is left out.
func (v *video) take(s source, waiting int) error {
	var err error
	if v.decoder == nil {
		if !s.key {
			return nil
		}
		if v.decoder, err = av.NewReorderingDecoder("h264"); err != nil {
			return err
		}
	}
	f, err := v.decoder.Decode(s.unit.Data, s.unit.Time)
	if err != nil {
		if v.faults++; v.faults >= maxFaults {
			v.faults = 0
			v.decoder.Close()
			v.decoder = nil
		}
		return nil
	}
	v.faults = 0
	if f == nil {
		return nil
	}
	defer f.Free()
	fps := int64(v.t.cfg.FPS)
	tick := (int64(f.Due())*fps + 500_000_000) / 1_000_000_000
	if tick <= v.last && tick > v.last-10*fps || waiting > behind {
		return nil // faster than asked for, or than this machine
	}
	v.last = tick
	return v.encode(f, tick)
}

func (v *video) encode(f *av.Frame, tick int64) error {
	if err := v.fit(f); err != nil {
		return err
	}
	w, h := f.Size()
	if err := v.scaler.Paint(v.canvas, v.canvas.Bounds(), f, av.Even(rect(w, h))); err != nil {
		return nil // a picture that cannot be scaled
	}
	every := int64(v.t.cfg.KeyframeEvery.Seconds() * float64(v.t.cfg.FPS))
	key := v.lastKey < 0 || v.t.force.Swap(false) || tick-v.lastKey >= every || tick < v.lastKey
	au, idr, err := v.encoder.Encode(v.canvas, tick, key)
	if err != nil {
		return err
	}
	if idr {
		v.lastKey = tick
	}
	return v.t.send(wire.TypeTargetVideo, wire.Unit{Time: max(f.Due(), 0), Key: idr, Data: au})
}

// fit makes canvas and encoder for the size of a picture.
func (v *video) fit(f *av.Frame) error {
	w, h := f.Size()
	if v.encoder != nil && w == v.inW && h == v.inH {
		return nil
	}
	if v.encoder != nil {
		v.encoder.Close()
		v.canvas.Free()
		v.encoder = nil
	}
	cfg := v.t.cfg
	outW, outH := within(w, h, cfg.MaxWidth, cfg.MaxHeight)
	var err error
	if v.canvas, err = av.NewCanvas(outW, outH); err != nil {
		return err
	}
	v.encoder, err = av.NewVideoEncoder("", av.VideoConfig{W: outW, H: outH, FPS: cfg.FPS, Bitrate: cfg.Bitrate, Baseline: true})
	if err != nil {
		return err
	}
	v.inW, v.inH, v.lastKey = w, h, -1
	v.t.log.Info("transcoding", "from", fmt.Sprint(w, "x", h), "to", fmt.Sprint(outW, "x", outH))
	return nil
}

// within is the even size of the same shape that has no more than so many pixels either way; turned, if the picture is.
func within(w, h, maxW, maxH int) (int, int) {
	if h > w && maxW > maxH {
		maxW, maxH = maxH, maxW
	}
	outW, outH := w, h
	if outW > maxW {
		outW, outH = maxW, h*maxW/w
	}
	if outH > maxH {
		outW, outH = w*maxH/h, maxH
	}
	return max(outW&^1, 16), max(outH&^1, 16)
}
