// Package layout decides where everybody is in the program's picture. It is pure:
// who is on stage and the time go in, tiles come out. An Arranger remembers where it
// put whom, so that nobody jumps without need.
package layout

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Mode is the wish for an arrangement.
type Mode string

// The modes.
const (
	Auto             Mode = ""                   // ScreenShare while somebody shares, else Grid for a few and ActiveSpeaker for many
	Grid             Mode = "grid"               // all the same size
	ActiveSpeaker    Mode = "active-speaker"     // who speaks large, the others in a strip
	ScreenShare      Mode = "screen-share"       // the shared screen large, cameras in a strip; Grid without one
	Single           Mode = "single"             // who speaks, alone
	PictureInPicture Mode = "picture-in-picture" // screen or speaker, another one inset
)

// ParseMode reads a mode's name; "auto" is Auto.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Auto, Grid, ActiveSpeaker, ScreenShare, Single, PictureInPicture:
		return m, nil
	case "auto":
		return Auto, nil
	default:
		return Auto, fmt.Errorf("unknown layout %q", s)
	}
}

// Source is which picture of a peer a tile shows.
type Source string

// The sources.
const (
	Camera Source = "camera"
	Screen Source = "screen"
)

// Peer is somebody on stage.
type Peer struct {
	ID     string
	Name   string
	Screen bool // shares a screen
	Muted  bool // cannot be heard
}

// Stage is who is there and what is wanted.
type Stage struct {
	Peers    []Peer   // in order of their coming; ids are unique
	Speakers []string // ids of those who speak, loudest first
	Mode     Mode
	// Spotlight is a peer that is wanted large instead of who speaks; empty for none.
	Spotlight string
	Options   Options
}

// Options are how tiles look. The zero value is the default.
type Options struct {
	// MaxTiles at once, 1–16; 0 is as many as the layout has room for.
	MaxTiles int
	// Gap between tiles, in thousandths of the canvas's shorter side, up to 100; 0 is the default, below 0 none.
	Gap int
	// Margin around all tiles, in the same measure, up to 200.
	Margin int
	// Contain shows cameras whole, with bars, instead of filling their tiles.
	Contain bool
}

func (o Options) check() Options {
	o.MaxTiles = min(max(o.MaxTiles, 0), MaxTiles)
	o.Gap = min(o.Gap, 100)
	o.Margin = min(max(o.Margin, 0), 200)
	return o
}

// atMost is how many tiles there may be where the layout has room for n.
func (o Options) atMost(n int) int {
	if o.MaxTiles == 0 {
		return n
	}
	return min(n, o.MaxTiles)
}

// Tile is a rectangle in canvas pixels; all numbers are even. Tiles are painted in
// order.
type Tile struct {
	Peer       string
	Source     Source
	X, Y, W, H int
	Contain    bool // show the whole picture with bars instead of filling the tile
	Label      string
	Initials   string
	Colour     string // "#rrggbb" behind the initials
	Muted      bool
	Speaking   bool
}

// Timing of the large tile.
const (
	// takeOver is how long somebody must be the loudest to get it,
	takeOver = 1200 * time.Millisecond
	// keepLarge how long everybody keeps it at least.
	keepLarge = 2500 * time.Millisecond
)

// Limits of what is shown at once.
const (
	MaxTiles = 16 // of a grid
	few      = 9  // peers that Auto puts into a grid
	maxStrip = 5
)

// Arranger arranges one program. Not safe for concurrent use.
type Arranger struct {
	width, height int // of the canvas

	options Options
	w, h    int // of what the margin leaves

	slots  []string // grid: who has which place
	strip  []string // strip: the same
	spoke  map[string]time.Time
	main   string // who is large
	since  time.Time
	rival  string // who is louder
	rivals time.Time
	screen string // whose screen is shown
}

// New makes an arranger for a canvas of so many pixels.
func New(width, height int) (*Arranger, error) {
	if width < 64 || height < 64 || width%2 != 0 || height%2 != 0 {
		return nil, fmt.Errorf("canvas of %d×%d", width, height)
	}
	return &Arranger{width: width, height: height, spoke: map[string]time.Time{}}, nil
}

// Arrange places everybody. now never goes back.
func (a *Arranger) Arrange(now time.Time, s Stage) []Tile {
	a.listen(now, s)
	a.chooseScreen(s)
	a.chooseMain(now, s)
	a.options = s.Options.check()
	m := min(a.width, a.height) * a.options.Margin / 1000 &^ 1
	a.w, a.h = a.width-2*m, a.height-2*m
	p := painter{stage: s, x: m, y: m, contain: a.options.Contain}
	switch mode := a.mode(s); {
	case len(s.Peers) == 0:
	case mode == ScreenShare:
		a.large(&p, a.screen, Screen, s)
	case mode == ActiveSpeaker && len(s.Peers) > 1:
		a.large(&p, a.main, Camera, s)
	case mode == Single || mode == ActiveSpeaker:
		p.add(a.main, Camera, rect{0, 0, a.w, a.h})
	case mode == PictureInPicture:
		a.inset(&p, s)
	default:
		a.grid(&p, s)
	}
	return p.tiles
}

func (a *Arranger) mode(s Stage) Mode {
	switch {
	case s.Mode == Auto && a.screen != "":
		return ScreenShare
	case s.Mode == Auto && len(s.Peers) > few:
		return ActiveSpeaker
	case s.Mode == Auto, s.Mode == ScreenShare && a.screen == "":
		return Grid
	default:
		return s.Mode
	}
}

// listen remembers who spoke last, and forgets who is gone.
func (a *Arranger) listen(now time.Time, s Stage) {
	for id := range a.spoke {
		if !s.has(id) {
			delete(a.spoke, id)
		}
	}
	for _, id := range s.Speakers {
		if s.has(id) {
			a.spoke[id] = now
		}
	}
}

func (s *Stage) has(id string) bool {
	return slices.ContainsFunc(s.Peers, func(p Peer) bool { return p.ID == id })
}

// chooseScreen keeps a screen as long as it is shared; then the first one.
func (a *Arranger) chooseScreen(s Stage) {
	first := ""
	for _, p := range s.Peers {
		if p.Screen && p.ID == a.screen {
			return
		}
		if p.Screen && first == "" {
			first = p.ID
		}
	}
	a.screen = first
}

// chooseMain lets the loudest take over when that lasts.
func (a *Arranger) chooseMain(now time.Time, s Stage) {
	if s.Spotlight != "" && s.has(s.Spotlight) {
		a.setMain(now, s.Spotlight)
		return
	}
	loudest := ""
	for _, id := range s.Speakers {
		if s.has(id) {
			loudest = id
			break
		}
	}
	if loudest != a.rival {
		a.rival, a.rivals = loudest, now
	}
	switch {
	case len(s.Peers) == 0:
		a.main = ""
	case a.main == "" || !s.has(a.main):
		if loudest == "" {
			loudest = s.Peers[0].ID
		}
		a.setMain(now, loudest)
	case loudest != "" && now.Sub(a.rivals) >= takeOver && now.Sub(a.since) >= keepLarge:
		a.setMain(now, loudest)
	}
}

func (a *Arranger) setMain(now time.Time, id string) {
	if id == a.main {
		return
	}
	// They change places: who was large gets the place in the strip.
	if i := slices.Index(a.strip, id); i >= 0 && a.main != "" && !slices.Contains(a.strip, a.main) {
		a.strip[i] = a.main
	}
	a.main, a.since = id, now
}

// seats keeps who has a place, fills free places with who is new, and closes the rest
// with the last ones, so that one who leaves moves one other at most.
func seats(places, who []string) []string {
	out := slices.Clone(places)
	for i, id := range out {
		if !slices.Contains(who, id) {
			out[i] = ""
		}
	}
	for _, id := range who {
		if slices.Contains(out, id) {
			continue
		}
		if i := slices.Index(out, ""); i >= 0 {
			out[i] = id
		} else {
			out = append(out, id)
		}
	}
	for {
		i := slices.Index(out, "")
		if i < 0 {
			return out
		}
		last := len(out) - 1
		out[i] = out[last]
		out = out[:last]
	}
}

// visible chooses at most n of those that are not skipped: who is seen already stays,
// unless somebody who is not seen speaks; then the one who was silent longest goes.
func (a *Arranger) visible(s Stage, seen []string, n int, skip string) []string {
	var who []string
	if n <= 0 {
		return nil
	}
	for _, id := range seen {
		if id != skip && s.has(id) && len(who) < n {
			who = append(who, id)
		}
	}
	for _, p := range s.Peers {
		if p.ID == skip || slices.Contains(who, p.ID) {
			continue
		}
		if len(who) < n {
			who = append(who, p.ID)
			continue
		}
		if !slices.Contains(s.Speakers, p.ID) {
			continue
		}
		silent := slices.MinFunc(who, func(x, y string) int { return a.spoke[x].Compare(a.spoke[y]) })
		if !slices.Contains(s.Speakers, silent) {
			who[slices.Index(who, silent)] = p.ID
		}
	}
	return who
}

// painter makes tiles of places.
type painter struct {
	stage   Stage
	x, y    int // of what the margin leaves
	contain bool
	tiles   []Tile
}

func (p *painter) add(id string, source Source, r rect) {
	i := slices.IndexFunc(p.stage.Peers, func(q Peer) bool { return q.ID == id })
	if i < 0 {
		return
	}
	peer := p.stage.Peers[i]
	r = r.even()
	t := Tile{
		Peer: id, Source: source, X: p.x + r.x, Y: p.y + r.y, W: r.w, H: r.h, Contain: p.contain || source == Screen,
		Label: label(peer.Name), Initials: initials(peer.Name), Colour: colour(id), Muted: peer.Muted,
	}
	if source == Screen {
		t.Muted = false
	} else {
		t.Speaking = !peer.Muted && slices.Contains(p.stage.Speakers, id)
	}
	p.tiles = append(p.tiles, t)
}

// maxLabel bounds a label, in characters.
const maxLabel = 40

// label makes a name fit to be drawn: one line, nothing invisible, not too long.
func label(name string) string {
	name = strings.Join(strings.FieldsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || !unicode.IsPrint(r) || r == utf8.RuneError
	}), " ")
	if r := []rune(name); len(r) > maxLabel {
		name = string(r[:maxLabel-1]) + "…"
	}
	return name
}

// initials are the first letters of the first and the last word.
func initials(name string) string {
	words := strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.IsMark(r) })
	if len(words) == 0 {
		return "?"
	}
	first, _ := utf8.DecodeRuneInString(words[0])
	out := string(unicode.ToUpper(first))
	if len(words) > 1 {
		last, _ := utf8.DecodeRuneInString(words[len(words)-1])
		out += string(unicode.ToUpper(last))
	}
	return out
}

// colour is the same for a peer wherever it appears.
func colour(id string) string {
	palette := [...]string{"#3b5bdb", "#0b7285", "#2b8a3e", "#a61e4d", "#862e9c", "#c92a2a", "#d9480f", "#5f3dc4", "#1864ab", "#087f5b"}
	h := uint32(2166136261) // FNV-1a
	for _, b := range []byte(id) {
		h = (h ^ uint32(b)) * 16777619
	}
	return palette[h%uint32(len(palette))]
}
