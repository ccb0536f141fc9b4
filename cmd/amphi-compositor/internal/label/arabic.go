package label

// Arabic letters change with their neighbours. Instead of the fonts' own tables
// this uses Unicode's presentation forms (U+FE80–U+FEFC), which Noto has too;
// that covers Arabic, and Persian through U+FB56–U+FBFF.

// forms are a letter's shapes: alone, at the end, at the beginning, in the middle.
// Letters without the last two don't join to the left.
type forms struct{ isolated, final, initial, medial rune }

func arabicForms() map[rune]forms {
	m := make(map[rune]forms)
	at := rune(0xFE80)
	add := func(letter rune, n rune) {
		f := forms{isolated: at}
		if n > 1 {
			f.final = at + 1
		}
		if n > 2 {
			f.initial, f.medial = at+2, at+3
		}
		m[letter] = f
		at += n
	}
	add(0x0621, 1) // hamza
	for _, r := range []rune{0x0622, 0x0623, 0x0624, 0x0625} {
		add(r, 2)
	}
	add(0x0626, 4)
	add(0x0627, 2) // alef
	add(0x0628, 4)
	add(0x0629, 2)
	for r := rune(0x062A); r <= 0x062E; r++ {
		add(r, 4)
	}
	for r := rune(0x062F); r <= 0x0632; r++ {
		add(r, 2)
	}
	for r := rune(0x0633); r <= 0x063A; r++ {
		add(r, 4)
	}
	for r := rune(0x0641); r <= 0x0647; r++ {
		add(r, 4)
	}
	add(0x0648, 2)
	add(0x0649, 2)
	add(0x064A, 4)
	// Persian and Urdu.
	m[0x067E] = forms{0xFB56, 0xFB57, 0xFB58, 0xFB59}
	m[0x0679] = forms{0xFB66, 0xFB67, 0xFB68, 0xFB69}
	m[0x0686] = forms{0xFB7A, 0xFB7B, 0xFB7C, 0xFB7D}
	m[0x0688] = forms{0xFB88, 0xFB89, 0, 0}
	m[0x0691] = forms{0xFB8C, 0xFB8D, 0, 0}
	m[0x0698] = forms{0xFB8A, 0xFB8B, 0, 0}
	m[0x06A9] = forms{0xFB8E, 0xFB8F, 0xFB90, 0xFB91}
	m[0x06AF] = forms{0xFB92, 0xFB93, 0xFB94, 0xFB95}
	m[0x06BA] = forms{0xFB9E, 0xFB9F, 0, 0}
	m[0x06BE] = forms{0xFBAA, 0xFBAB, 0xFBAC, 0xFBAD}
	m[0x06C1] = forms{0xFBA6, 0xFBA7, 0xFBA8, 0xFBA9}
	m[0x06CC] = forms{0xFBFC, 0xFBFD, 0xFBFE, 0xFBFF}
	m[0x06D2] = forms{0xFBAE, 0xFBAF, 0, 0}
	m[0x0640] = forms{0x0640, 0x0640, 0x0640, 0x0640} // tatweel
	return m
}

// lamAlef are the ligatures of lam with the alefs: alone and at the end.
func lamAlef(alef rune) (isolated, final rune, ok bool) {
	switch alef {
	case 0x0622:
		return 0xFEF5, 0xFEF6, true
	case 0x0623:
		return 0xFEF7, 0xFEF8, true
	case 0x0625:
		return 0xFEF9, 0xFEFA, true
	case 0x0627:
		return 0xFEFB, 0xFEFC, true
	}
	return 0, 0, false
}

// transparent tells whether a mark lies on a letter and does not break a join.
func transparent(r rune) bool {
	return r >= 0x064B && r <= 0x065F || r == 0x0670 || r >= 0x06D6 && r <= 0x06ED
}

// join replaces Arabic letters by the forms that their neighbours ask for. Text in
// logical order goes in and comes out.
func join(s []rune) []rune {
	arabic := false
	for _, r := range s {
		arabic = arabic || r >= 0x0600 && r <= 0x06FF
	}
	if !arabic {
		return s
	}
	table := arabicForms()
	// neighbour is the next letter in direction step, over marks.
	neighbour := func(i, step int) forms {
		for i += step; i >= 0 && i < len(s); i += step {
			if !transparent(s[i]) {
				return table[s[i]]
			}
		}
		return forms{}
	}
	out := make([]rune, 0, len(s))
	for i := 0; i < len(s); i++ {
		f, ok := table[s[i]]
		if !ok {
			out = append(out, s[i])
			continue
		}
		before := neighbour(i, -1).initial != 0 && f.final != 0
		if s[i] == 0x0644 && i+1 < len(s) {
			if isolated, final, ok := lamAlef(s[i+1]); ok {
				out = append(out, pick(before, final, isolated))
				i++
				continue
			}
		}
		after := f.initial != 0 && neighbour(i, 1).final != 0
		switch {
		case before && after:
			out = append(out, f.medial)
		case after:
			out = append(out, f.initial)
		default:
			out = append(out, pick(before, f.final, f.isolated))
		}
	}
	return out
}

func pick(first bool, a, b rune) rune {
	if first {
		return a
	}
	return b
}
