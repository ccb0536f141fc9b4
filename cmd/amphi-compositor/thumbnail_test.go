//go:build cgo

package main

import (
	"bytes"
	"image/jpeg"
	"os/exec"
	"testing"
)

func TestThumbnail(t *testing.T) {
	t.Parallel()
	// Left half red, right half white.
	made := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=red:s=640x360:r=30", "-vf", "drawbox=x=320:w=320:h=360:c=white:t=fill",
		"-frames:v", "1", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", "h264", "-")
	au, err := made.Output()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := thumbnail(bytes.NewReader(au), &out, 320); err != nil {
		t.Fatal(err)
	}
	picture, err := jpeg.Decode(&out)
	if err != nil {
		t.Fatal(err)
	}
	if b := picture.Bounds(); b.Dx() != 320 || b.Dy() != 180 {
		t.Errorf("a picture of %v", b)
	}
	near := func(x, y int, r, g, b uint32) {
		t.Helper()
		gr, gg, gb, _ := picture.At(x, y).RGBA()
		for _, d := range [3]int{int(gr>>8) - int(r), int(gg>>8) - int(g), int(gb>>8) - int(b)} {
			if d > 6 || d < -6 {
				t.Errorf("%d,%d is %d %d %d instead of %d %d %d", x, y, gr>>8, gg>>8, gb>>8, r, g, b)
				break
			}
		}
	}
	near(80, 90, 254, 0, 0)
	near(240, 90, 255, 255, 255)
	if err := thumbnail(bytes.NewReader([]byte("nothing")), &out, 320); err == nil {
		t.Error("a picture of nothing")
	}
}
