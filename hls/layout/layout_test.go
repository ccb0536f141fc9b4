package layout

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The scripts in testdata are commands, "----", and what they printed. Run with
// AMPHI_REWRITE=1 to write them anew, then read the difference.
//
//	canvas W H · join ID... · leave ID... · speak [ID...] · screen ID · unscreen ID
//	mute ID · mode NAME · spotlight [ID] · options tiles=N gap=N margin=N contain · after DURATION · show
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			script, want, _ := strings.Cut(string(b), "----\n")
			s := scripted{t: t, now: time.Unix(0, 0)}
			for line := range strings.Lines(script) {
				if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
					s.do(f[0], f[1:])
				}
			}
			if os.Getenv("AMPHI_REWRITE") != "" {
				if err := os.WriteFile(f, []byte(script+"----\n"+s.out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := s.out.String(); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

type scripted struct {
	t     *testing.T
	a     *Arranger
	now   time.Time
	stage Stage
	out   strings.Builder
}

func (s *scripted) do(cmd string, args []string) {
	s.t.Helper()
	switch cmd {
	case "canvas":
		var w, h int
		if _, err := fmt.Sscan(strings.Join(args, " "), &w, &h); err != nil {
			s.t.Fatal(err)
		}
		var err error
		if s.a, err = New(w, h); err != nil {
			s.t.Fatal(err)
		}
	case "join":
		for _, id := range args {
			s.stage.Peers = append(s.stage.Peers, Peer{ID: id, Name: id})
		}
	case "leave":
		s.stage.Peers = slices.DeleteFunc(s.stage.Peers, func(p Peer) bool { return slices.Contains(args, p.ID) })
	case "speak":
		s.stage.Speakers = args
	case "screen", "unscreen":
		s.peer(args[0]).Screen = cmd == "screen"
	case "mute":
		s.peer(args[0]).Muted = true
	case "mode":
		m, err := ParseMode(args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.stage.Mode = m
	case "spotlight":
		s.stage.Spotlight = strings.Join(args, "")
	case "options":
		s.options(args)
	case "after":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		// In steps, as a program does.
		for ; d > 0; d -= 100 * time.Millisecond {
			s.now = s.now.Add(100 * time.Millisecond)
			s.a.Arrange(s.now, s.stage)
		}
	case "show":
		for _, t := range s.a.Arrange(s.now, s.stage) {
			fmt.Fprintf(&s.out, "%s %s %d,%d %dx%d", t.Peer, t.Source, t.X, t.Y, t.W, t.H)
			for _, f := range []struct {
				on   bool
				name string
			}{{t.Contain, " contain"}, {t.Muted, " muted"}, {t.Speaking, " speaking"}} {
				if f.on {
					s.out.WriteString(f.name)
				}
			}
			s.out.WriteByte('\n')
		}
		s.out.WriteString("--\n")
	default:
		s.t.Fatalf("unknown command %q", cmd)
	}
}

func (s *scripted) options(args []string) {
	s.t.Helper()
	s.stage.Options = Options{}
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		n, err := strconv.Atoi(value)
		o := &s.stage.Options
		switch {
		case name == "contain":
			o.Contain = true
			continue
		case name == "tiles":
			o.MaxTiles = n
		case name == "gap":
			o.Gap = n
		case name == "margin":
			o.Margin = n
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *scripted) peer(id string) *Peer {
	for i := range s.stage.Peers {
		if s.stage.Peers[i].ID == id {
			return &s.stage.Peers[i]
		}
	}
	s.t.Fatalf("no peer %q", id)
	return nil
}

// Whoever comes, goes, speaks and shares in whatever mode: tiles are even, within the
// canvas, of existing peers, none twice, and apart from each other except for an inset.
func TestTilesAreSound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([][2]int{{1280, 720}, {720, 1280}, {1920, 1080}, {640, 640}, {64, 64}}).Draw(t, "canvas")
		a, err := New(size[0], size[1])
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(0, 0)
		modes := []Mode{Auto, Grid, ActiveSpeaker, ScreenShare, Single, PictureInPicture}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			n := rapid.IntRange(0, 24).Draw(t, "peers")
			from := rapid.IntRange(0, 5).Draw(t, "from")
			s := Stage{Mode: rapid.SampledFrom(modes).Draw(t, "mode")}
			s.Options = Options{
				MaxTiles: rapid.IntRange(-1, 20).Draw(t, "tiles"), Gap: rapid.IntRange(-1, 120).Draw(t, "gap"),
				Margin: rapid.IntRange(-1, 250).Draw(t, "margin"), Contain: rapid.Bool().Draw(t, "contain"),
			}
			for i := range n {
				s.Peers = append(s.Peers, Peer{ID: fmt.Sprint(from + i), Screen: rapid.IntRange(0, 9).Draw(t, "screen") == 0})
			}
			for range rapid.IntRange(0, 3).Draw(t, "speakers") {
				s.Speakers = append(s.Speakers, fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "speaker")))
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond)
			check(t, a, s, a.Arrange(now, s))
		}
	})
}

func check(t *rapid.T, a *Arranger, s Stage, tiles []Tile) {
	if len(tiles) == 0 && len(s.Peers) > 0 {
		t.Fatal("nobody is shown")
	}
	if most := s.Options.MaxTiles; most > 0 && len(tiles) > most {
		t.Fatalf("%d tiles instead of %d", len(tiles), most)
	}
	seen := map[string]bool{}
	for i, x := range tiles {
		if x.X < 0 || x.Y < 0 || x.W < 2 || x.H < 2 || x.X+x.W > a.width || x.Y+x.H > a.height || (x.X|x.Y|x.W|x.H)&1 != 0 {
			t.Fatalf("tile %+v on %d×%d", x, a.width, a.height)
		}
		if key := x.Peer + string(x.Source); seen[key] || !s.has(x.Peer) {
			t.Fatalf("tile %+v twice or of nobody", x)
		} else {
			seen[key] = true
		}
		for _, y := range tiles[:i] {
			apart := x.X >= y.X+y.W || y.X >= x.X+x.W || x.Y >= y.Y+y.H || y.Y >= x.Y+x.H
			if !apart && s.Mode != PictureInPicture {
				t.Fatalf("%+v is over %+v", x, y)
			}
		}
	}
}

// Who leaves the grid moves at most one other to another place in the order.
func TestSeatsAreStable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var who, places []string
		next := 0
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := places
			if len(who) > 0 && rapid.Bool().Draw(t, "leave") {
				i := rapid.IntRange(0, len(who)-1).Draw(t, "who")
				who = slices.Delete(slices.Clone(who), i, i+1)
			} else {
				who = append(slices.Clone(who), fmt.Sprint(next))
				next++
			}
			places = seats(before, who)
			moved := 0
			for i, id := range places {
				if j := slices.Index(before, id); j >= 0 && j != i {
					moved++
				}
			}
			if moved > 1 || len(places) != len(who) {
				t.Fatalf("%v became %v for %v", before, places, who)
			}
		}
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]string{
		"Ada Lovelace":                 {"Ada Lovelace", "AL"},
		"  ada\t\n ":                   {"ada", "A"},
		"":                             {"", "?"},
		"王小明":                          {"王小明", "王"},
		"Jean-Luc  Picard":             {"Jean-Luc Picard", "JP"},
		"\u202eevil\x00":               {"evil", "E"},
		"\xff\xfe":                     {"", "?"},
		strings.Repeat("long name", 9): {"long namelong namelong namelong namelon…", "LN"},
	} {
		if l, i := label(name), initials(name); l != want[0] || i != want[1] {
			t.Errorf("%q: label %q, initials %q", name, l, i)
		}
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	if m, err := ParseMode("auto"); err != nil || m != Auto {
		t.Error(m, err)
	}
	if _, err := ParseMode("cinema"); err == nil {
		t.Error("accepted cinema")
	}
	if _, err := New(1281, 720); err == nil {
		t.Error("accepted an odd canvas")
	}
}
