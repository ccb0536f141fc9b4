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

// MaxPixels bounds a decoded picture; larger ones are refused by the decoder.
const MaxPixels = 4096 * 2304

// padding is what libav may read beyond an access unit.
const padding = C.AV_INPUT_BUFFER_PADDING_SIZE

// Frame is one decoded picture, counted by reference inside libav.
type Frame struct{ f *C.AVFrame }

// Size returns width and height in pixels.
func (f *Frame) Size() (w, h int) { return int(f.f.width), int(f.f.height) }

// Due is the time given to Decode with the access unit of this picture.
func (f *Frame) Due() time.Duration { return time.Duration(f.f.pts) }

// Free gives the picture back. It may be called more than once.
func (f *Frame) Free() {
	if f.f != nil {
		C.av_frame_free(&f.f)
	}
}

// Decoder turns access units into pictures, on the caller's thread.
type Decoder struct {
	d   *C.amphi_decoder
	buf []byte
}

// NewDecoder opens libavcodec's decoder of this name: "vp8", "vp9", "h264", "libdav1d".
func NewDecoder(name string) (*Decoder, error) { return newDecoder(name, 0) }

// NewReorderingDecoder is NewDecoder for streams with B-pictures: pictures come in the order in which they are shown, some
// access units late.
func NewReorderingDecoder(name string) (*Decoder, error) { return newDecoder(name, 1) }

func newDecoder(name string, reorder C.int) (*Decoder, error) {
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	d := new(Decoder)
	if err := fault("opening decoder "+name, C.amphi_decoder_open(&d.d, n, MaxPixels, reorder)); err != nil {
		return nil, err
	}
	return d, nil
}

// Decode takes one access unit and when its picture is due. It returns nil and no
// error when the decoder has no picture yet. The caller frees the picture.
func (d *Decoder) Decode(au []byte, due time.Duration) (*Frame, error) {
	if len(au) == 0 {
		return nil, nil
	}
	if need := len(au) + padding; cap(d.buf) < need {
		d.buf = make([]byte, need+need/2)
	}
	buf := d.buf[:len(au)+padding]
	copy(buf, au)
	clear(buf[len(au):])
	var f *C.AVFrame
	err := fault("decoding", C.amphi_decode(d.d, (*C.uint8_t)(unsafe.Pointer(&buf[0])), C.int(len(au)), C.int64_t(due), &f))
	if f == nil {
		return nil, err
	}
	if f.width < 2 || f.height < 2 {
		w, h := f.width, f.height
		C.av_frame_free(&f)
		return nil, fmt.Errorf("decoding: picture of %d×%d", w, h)
	}
	return &Frame{f}, nil
}

// CPU is the thread time spent in Decode.
func (d *Decoder) CPU() time.Duration { return time.Duration(d.d.ns) }

// Close frees the decoder; pictures stay valid.
func (d *Decoder) Close() {
	C.amphi_decoder_close(d.d)
	d.d = nil
}
