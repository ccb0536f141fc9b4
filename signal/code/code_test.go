package code_test

import (
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/signal/code"
)

func TestNewParses(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	used := map[rune]int{}
	const n = 2000
	for range n {
		c := code.New()
		if got, ok := code.Parse(c); !ok || got != c {
			t.Fatalf("%q parses to %q, %v", c, got, ok)
		}
		if seen[c] {
			t.Fatalf("%q came twice", c)
		}
		seen[c] = true
		for _, r := range strings.ReplaceAll(c, "-", "") {
			used[r]++
		}
	}
	if len(used) != 22 {
		t.Errorf("%d letters in use", len(used))
	}
	for r, count := range used {
		if strings.ContainsRune("ilo", r) {
			t.Errorf("ambiguous letter %q", r)
		}
		// 20,000 letters over 22 values: 909 expected, sigma 29.
		if count < 700 || count > 1120 {
			t.Errorf("letter %q came %d times, expected about 909", r, count)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"abc-defg-hij":             "abc-defg-hij",
		"ABC DEFG hij":             "abc-defg-hij",
		" abcdefghij ":             "abc-defg-hij",
		"abc-defg-hi":              "",
		"abc-defg-hijk":            "",
		"abc-defg-hi1":             "",
		"äbc-defg-hij":             "",
		"":                         "",
		strings.Repeat("-", 70):    "",
		"abc/defg/hij":             "",
		"abc-defg-hij\x00":         "",
		"../../etc/passwd":         "",
		"\u212Abc-defg-hij":        "kbc-defg-hij", // The Kelvin sign is a k in lower case.
		"a-b-c-d-e-f-g-h-i-j":      "abc-defg-hij",
		"abc-defg-hij abc-def-hij": "",
	} {
		got, ok := code.Parse(typed)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", typed, got, ok, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("abc-defg-hij")
	f.Add("ABC defg hij")
	f.Fuzz(func(t *testing.T, typed string) {
		got, ok := code.Parse(typed)
		if !ok {
			return
		}
		if again, ok := code.Parse(got); !ok || again != got || len(got) != 12 {
			t.Fatalf("%q gives %q, which gives %q", typed, got, again)
		}
	})
}
