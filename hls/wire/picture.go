package wire

import (
	"encoding/binary"
	"fmt"
)

// MaxPictures is how many pictures a compositor keeps: a background and a logo, and those that follow them.
const MaxPictures = 4

// maxPictureKey bounds the name of a picture, in bytes.
const maxPictureKey = 64

// Picture is a background or logo, PNG or JPEG. What a key stands for never changes. Without data it is not needed any more.
type Picture struct {
	Key  string
	Data []byte // aliases the frame
}

// AppendPicture appends a TypePicture frame.
func AppendPicture(dst []byte, p Picture) ([]byte, error) {
	if len(p.Key) == 0 || len(p.Key) > maxPictureKey || 1+len(p.Key)+len(p.Data) > MaxPicture {
		return dst, fmt.Errorf("encoding a picture of %d bytes: %w", len(p.Data), ErrTooLong)
	}
	from := len(dst)
	dst = append(open(dst, TypePicture), byte(len(p.Key)))
	return seal(append(append(dst, p.Key...), p.Data...), from), nil
}

// Picture decodes a TypePicture frame.
func (f Frame) Picture() (Picture, error) {
	if f.Type != TypePicture || len(f.Body) < 2 {
		return Picture{}, malformed(f.Type, "no picture")
	}
	n := int(f.Body[0])
	if n == 0 || n > maxPictureKey || len(f.Body) < 1+n {
		return Picture{}, malformed(f.Type, "no name")
	}
	return Picture{Key: string(f.Body[1 : 1+n]), Data: f.Body[1+n:]}, nil
}

// Idle says by bits which variants nobody looks at: these are encoded at one picture a part, from the same encoder and on
// the same grid, until they are wanted again.
type Idle uint32

// Has tells whether a variant idles.
func (i Idle) Has(variant int) bool { return i&(1<<variant) != 0 }

// AppendIdle appends a TypeIdle frame.
func AppendIdle(dst []byte, i Idle) []byte {
	from := len(dst)
	return seal(binary.BigEndian.AppendUint32(open(dst, TypeIdle), uint32(i)), from)
}

// Idle decodes a TypeIdle frame.
func (f Frame) Idle() (Idle, error) {
	if f.Type != TypeIdle || len(f.Body) != 4 {
		return 0, malformed(f.Type, "no variants")
	}
	return Idle(binary.BigEndian.Uint32(f.Body)), nil
}

// Logo is a picture on top of all tiles.
type Logo struct {
	Picture string `json:"picture"` // its key
	X       int    `json:"x"`
	Y       int    `json:"y"`
	W       int    `json:"w"` // it is shown whole within
	H       int    `json:"h"`
	Opacity int    `json:"opacity,omitempty"` // per cent; 0 is 100
	// Right and Bottom put it at those edges of the rectangle, when it is narrower or lower than that.
	Right  bool `json:"right,omitempty"`
	Bottom bool `json:"bottom,omitempty"`
}

// MaxFade bounds a fade, in milliseconds.
const MaxFade = 5000

func (s *Scene) validateLook() error {
	if !colour(s.Highlight) {
		return fmt.Errorf("highlight %q", s.Highlight)
	}
	if s.FadeMS < 0 || s.FadeMS > MaxFade || len(s.Picture) > maxPictureKey {
		return fmt.Errorf("fade of %d ms, or the name of the background too long", s.FadeMS)
	}
	if l := s.Logo; l != nil && (len(l.Picture) > maxPictureKey || l.W < 2 || l.H < 2 || l.W > MaxSide || l.H > MaxSide ||
		l.X < 0 || l.X > MaxSide || l.Y < 0 || l.Y > MaxSide || l.Opacity < 0 || l.Opacity > 100) {
		return fmt.Errorf("logo %dx%d at %d,%d", l.W, l.H, l.X, l.Y)
	}
	return nil
}
