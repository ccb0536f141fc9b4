package av

/*
#include "av.h"
#include <opus.h>
#include <errno.h>

static int amphi_opus_decode(OpusDecoder *d, const unsigned char *p, int n, float *out, int samples, int fec, int64_t *ns) {
  int64_t t0 = amphi_thread_ns();
  int r = opus_decode_float(d, n ? p : NULL, n, out, samples, fec);
  *ns += amphi_thread_ns() - t0;
  return r;
}
static int amphi_again(int r) { return r == AVERROR(EAGAIN); }
*/
import "C"

import (
	"fmt"
	"time"
	"unsafe"
)

// MaxOpusSamples is the longest Opus packet, 120 ms at 48 kHz, per channel.
const MaxOpusSamples = 5760

// Opus decodes Opus to interleaved stereo at 48 kHz.
type Opus struct {
	d  *C.OpusDecoder
	ns C.int64_t
}

// NewOpus opens a decoder.
func NewOpus() (*Opus, error) {
	var code C.int
	d := C.opus_decoder_create(48000, 2, &code)
	if d == nil {
		return nil, fmt.Errorf("opening opus: %s", C.GoString(C.opus_strerror(code)))
	}
	return &Opus{d: d}, nil
}

// Decode decodes one packet into out, which has room for MaxOpusSamples in two
// channels, and returns the number of samples per channel.
func (o *Opus) Decode(packet []byte, out []float32) (int, error) {
	if len(packet) == 0 {
		return 0, nil
	}
	return o.decode(packet, out[:2*MaxOpusSamples], 0)
}

// Recover makes up n lost samples (a multiple of 2.5 ms) from the redundancy that
// the next packet carries for them, if it does, else from what was heard before.
func (o *Opus) Recover(next []byte, out []float32, n int) (int, error) {
	return o.decode(next, out[:2*n], 1)
}

// Conceal makes up n samples (a multiple of 2.5 ms) from what was heard before.
func (o *Opus) Conceal(out []float32, n int) (int, error) { return o.decode(nil, out[:2*n], 0) }

func (o *Opus) decode(packet []byte, out []float32, fec C.int) (int, error) {
	var p *C.uchar
	if len(packet) > 0 {
		p = (*C.uchar)(unsafe.Pointer(&packet[0]))
	}
	if len(out) == 0 {
		return 0, nil
	}
	n := C.amphi_opus_decode(o.d, p, C.int(len(packet)), (*C.float)(unsafe.Pointer(&out[0])), C.int(len(out)/2), fec, &o.ns)
	if n < 0 {
		return 0, fmt.Errorf("decoding opus: %s", C.GoString(C.opus_strerror(n)))
	}
	return int(n), nil
}

// CPU is the thread time spent in decoding.
func (o *Opus) CPU() time.Duration { return time.Duration(o.ns) }

// Close frees the decoder.
func (o *Opus) Close() {
	C.opus_decoder_destroy(o.d)
	o.d = nil
}

// AACSamples is the length of an AAC frame, per channel.
const AACSamples = 1024

// AAC encodes stereo at 48 kHz to AAC-LC.
type AAC struct{ e *C.amphi_encoder }

// NewAAC opens libavcodec's own encoder.
func NewAAC(bitrate int) (*AAC, error) {
	a := new(AAC)
	if err := fault("opening encoder aac", C.amphi_aac_open(&a.e, C.int64_t(bitrate))); err != nil {
		return nil, err
	}
	return a, nil
}

// Config is the AudioSpecificConfig of ISO 14496-3.
func (a *AAC) Config() []byte {
	return C.GoBytes(unsafe.Pointer(a.e.ctx.extradata), a.e.ctx.extradata_size)
}

// Encode takes AACSamples of each channel, the first of which is sample pts. It
// returns a raw data block, valid until the next call, with the sample that its
// own first one stands for: the encoder's delay before pts. None at first.
func (a *AAC) Encode(left, right []float32, pts int64) (au []byte, at int64, err error) {
	l, r := left[:AACSamples], right[:AACSamples]
	code := C.amphi_aac_encode(a.e, (*C.float)(unsafe.Pointer(&l[0])), (*C.float)(unsafe.Pointer(&r[0])), C.int64_t(pts))
	if C.amphi_again(code) != 0 {
		return nil, 0, nil
	}
	if err := fault("encoding aac", code); err != nil {
		return nil, 0, err
	}
	return packet(a.e), int64(a.e.pkt.pts), nil
}

// CPU is the thread time spent in Encode.
func (a *AAC) CPU() time.Duration { return time.Duration(a.e.ns) }

// Close frees the encoder.
func (a *AAC) Close() {
	C.amphi_encoder_close(a.e)
	a.e = nil
}
