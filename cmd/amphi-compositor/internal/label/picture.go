package label

import (
	"bytes"
	"fmt"
	"image"
	_ "image/jpeg" // the two formats that a node hands over
	_ "image/png"

	"golang.org/x/image/draw"
)

// maxPixels of a picture from outside: decoding takes up to 20 bytes for each. Nodes hand over none that takes long (signal/api).
const maxPixels = 3840 * 2160

// decode reads a PNG or JPEG.
func decode(data []byte) (image.Image, error) {
	cfg, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading a picture: %w", err)
	}
	if cfg.Width < 2 || cfg.Height < 2 || cfg.Width > maxPixels/cfg.Height {
		return nil, fmt.Errorf("picture of %d x %d pixels", cfg.Width, cfg.Height)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading a picture: %w", err)
	}
	return img, nil
}

// Cover scales a picture so that it fills w x h pixels, and cuts off what is too much. What is transparent stays so.
func Cover(data []byte, w, h int) (*Picture, error) {
	img, err := decode(data)
	if err != nil {
		return nil, err
	}
	from := img.Bounds()
	if from.Dx()*h > from.Dy()*w {
		from = centre(from, max(1, from.Dy()*w/h), from.Dy())
	} else {
		from = centre(from, from.Dx(), max(1, from.Dx()*h/w))
	}
	return scaled(img, from, w, h), nil
}

// Within scales a picture to the largest size that fits into w x h pixels, both even, and makes it as opaque as per cent say.
func Within(data []byte, w, h, opacity int) (*Picture, error) {
	img, err := decode(data)
	if err != nil {
		return nil, err
	}
	from := img.Bounds()
	if from.Dx()*h > from.Dy()*w {
		h = max(2, from.Dy()*w/from.Dx())
	} else {
		w = max(2, from.Dx()*h/from.Dy())
	}
	out := scaled(img, from, (w+1)&^1, (h+1)&^1)
	for i := 3; i < len(out.Pix); i += 4 {
		out.Pix[i] = uint8(int(out.Pix[i]) * opacity / 100)
	}
	return out, nil
}

func centre(r image.Rectangle, w, h int) image.Rectangle {
	p := r.Min.Add(image.Pt((r.Dx()-w)/2, (r.Dy()-h)/2))
	return image.Rectangle{Min: p, Max: p.Add(image.Pt(w, h))}
}

func scaled(img image.Image, from image.Rectangle, w, h int) *Picture {
	out := image.NewNRGBA(image.Rect(0, 0, w, h))
	draw.BiLinear.Scale(out, out.Rect, img, from, draw.Src, nil)
	return out
}
