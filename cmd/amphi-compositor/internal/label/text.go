package label

import (
	"image"
	"image/color"
	"image/draw"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/image/font"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
)

// maxRunes is more than any plate has room for.
const maxRunes = 120

// run is a stretch of text in one font.
type run struct {
	face font.Face
	text []rune
}

// line is text ready to be drawn from left to right.
type line struct {
	runs  []run
	width fixed.Int26_6
}

// visual turns text into the order in which it is drawn: composed, without
// control characters, Arabic letters joined, right-to-left parts reversed.
func visual(s string) []rune {
	s = norm.NFC.String(s)
	clean := make([]rune, 0, len(s))
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			r = ' '
		case r == unicode.ReplacementChar || unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			continue
		}
		clean = append(clean, r)
	}
	clean = join(clean)
	var p bidi.Paragraph
	if _, err := p.SetString(string(clean)); err != nil {
		return clean
	}
	o, err := p.Order()
	if err != nil {
		return clean
	}
	out := make([]rune, 0, len(clean))
	n := o.NumRuns()
	for i := range n {
		if rightToLeft(clean) {
			i = n - 1 - i
		}
		r := o.Run(i)
		text := []rune(r.String())
		if r.Direction() == bidi.RightToLeft {
			reverse(text)
		}
		out = append(out, text...)
	}
	return out
}

// rightToLeft tells the direction of a paragraph: that of its first letter
// (UAX 9, rules P2 and P3).
func rightToLeft(s []rune) bool {
	for _, r := range s {
		switch p, _ := bidi.LookupRune(r); p.Class() {
		case bidi.L:
			return false
		case bidi.R, bidi.AL:
			return true
		}
	}
	return false
}

// reverse turns a right-to-left run round. Marks stay behind their letters, and
// brackets are mirrored.
func reverse(s []rune) {
	for i, j := 0, len(s)-1; i < j; i, j = i+1, j-1 {
		s[i], s[j] = s[j], s[i]
	}
	for i := 0; i < len(s); {
		if !unicode.Is(unicode.Mn, s[i]) {
			s[i] = mirrored(s[i])
			i++
			continue
		}
		j := i
		for j < len(s) && unicode.Is(unicode.Mn, s[j]) {
			j++
		}
		if j < len(s) { // marks i..j-1 belong to the letter at j
			letter := mirrored(s[j])
			copy(s[i+1:j+1], s[i:j])
			s[i] = letter
			j++
		}
		i = j
	}
}

func mirrored(r rune) rune {
	switch r {
	case '(':
		return ')'
	case ')':
		return '('
	case '[':
		return ']'
	case ']':
		return '['
	case '<':
		return '>'
	case '>':
		return '<'
	case '«':
		return '»'
	case '»':
		return '«'
	}
	return r
}

// lay chooses fonts for text and measures it. Letters that no font has show as
// the basic font's box; symbols, such as emoji, are left out. Text wider than
// limit ends in an ellipsis.
func (f *Fonts) lay(s string, pixels float64, limit int) line {
	text := slices.DeleteFunc(visual(s), func(r rune) bool {
		if !unicode.In(r, unicode.So, unicode.Sk, unicode.Co, unicode.Cn, unicode.Me) {
			return false
		}
		_, ok := f.For(r)
		return !ok
	})
	if len(text) > maxRunes {
		text = append(text[:maxRunes], '…')
	}
	if len(text) == 0 || strings.TrimSpace(string(text)) == "" {
		return line{}
	}
	faces := make(map[*sfnt.Font]font.Face)
	l := f.runs(text, pixels, faces)
	if l.width.Ceil() <= limit {
		return l
	}
	for n := len(text) - 1; n > 0; n-- {
		short := append(append([]rune{}, text[:n]...), '…')
		if l = f.runs(short, pixels, faces); l.width.Ceil() <= limit {
			return l
		}
	}
	return line{}
}

func (f *Fonts) runs(text []rune, pixels float64, faces map[*sfnt.Font]font.Face) line {
	var l line
	var last *sfnt.Font
	for _, r := range text {
		sf, _ := f.For(r)
		if unicode.Is(unicode.Mn, r) && last != nil { // a mark stays with its letter where it can
			f.mu.Lock()
			if f.has(last, r) {
				sf = last
			}
			f.mu.Unlock()
		}
		fc := faces[sf]
		if fc == nil {
			var err error
			if fc, err = face(sf, pixels); err != nil {
				continue
			}
			faces[sf] = fc
		}
		if sf != last || len(l.runs) == 0 {
			l.runs = append(l.runs, run{face: fc})
			last = sf
		}
		k := &l.runs[len(l.runs)-1]
		k.text = append(k.text, r)
	}
	for _, r := range l.runs {
		l.width += font.MeasureString(r.face, string(r.text))
	}
	return l
}

// draw puts a line on dst with its baseline beginning at x, y.
func (l line) draw(dst draw.Image, x, y int, c color.Color) {
	d := font.Drawer{Dst: dst, Src: image.NewUniform(c), Dot: fixed.P(x, y)}
	for _, r := range l.runs {
		d.Face = r.face
		d.DrawString(string(r.text))
	}
}
