package av

/*
#include "av.h"
*/
import "C"

import (
	"fmt"
	"image"
	"unsafe"
)

// Picture decodes one access unit (H.264, Annex B) that decodes by itself, and returns it as at most width pixels wide, in the full
// range of JPEG.
func Picture(au []byte, width int) (*image.YCbCr, error) {
	d, err := NewDecoder("h264")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var f *Frame
	// A decoder that was told to expect pictures in another order gives the first one out when others follow.
	for n := 0; f == nil && n < 20; n++ {
		if f, err = d.Decode(au, 0); err != nil {
			return nil, err
		}
	}
	if f == nil {
		return nil, fmt.Errorf("no picture in %d bytes", len(au))
	}
	defer f.Free()
	w, h := f.Size()
	if width = min(width, w) &^ 1; width < 2 {
		return nil, fmt.Errorf("a picture %d pixels wide", width)
	}
	c, err := NewCanvas(width, max(2, (h*width/w)&^1))
	if err != nil {
		return nil, err
	}
	defer c.Free()
	var s Scaler
	defer s.Close()
	if err := s.Paint(c, c.Bounds(), f, Even(image.Rect(0, 0, w, h))); err != nil {
		return nil, err
	}
	out := image.NewYCbCr(c.Bounds(), image.YCbCrSubsampleRatio420)
	for plane, to := range [][]uint8{out.Y, out.Cb, out.Cr} {
		c.expand(plane, to)
	}
	return out, nil
}

// expand copies a plane from limited range (BT.601: 16–235, chroma 16–240) to full range.
func (c *Canvas) expand(plane int, to []uint8) {
	w, h := c.Size()
	low, high := 16, 235
	if plane > 0 {
		w, h, high = w/2, h/2, 240
	}
	var table [256]uint8
	for v := range table {
		table[v] = uint8(max(0, min(255, ((v-low)*255+(high-low)/2)/(high-low))))
	}
	for y := range h {
		row := unsafe.Slice((*uint8)(unsafe.Add(unsafe.Pointer(c.f.data[plane]), y*int(c.f.linesize[plane]))), w)
		for x, v := range row {
			to[y*w+x] = table[v]
		}
	}
}
