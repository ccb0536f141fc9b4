package av

/*
#include "av.h"
#include <stdlib.h>
*/
import "C"

import (
	"fmt"
	"time"
	"unsafe"
)

// VideoConfig describes one encoder.
type VideoConfig struct {
	W, H, FPS int
	Bitrate   int    // bits a second
	Preset    string // x264's; others ignore it
	Baseline  bool   // constrained baseline profile, which any WebRTC client decodes; openh264 has no other
}

// VideoEncoder makes H.264 without delay: one access unit for each picture.
type VideoEncoder interface {
	// Encode returns the access unit (Annex B, with SPS and PPS before an IDR). It
	// is valid until the next call. key demands an IDR; only then is there one.
	Encode(c *Canvas, tick int64, key bool) (au []byte, idr bool, err error)
	// CPU is the thread time spent in Encode.
	CPU() time.Duration
	Close()
}

// NewVideoEncoder opens the encoder of this name: "x264" or "openh264".
func NewVideoEncoder(name string, cfg VideoConfig) (VideoEncoder, error) {
	switch name {
	case "", "x264":
		return newX264(cfg)
	case "openh264":
		return newOpenH264(cfg)
	}
	return nil, fmt.Errorf("unknown video encoder %q", name)
}

// libavEncoder is any H.264 encoder of libavcodec.
type libavEncoder struct{ e *C.amphi_encoder }

// newX264 opens x264 (GPL).
func newX264(cfg VideoConfig) (VideoEncoder, error) {
	preset := cfg.Preset
	if preset == "" {
		preset = "veryfast"
	}
	params := "scenecut=0:repeat-headers=1:keyint=infinite"
	if cfg.Baseline {
		params += ":cabac=0:8x8dct=0:weightp=0:bframes=0"
	}
	return newLibav("libx264", cfg, preset, "zerolatency", params)
}

func newLibav(codec string, cfg VideoConfig, preset, tune, params string) (VideoEncoder, error) {
	var owned []*C.char
	str := func(s string) *C.char {
		if s == "" {
			return nil
		}
		c := C.CString(s)
		owned = append(owned, c)
		return c
	}
	defer func() {
		for _, c := range owned {
			C.free(unsafe.Pointer(c))
		}
	}()
	c := (*C.amphi_video_config)(C.calloc(1, C.sizeof_amphi_video_config))
	if c == nil {
		return nil, ErrMemory
	}
	defer C.free(unsafe.Pointer(c))
	*c = C.amphi_video_config{
		codec: str(codec), preset: str(preset), tune: str(tune), params: str(params),
		w: C.int(cfg.W), h: C.int(cfg.H), fps: C.int(cfg.FPS), threads: 1, bitrate: C.int64_t(cfg.Bitrate),
	}
	e := new(libavEncoder)
	if err := fault("opening encoder "+codec, C.amphi_video_open(&e.e, c)); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *libavEncoder) Encode(c *Canvas, tick int64, key bool) ([]byte, bool, error) {
	k := C.int(0)
	if key {
		k = 1
	}
	if err := fault("encoding", C.amphi_video_encode(e.e, c.f, C.int64_t(tick), k)); err != nil {
		return nil, false, err
	}
	return packet(e.e), e.e.pkt.flags&C.AV_PKT_FLAG_KEY != 0, nil
}

func (e *libavEncoder) CPU() time.Duration { return time.Duration(e.e.ns) }

func (e *libavEncoder) Close() {
	C.amphi_encoder_close(e.e)
	e.e = nil
}

// packet is the encoder's last packet, valid until its next.
func packet(e *C.amphi_encoder) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(e.pkt.data)), int(e.pkt.size))
}
