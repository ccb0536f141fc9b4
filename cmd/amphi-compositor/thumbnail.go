//go:build cgo

package main

import (
	"fmt"
	"image/jpeg"
	"io"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
)

// maxPicture is the largest access unit that a thumbnail is made of, in bytes.
const maxPicture = 8 << 20

// quality of thumbnails, 1–100.
const quality = 80

// thumbnail reads an access unit (H.264, Annex B) and writes it as a JPEG that is at most width pixels wide.
func thumbnail(in io.Reader, out io.Writer, width int) error {
	au, err := io.ReadAll(io.LimitReader(in, maxPicture+1))
	if err != nil {
		return fmt.Errorf("reading a picture: %w", err)
	}
	if len(au) > maxPicture {
		return fmt.Errorf("reading a picture: more than %d bytes", maxPicture)
	}
	picture, err := av.Picture(au, width)
	if err != nil {
		return fmt.Errorf("decoding a picture: %w", err)
	}
	if err := jpeg.Encode(out, picture, &jpeg.Options{Quality: quality}); err != nil {
		return fmt.Errorf("writing a thumbnail: %w", err)
	}
	return nil
}
