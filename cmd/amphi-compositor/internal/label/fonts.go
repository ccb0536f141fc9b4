// Package label draws names, initials and icons into small pictures with alpha.
// Drawing is slow and happens when a scene is made, never on a tick.
package label

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
)

// DefaultDirs is where Debian's fonts-noto-core and fonts-noto-cjk put their files.
func DefaultDirs() []string {
	return []string{"/usr/share/fonts/truetype/noto", "/usr/share/fonts/opentype/noto"}
}

const (
	maxFontFile = 64 << 20
	maxFonts    = 24 // files kept; a program with more scripts than that opens them again
)

// Fonts finds a font for each character. Safe for concurrent use.
type Fonts struct {
	dirs   []string
	basic  *sfnt.Font // in the program itself
	mu     sync.Mutex // guards the fields below
	loaded map[string]*sfnt.Font
	buf    sfnt.Buffer
}

// Load returns the fonts of some directories. Files are opened when a name
// needs them; with none at all Latin, Greek and Cyrillic still work.
func Load(dirs []string) (*Fonts, error) {
	basic, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, err
	}
	return &Fonts{dirs: dirs, basic: basic, loaded: make(map[string]*sfnt.Font)}, nil
}

// For returns a font that has r. ok is false when none has.
func (f *Fonts) For(r rune) (face *sfnt.Font, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range candidates(r) {
		if font := f.open(name); font != nil && f.has(font, r) {
			return font, true
		}
	}
	return f.basic, f.has(f.basic, r)
}

func (f *Fonts) has(font *sfnt.Font, r rune) bool {
	i, err := font.GlyphIndex(&f.buf, r)
	return err == nil && i != 0
}

// open returns the font of a file name, nil where there is none.
func (f *Fonts) open(name string) *sfnt.Font {
	font, known := f.loaded[name]
	if known {
		return font
	}
	for _, dir := range f.dirs {
		if font = parse(filepath.Join(dir, name)); font != nil {
			break
		}
	}
	if len(f.loaded) >= maxFonts {
		clear(f.loaded)
	}
	f.loaded[name] = font
	return font
}

func parse(path string) *sfnt.Font {
	st, err := os.Stat(path)
	if err != nil || st.Size() > maxFontFile {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	if strings.HasSuffix(path, ".ttc") {
		c, err := opentype.ParseCollection(b)
		if err != nil || c.NumFonts() == 0 {
			return nil
		}
		font, err := c.Font(0)
		if err != nil {
			return nil
		}
		return font
	}
	font, err := opentype.Parse(b)
	if err != nil {
		return nil
	}
	return font
}

// candidates are the files that may have r, best first. Noto has one file per
// script, named after it.
func candidates(r rune) []string {
	switch {
	case unicode.In(r, unicode.Latin, unicode.Greek, unicode.Cyrillic):
		return []string{"NotoSans-Regular.ttf"}
	case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo):
		return []string{"NotoSansCJK-Regular.ttc"}
	case unicode.In(r, unicode.Common, unicode.Inherited):
		return []string{
			"NotoSans-Regular.ttf", "NotoSansSymbols-Regular.ttf", "NotoSansSymbols2-Regular.ttf",
			"NotoSansMath-Regular.ttf", "NotoSansCJK-Regular.ttc",
		}
	}
	for name, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			name = strings.ReplaceAll(name, "_", "")
			return []string{"NotoSans" + name + "-Regular.ttf", "NotoSerif" + name + "-Regular.ttf", "NotoSans-Regular.ttf"}
		}
	}
	return []string{"NotoSans-Regular.ttf"}
}

// face makes a font drawable at a size in pixels.
func face(f *sfnt.Font, pixels float64) (font.Face, error) {
	return opentype.NewFace(f, &opentype.FaceOptions{Size: pixels, DPI: 72, Hinting: font.HintingNone})
}
