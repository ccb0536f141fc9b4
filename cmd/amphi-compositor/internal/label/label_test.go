package label

import (
	"image/color"
	"os"
	"strings"
	"testing"
)

// system returns Debian's fonts, or skips.
func system(t testing.TB) *Fonts {
	t.Helper()
	for _, dir := range DefaultDirs() {
		if _, err := os.Stat(dir + "/NotoSans-Regular.ttf"); err == nil {
			return load(t, DefaultDirs())
		}
	}
	t.Skip("needs fonts-noto-core")
	return nil
}

func load(t testing.TB, dirs []string) *Fonts {
	t.Helper()
	f, err := Load(dirs)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// ink is how many pixels are nearly white.
func ink(p *Picture) (n int) {
	for i := 0; i < len(p.Pix); i += 4 {
		if p.Pix[i] > 200 && p.Pix[i+1] > 200 && p.Pix[i+2] > 200 && p.Pix[i+3] > 200 {
			n++
		}
	}
	return n
}

func TestNamesOfTheWorld(t *testing.T) {
	t.Parallel()
	f := system(t)
	box, ok := f.For('\U0010FFFE')
	if ok {
		t.Fatal("a font for what is no character")
	}
	for _, name := range []string{
		"Ada Lovelace", "Nguyễn Thị Hà", "Дмитрий", "Γιώργος", "محمد", "علی رضایی", "דוד", "अनीता", "สมชาย", "გიორგი", "Հայկ", "አበበ", "ខ្មែរ",
		"தமிழ்", "বাংলা", "བོད", "ᏣᎳᎩ", "ꯃꯤꯇꯩ",
	} {
		p := f.Plate(name, false, 32, 600)
		if p == nil || ink(p) < 60 {
			t.Errorf("%s: no ink", name)
			continue
		}
		for _, r := range visual(name) {
			if font, ok := f.For(r); !ok || font == box {
				if strings.ContainsRune("Ada Lovelace", r) {
					continue
				}
				t.Errorf("%s: no font for %q", name, r)
			}
		}
	}
}

func TestWithoutAnyFont(t *testing.T) {
	t.Parallel()
	f := load(t, []string{t.TempDir()})
	if p := f.Plate("Ada", false, 32, 600); p == nil || ink(p) < 60 {
		t.Error("no ink for Latin")
	}
	if p := f.Plate("अनीता", false, 32, 600); p == nil {
		t.Error("nothing at all for another script")
	}
}

func TestBrokenFontFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/NotoSans-Regular.ttf", []byte("this is no font"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := load(t, []string{dir}).Plate("Ada", false, 32, 600); p == nil || ink(p) < 60 {
		t.Error("no ink")
	}
}

func TestPlateFits(t *testing.T) {
	t.Parallel()
	f := load(t, nil)
	for _, limit := range []int{40, 80, 200, 500} {
		for _, name := range []string{"", "A", "A name that is much too long for any tile", strings.Repeat("Ω", 128)} {
			for _, muted := range []bool{false, true} {
				p := f.Plate(name, muted, 24, limit)
				if p == nil {
					continue
				}
				if w, h := p.Rect.Dx(), p.Rect.Dy(); w > limit || w%2 != 0 || h != 24 {
					t.Errorf("%q, muted %v, limit %d: %d×%d", name, muted, limit, w, h)
				}
			}
		}
	}
	if f.Plate("", false, 24, 500) != nil || f.Plate("\u200b\x07 ", false, 24, 500) != nil {
		t.Error("a plate without a name")
	}
	if f.Plate("😀", false, 24, 500) != nil {
		t.Error("a plate with a box for an emoji")
	}
	short, long := f.Plate("Ada Lovelace", false, 24, 500), f.Plate("Ada Lovelace", true, 24, 500)
	if long.Rect.Dx() <= short.Rect.Dx() {
		t.Error("no room for the microphone")
	}
	red := 0
	for i := 0; i < len(long.Pix); i += 4 {
		if long.Pix[i] > 180 && long.Pix[i+1] < 120 {
			red++
		}
	}
	if red == 0 {
		t.Error("the microphone is not crossed out")
	}
}

func TestVisualOrder(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Ada":          "Ada",
		"e\u0301":      "é",
		"a\tb\u202e":   "a b",
		"שלום":         "םולש",
		"Dr. שלום":     "Dr. םולש",
		"שלום (Ada)":   "(Ada) םולש",
		"\u05d1\u05bc": "\u05d1\u05bc", // a mark stays behind its letter
		"محمد":         "\ufeaa\ufee4\ufea4\ufee3",
		"بلال":         "\ufedd\ufefc\ufe91",
	} {
		if got := string(visual(in)); got != want {
			t.Errorf("%+q: %+q, want %+q", in, got, want)
		}
	}
}

func TestPlaceholder(t *testing.T) {
	t.Parallel()
	f := load(t, nil)
	ground := Colour("#3366cc", "")
	if ground != (color.NRGBA{0x33, 0x66, 0xcc, 255}) {
		t.Fatal(ground)
	}
	p := f.Placeholder(641, 361, "AL", ground)
	if p.Rect.Dx() != 640 || p.Rect.Dy() != 360 {
		t.Fatal(p.Rect)
	}
	if p.NRGBAAt(0, 0).A != 255 || p.NRGBAAt(320, 360/2-80) != ground || ink(p) < 500 {
		t.Fatalf("corner %v, disc %v, ink %d", p.NRGBAAt(0, 0), p.NRGBAAt(320, 100), ink(p))
	}
	f.Placeholder(2, 2, "AL", ground)
	f.Placeholder(0, 0, strings.Repeat("W", 60), ground)
	ada, again := Colour("", "Ada"), Colour("", "Ada")
	if ada != again || ada == Colour("", "Grace") || Colour("#zzzzzz", "Ada").A != 255 {
		t.Error("colours of texts")
	}
}

// However many scripts come by, only so many fonts stay in memory.
func TestFontsAreForgotten(t *testing.T) {
	t.Parallel()
	f := load(t, []string{t.TempDir()})
	for r := rune(0x80); r < 0x3000; r += 8 {
		f.For(r)
		if len(f.loaded) > maxFonts+5 {
			t.Fatalf("%d fonts", len(f.loaded))
		}
	}
}

func BenchmarkPlate(b *testing.B) {
	f := system(b)
	b.ReportAllocs()
	for b.Loop() {
		f.Plate("Ada Lovelace", true, 32, 600)
	}
}

func FuzzPlate(f *testing.F) {
	fonts := load(f, nil)
	for _, s := range []string{"Ada", "שלום (Ada)", "\u064b\u0644\u0627", "\u0301", "😀\u200d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 256 {
			return
		}
		if p := fonts.Plate(s, false, 24, 300); p != nil && p.Rect.Dx() > 300 {
			t.Fatalf("%d pixels wide", p.Rect.Dx())
		}
	})
}
