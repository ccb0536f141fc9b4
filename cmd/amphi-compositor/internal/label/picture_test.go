package label

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"testing"
)

// halves is a picture that is red on the left and blue on the right.
func halves(w, h int) image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	draw.Draw(img, image.Rect(0, 0, w/2, h), image.NewUniform(color.NRGBA{255, 0, 0, 255}), image.Point{}, draw.Src)
	draw.Draw(img, image.Rect(w/2, 0, w, h), image.NewUniform(color.NRGBA{0, 0, 255, 255}), image.Point{}, draw.Src)
	return img
}

func encoded(t testing.TB, img image.Image, format string) []byte {
	t.Helper()
	var b bytes.Buffer
	err := png.Encode(&b, img)
	if format == "jpeg" {
		b.Reset()
		err = jpeg.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPictures(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"png", "jpeg"} {
		data := encoded(t, halves(400, 100), format)
		p, err := Cover(data, 64, 36)
		if err != nil || p.Rect != image.Rect(0, 0, 64, 36) {
			t.Fatal(p.Rect, err)
		}
		if l, r := p.NRGBAAt(4, 18), p.NRGBAAt(60, 18); l.R < 200 || l.B > 60 || r.B < 200 || r.R > 60 || r.A != 255 {
			t.Errorf("%s: %v and %v", format, l, r)
		}
		p, err = Within(data, 80, 60, 50)
		if err != nil || p.Rect != image.Rect(0, 0, 80, 20) || p.NRGBAAt(4, 4).A != 127 {
			t.Errorf("%s within: %v, %v", format, p.Rect, err)
		}
	}
	if p, err := Within(encoded(t, halves(20, 400), "png"), 80, 60, 100); err != nil || p.Rect != image.Rect(0, 0, 4, 60) {
		t.Errorf("narrow: %v, %v", p, err)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "cut": encoded(t, halves(100, 100), "png")[:60], "huge": encoded(t, image.NewGray(image.Rect(0, 0, 5000, 3000)), "png"),
	} {
		if _, err := Cover(data, 64, 36); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func FuzzPicture(f *testing.F) {
	f.Add(encoded(f, halves(20, 10), "png"))
	f.Add(encoded(f, halves(20, 10), "jpeg"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := Cover(data, 64, 36); err == nil && p.Rect != image.Rect(0, 0, 64, 36) {
			t.Error(p.Rect)
		}
		if p, err := Within(data, 64, 36, 100); err == nil && (p.Rect.Dx() > 64 || p.Rect.Dy() > 36) {
			t.Error(p.Rect)
		}
	})
}
