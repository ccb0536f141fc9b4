package validate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/playlist"
	"github.com/amphi-sfu/amphi/hls/validate"
)

const media = `#EXTM3U
#EXT-X-VERSION:10
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=3.00000,HOLD-BACK=6,CAN-SKIP-UNTIL=12,CAN-SKIP-DATERANGES=YES
#EXT-X-PART-INF:PART-TARGET=1.00000
#EXT-X-MEDIA-SEQUENCE:100
#EXT-X-DISCONTINUITY-SEQUENCE:4
#EXT-X-DATERANGE:ID="cue",START-DATE="2026-11-20T12:00:01.000Z",DURATION=1.00000,END-DATE="2026-11-20T12:00:02.000Z",X-A="b"
#EXT-X-MAP:URI="i.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:00.000Z
#EXTINF:2.00000,
100.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:02.000Z
#EXT-X-PART:DURATION=1.00000,URI="101.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=1.00000,URI="101.1.m4s"
#EXTINF:2.00000,
101.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:04.000Z
#EXT-X-PART:DURATION=1.00000,URI="102.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=1.00000,URI="102.1.m4s"
#EXTINF:2.00000,
102.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="i.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:08.000Z
#EXT-X-PART:DURATION=1.00000,URI="103.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=1.00000,URI="103.1.m4s"
#EXTINF:2.00000,
103.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:10.000Z
#EXT-X-PART:DURATION=1.00000,URI="104.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="104.1.m4s"
#EXT-X-RENDITION-REPORT:URI="../other/index.m3u8",LAST-MSN=104,LAST-PART=0
`

// later is media when one more part has come.
var later = strings.NewReplacer(`#EXT-X-PRELOAD-HINT:TYPE=PART,URI="104.1.m4s"`, `#EXT-X-PART:DURATION=1.00000,URI="104.1.m4s"
#EXTINF:2.00000,
104.m4s
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="105.0.m4s"`).Replace(media)

const multi = `#EXTM3U
#EXT-X-VERSION:10
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="Main",DEFAULT=YES,AUTOSELECT=YES,URI="audio/index.m3u8"
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="English",URI="s/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=500000,AVERAGE-BANDWIDTH=400000,CODECS="avc1.64000d,mp4a.40.2",RESOLUTION=320x180,FRAME-RATE=30.000,AUDIO="a",SUBTITLES="s"
v/index.m3u8
`

var whole = validate.Request{Part: -1}

func rulesOf(c *validate.Checker) []string {
	list, _ := c.Faults()
	out := []string{}
	for _, f := range list {
		if f.Rule.Section() == "" || f.Rule.Text() == "" {
			out = append(out, "rule without words: "+string(f.Rule))
		}
		if !slices.Contains(out, string(f.Rule)) {
			out = append(out, string(f.Rule))
		}
	}
	return out
}

func TestGoodPlaylists(t *testing.T) {
	t.Parallel()
	c := validate.New()
	if c.Multivariant([]byte(multi)) == nil {
		t.Error("no multivariant playlist")
	}
	now := time.Now()
	c.Media("v/index.m3u8", now, whole, []byte(media))
	p := c.Media("v/index.m3u8", now.Add(time.Second), validate.Request{Blocking: true, MSN: 104, Part: 1}, []byte(later))
	if p == nil || p.Segments[3].Sequence != 5 || p.Segments[0].Map != "i.mp4" || p.Segments[4].MSN != 104 || p.Segments[4].Open() {
		t.Errorf("%+v", p)
	}
	list, _ := c.Faults()
	for _, f := range list {
		t.Error(f)
	}
}

// Each rule about playlists is broken once, by one change to good ones.
func TestRulesAboutOnePlaylist(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rule, old, new string }{
		{"text", "#EXTM3U", "\ufeff#EXTM3U"},
		{"text", "102.m4s", "102\x01.m4s"},
		{"kind", "#EXT-X-VERSION:10", "#EXT-X-VERSION:10\n#EXT-X-STREAM-INF:BANDWIDTH=1\nx"},
		{"attributes", `ID="cue"`, `ID="cue",ID="cue"`},
		{"attributes", `URI="104.0.m4s"`, `URI="104.0.m4s`},
		{"first-line", "#EXTM3U\n", "\n#EXTM3U\n"},
		{"version", "VERSION:10", "VERSION:5"},
		{"version", "VERSION:10", "VERSION:10\n#EXT-X-VERSION:10"},
		{"once", "#EXT-X-TARGETDURATION:2", "#EXT-X-TARGETDURATION:2\n#EXT-X-TARGETDURATION:2"},
		{"target-duration", "TARGETDURATION:2", "TARGETDURATION:1"},
		{"target-duration", "#EXT-X-TARGETDURATION:2\n", ""},
		{"media-sequence", "102.m4s\n", "102.m4s\n#EXT-X-MEDIA-SEQUENCE:100\n"},
		{"discontinuity-sequence", "102.m4s\n", "102.m4s\n#EXT-X-DISCONTINUITY-SEQUENCE:4\n"},
		{"end", "#EXT-X-PRELOAD-HINT", "#EXT-X-ENDLIST\n#EXT-X-PRELOAD-HINT"},
		{"playlist-type", "#EXT-X-MEDIA-SEQUENCE", "#EXT-X-PLAYLIST-TYPE:LIVE\n#EXT-X-MEDIA-SEQUENCE"},
		{"part-inf", "#EXT-X-PART-INF:PART-TARGET=1.00000\n", ""},
		{"server-control", "PART-HOLD-BACK=3.00000", "PART-HOLD-BACK=1.90000"},
		{"server-control", "PART-HOLD-BACK=3.00000,", ""},
		{"server-control", "HOLD-BACK=6", "HOLD-BACK=5"},
		{"server-control", "CAN-SKIP-UNTIL=12", "CAN-SKIP-UNTIL=11"},
		{"server-control", "CAN-SKIP-UNTIL=12,", ""},
		{"extinf", "#EXTINF:2.00000,\n102.m4s", "102.m4s"},
		{"extinf", "#EXTINF:2.00000,\n102.m4s", "#EXTINF:x,\n102.m4s"},
		{"map", "#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:00.000Z\n", ""},
		{"date", "12:00:04.000Z", "12:00:04.100Z"},
		{"date", "2026-11-20T12:00:04.000Z", "yesterday"},
		{"part", `#EXT-X-PART:DURATION=1.00000,URI="102.0.m4s"`, `#EXT-X-PART:DURATION=1.00000`},
		{"part", "#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:10.000Z\n#EXT-X-PART:DURATION=1.00000,URI=\"104.0.m4s\",INDEPENDENT=YES\n",
			"#EXT-X-PART:DURATION=1.00000,URI=\"104.0.m4s\",INDEPENDENT=YES\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:10.000Z\n"},
		{"part-target", `DURATION=1.00000,URI="104.0.m4s"`, `DURATION=1.10000,URI="104.0.m4s"`},
		{"part-target", "#EXT-X-PART:DURATION=1.00000,URI=\"103.0.m4s\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=1.00000,URI=\"103.1.m4s\"\n",
			"#EXT-X-PART:DURATION=0.80000,URI=\"103.0.m4s\"\n#EXT-X-PART:DURATION=0.60000,URI=\"103.1.m4s\"\n#EXT-X-PART:DURATION=0.60000,URI=\"103.2.m4s\"\n"},
		{"part-parent", "#EXTINF:2.00000,\n103.m4s", "#EXTINF:1.90000,\n103.m4s"},
		{"daterange", `START-DATE="2026-11-20T12:00:01.000Z",`, ""},
		{"daterange", `END-DATE="2026-11-20T12:00:02.000Z"`, `END-DATE="2026-11-20T12:00:00.000Z"`},
		{"daterange", `END-DATE="2026-11-20T12:00:02.000Z"`, `END-DATE="2026-11-20T12:00:03.000Z"`},
		{"daterange", "#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:00", "#EXT-X-DATERANGE:ID=\"cue\",START-DATE=\"2026-11-20T12:00:09.000Z\"\n#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:00"},
		{"skip", "#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:00", "#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:00"},
		{"preload-hint", `TYPE=PART,URI="104.1.m4s"`, `TYPE=PART,URI="104.0.m4s"`},
		{"preload-hint", `TYPE=PART,`, ``},
		{"rendition-report", ",LAST-MSN=104", ""},
		{"parts-kept", "#EXT-X-PART:DURATION=1.00000,URI=\"102.0.m4s\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=1.00000,URI=\"102.1.m4s\"\n", ""},
	} {
		bad := strings.Replace(media, c.old, c.new, 1)
		v := validate.New()
		v.Media("v", time.Now(), whole, []byte(bad))
		if got := rulesOf(v); bad == media || !slices.Contains(got, c.rule) {
			t.Errorf("%s: %q for %q: %v", c.rule, c.new, c.old, got)
		}
	}
}

func TestRulesAboutTheMultivariantPlaylist(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rule, old, new string }{
		{"rendition", `NAME="English",`, ""},
		{"rendition", `URI="s/index.m3u8"`, `LANGUAGE="en"`},
		{"rendition", "AUTOSELECT=YES", "AUTOSELECT=NO"},
		{"rendition", `GROUP-ID="s",NAME="English"`, `GROUP-ID="s",NAME="English",URI="t"` + "\n" + `#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="English"`},
		{"bandwidth", "BANDWIDTH=500000", "BANDWIDTH=300000"},
		{"bandwidth", "BANDWIDTH=500000,", ""},
		{"codecs", `CODECS="avc1.64000d,mp4a.40.2",`, ""},
		{"resolution", "RESOLUTION=320x180,", ""},
		{"group", `AUDIO="a"`, `AUDIO="b"`},
		{"multivariant", "v/index.m3u8\n", ""},
	} {
		bad := strings.Replace(multi, c.old, c.new, 1)
		v := validate.New()
		v.Multivariant([]byte(bad))
		if got := rulesOf(v); bad == multi || !slices.Contains(got, c.rule) {
			t.Errorf("%s: %q for %q: %v", c.rule, c.new, c.old, got)
		}
	}
}

func TestRulesAboutTwoPlaylists(t *testing.T) {
	t.Parallel()
	blocking := validate.Request{Blocking: true, MSN: 104, Part: 1}
	for _, c := range []struct {
		rule, old, new string
		q              validate.Request
		after          time.Duration
	}{
		{"target-duration", "TARGETDURATION:2", "TARGETDURATION:3", blocking, 0},
		{"part-inf", "PART-TARGET=1.00000", "PART-TARGET=1.10000", blocking, 0},
		{"playlist-type", "#EXT-X-MEDIA-SEQUENCE", "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MEDIA-SEQUENCE", blocking, 0},
		{"media-sequence", "SEQUENCE:100", "SEQUENCE:99", blocking, 0},
		{"change", "SEQUENCE:100", "SEQUENCE:101", blocking, 0},
		{"discontinuity-sequence", "DISCONTINUITY-SEQUENCE:4", "DISCONTINUITY-SEQUENCE:3", blocking, 0},
		{"discontinuity-sequence", "102.m4s\n#EXT-X-DISCONTINUITY\n", "102.m4s\n", blocking, 0},
		{"change", "102.m4s", "102-b.m4s", blocking, 0},
		{"change", `URI="103.0.m4s"`, `URI="103.5.m4s"`, blocking, 0},
		{"change", "#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:10.000Z", "#EXT-X-MAP:URI=\"other.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:10.000Z", blocking, 0},
		{"change", later[strings.Index(later, "#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:10"):], "", whole, 0},
		{"preload-hint", `URI="104.1.m4s"`, `URI="104.7.m4s"`, blocking, 0},
		{"daterange", `X-A="b"`, `X-A="c"`, blocking, 0},
		{"blocking", "", "", validate.Request{Blocking: true, MSN: 105, Part: 0}, 0},
		{"skip", "#EXT-X-MAP", "#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n#EXT-X-MAP", blocking, 0},
		{"skip", "#EXT-X-MAP", "#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n#EXT-X-MAP", validate.Request{Part: -1, Skip: true}, 0},
		{"delta", "#EXT-X-MAP", "#EXT-X-SKIP:SKIPPED-SEGMENTS=9\n#EXT-X-MAP", validate.Request{Part: -1, Skip: true}, 0},
		{"timely", later, media, whole, 4 * time.Second},
	} {
		bad := strings.Replace(later, c.old, c.new, 1)
		v := validate.New()
		now := time.Now()
		v.Media("v", now, whole, []byte(media))
		v.Media("v", now.Add(c.after), c.q, []byte(bad))
		if got := rulesOf(v); !slices.Contains(got, c.rule) {
			t.Errorf("%s: %q for %q: %v", c.rule, c.new, c.old, got)
		}
	}
	v := validate.New()
	v.Media("v", time.Now(), whole, []byte(media+"#EXT-X-ENDLIST\n"))
	v.Media("v", time.Now(), whole, []byte(later))
	if got := rulesOf(v); !slices.Contains(got, "end") {
		t.Errorf("after the end: %v", got)
	}
	v = validate.New()
	v.Media("v", time.Now(), whole, []byte(media))
	at := strings.Index(later, "#EXT-X-DATERANGE")
	short := strings.NewReplacer("SEQUENCE:100", "SEQUENCE:103", "SEQUENCE:4", "SEQUENCE:5").Replace(later[:at]) + later[strings.Index(later, "#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:08"):]
	v.Media("v", time.Now(), whole, []byte(short))
	if got := rulesOf(v); !slices.Contains(got, "window") {
		t.Errorf("a short window: %v", got)
	}
}

// program makes a short program with the packager.
type program struct {
	t testing.TB
	p *packager.Packager
	c *validate.Checker
}

func newProgram(t testing.TB) *program {
	t.Helper()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	p, err := packager.New(packager.Config{
		Epoch: 9, Start: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), FirstMSN: 100,
		Variants: []packager.Variant{{Name: "v", Width: 320, Height: 180, Bitrate: 500_000}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.SetAudioConfig(hlstest.AudioConfig()), p.Begin(0)); err != nil {
		t.Fatal(err)
	}
	sample := int64(0)
	for tick := range int64(300) {
		if err := p.WriteVideo(0, tick, clip.Video[tick%60]); err != nil {
			t.Fatal(err)
		}
		for ; sample < (tick+1)*1600; sample += 1024 {
			if err := p.WriteAudio(sample, clip.Audio[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &program{t, p, validate.New()}
}

// check shows the program to a Checker; change may spoil what it sees.
func (x *program) check(change func(what string, b []byte) []byte) {
	x.t.Helper()
	multi, ok := x.p.Multivariant()
	if !ok {
		x.t.Fatal("not ready")
	}
	x.c.Multivariant(change("multivariant", multi))
	for _, name := range []string{"v", "audio"} {
		m, _ := x.p.Media(name)
		uri := name + "/index.m3u8"
		p := x.c.Media(uri, time.Now(), whole, change(name+" playlist", m.Published().Form(playlist.SkipNone).Bytes()))
		if p == nil {
			continue
		}
		get := func(object string) []byte {
			n, _ := packager.ParseName(object)
			o, ok := m.Object(n)
			if !ok {
				x.t.Fatalf("%s is not there", object)
			}
			return slices.Concat(o.Chunks...)
		}
		x.c.Init(uri, p.Segments[0].Map, change(name+" init", get(p.Segments[0].Map)))
		for i := range p.Segments {
			s := &p.Segments[i]
			for k, part := range s.Parts {
				x.c.Object(uri, s.MSN, k, change(fmt.Sprintf("%s %d.%d", name, s.MSN, k), get(part.URI)))
			}
			if !s.Open() {
				x.c.Object(uri, s.MSN, -1, change(fmt.Sprintf("%s %d", name, s.MSN), get(s.URI)))
			}
		}
	}
	x.c.Finish()
}

func TestRulesAboutObjects(t *testing.T) {
	t.Parallel()
	replace := func(target, old, new string) func(string, []byte) []byte {
		return func(what string, b []byte) []byte {
			if what != target {
				return b
			}
			bad := strings.Replace(string(b), old, new, 1)
			if bad == string(b) {
				t.Errorf("%q is not in %s", old, what)
			}
			return []byte(bad)
		}
	}
	other := func(target string, f func(b []byte) []byte) func(string, []byte) []byte {
		return func(what string, b []byte) []byte {
			if what == target {
				return f(slices.Clone(b))
			}
			return b
		}
	}
	x := newProgram(t)
	x.check(func(_ string, b []byte) []byte { return b })
	if list, _ := x.c.Faults(); len(list) != 0 || x.c.Stats().Parts < 25 {
		t.Fatalf("a good program: %v, %+v", list, x.c.Stats())
	}
	tfdt := func(by byte) func(b []byte) []byte {
		return func(b []byte) []byte {
			b[strings.Index(string(b), "tfdt")+4+4+6] += by
			return b
		}
	}
	for _, c := range []struct {
		rule   string
		change func(string, []byte) []byte
	}{
		{"fragment", replace("v init", "ftyp", "free")},
		{"fragment", replace("v 101", "moof", "free")},
		{"fragment", other("v 103.1", func(b []byte) []byte { return b[:len(b)/2] })},
		{"codecs", replace("multivariant", "avc1", "hvc1")},
		{"codecs", replace("multivariant", "mp4a.40.2", "mp4a.40.5")},
		{"resolution", replace("multivariant", "320x180", "640x360")},
		{"bandwidth", other("multivariant", func(b []byte) []byte {
			return regexp.MustCompile(`BANDWIDTH=\d+`).ReplaceAll(b, []byte("BANDWIDTH=1000"))
		})},
		{"continuous", other("v 103.1", tfdt(1))},
		{"continuous", other("v 101", tfdt(1))},
		{"extinf", replace("audio playlist", "#EXTINF:2.00533", "#EXTINF:1.99")},
		{"part", replace("v playlist", "#EXT-X-PART:DURATION=0.50000", "#EXT-X-PART:DURATION=0.49000")},
		{"independent", replace("v playlist", ".1.m4s\"", ".1.m4s\",INDEPENDENT=YES")},
		{"aligned", replace("audio playlist", "#EXT-X-DISCONTINUITY-SEQUENCE:0", "#EXT-X-DISCONTINUITY-SEQUENCE:1")},
		{"aligned", replace("audio playlist", "T12:00:04", "T12:00:05")},
		{"date", replace("v playlist", "T12:00:02.000", "T12:00:02.010")},
		{"rendition-report", replace("v playlist", "#EXT-X-RENDITION-REPORT", "#EXT-X-NO-REPORT")},
		{"part-parent", other("v 103", func(b []byte) []byte {
			i := strings.LastIndex(string(b), "moof")
			return b[:i-4]
		})},
	} {
		x := newProgram(t)
		x.check(c.change)
		if got := rulesOf(x.c); !slices.Contains(got, c.rule) {
			t.Errorf("%s: %v", c.rule, got)
		}
	}
	// That a segment begins with a keyframe is a rule only where the playlist promises it.
	for promised, change := range map[bool]func(string, []byte) []byte{
		true: func(_ string, b []byte) []byte { return b }, false: replace("multivariant", "#EXT-X-INDEPENDENT-SEGMENTS\n", ""),
	} {
		x := newProgram(t)
		x.check(func(what string, b []byte) []byte {
			if what == "v 101" {
				b = b[strings.Index(string(b[8:]), "moof")+4:]
			}
			return change(what, b)
		})
		if got := slices.Contains(rulesOf(x.c), "independent"); got != promised {
			t.Errorf("promised %v, fault %v", promised, got)
		}
	}
	x = newProgram(t)
	x.c.Missing("v", "x", "status 404")
	if got := rulesOf(x.c); !slices.Equal(got, []string{"missing"}) {
		t.Error(got)
	}
}

func TestCaptions(t *testing.T) {
	t.Parallel()
	good := "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:05.000\n\n1\n00:00:06.000 --> 00:00:07.500 line:0\nHello\nyou\n\n00:08.000 --> 00:09.000\nTwo\n"
	c, err := validate.ParseCaptions([]byte(good))
	if err != nil || len(c.Cues) != 2 || c.Cues[0].Text != "Hello\nyou" || c.Media(c.Cues[0].Start) != 11*time.Second {
		t.Errorf("%+v %v", c, err)
	}
	for _, bad := range []string{"", "WEBVTTX\n", "WEBVTT\n\n", strings.Replace(good, "7.500", "5.500", 1), strings.Replace(good, "LOCAL:", "LOCAL:x", 1)} {
		if _, err := validate.ParseCaptions([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
	const list = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:100\n#EXTINF:2,\n100.vtt\n#EXTINF:2,\n101.vtt\n"
	x := newProgram(t)
	x.check(func(_ string, b []byte) []byte { return b })
	x.c.Media("s", time.Now(), whole, []byte(list))
	x.c.Object("s", 101, -1, []byte("WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n00:02.500 --> 00:03.000\nHi\n"))
	// The clock of the map has begun anew since.
	x.c.Object("s", 101, -1, []byte("WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:8589034592,LOCAL:00:00:00.000\n\n00:12.500 --> 00:13.000\nHi\n"))
	if got := rulesOf(x.c); len(got) != 0 {
		t.Error(got)
	}
	x.c.Object("s", 101, -1, []byte("WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n00:07.500 --> 00:08.000\nHi\n"))
	if got := rulesOf(x.c); !slices.Equal(got, []string{"captions"}) {
		t.Error(got)
	}
}

// A server that promises to wait and does not is not asked without a pause.
func TestFollowDoesNotSpin(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/m.m3u8":
			_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nempty.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=1\nstuck.m3u8\n")
			return
		case "/stuck.m3u8":
			defer func() { _, _ = io.WriteString(w, "#EXTINF:2,\na\n") }()
		}
		asked.Add(1)
		_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n")
	}))
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	client := srv.Client()
	defer client.CloseIdleConnections()
	if _, err := validate.Follow(ctx, validate.Config{URL: srv.URL + "/m.m3u8", Client: client, PlaylistsOnly: true}); err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n > 40 {
		t.Errorf("%d requests in 2 s", n)
	}
}

// Whatever comes as a playlist, reading it ends and leaves numbers that make sense.
func FuzzParse(f *testing.F) {
	for _, s := range []string{media, later, multi, "", "#EXTM3U\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n", "\xff"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		c := validate.New()
		c.Multivariant([]byte(a))
		c.Media("v", time.Unix(1, 0), validate.Request{Skip: true, Part: -1}, []byte(a))
		if p := c.Media("v", time.Unix(2, 0), validate.Request{Skip: true, Part: -1}, []byte(b)); p != nil {
			for i := range p.Segments {
				c.Object("v", p.Segments[i].MSN, -1, []byte(a))
			}
		}
		c.Finish()
		if list, _ := c.Faults(); len(list) > 200 {
			t.Error("faults without bound")
		}
	})
}

func FuzzObjects(f *testing.F) {
	x := newProgram(f)
	seeds := map[string][]byte{}
	x.check(func(what string, b []byte) []byte { seeds[what] = b; return b })
	f.Add(seeds["v init"], seeds["v 101.0"])
	f.Add(seeds["audio init"], seeds["audio 101.0"])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		init, err := validate.ParseInit(a)
		if err != nil {
			return
		}
		list, err := validate.ParseFragments(b, init)
		if err == nil && len(list) == 0 {
			t.Error("neither fragments nor an error")
		}
	})
}

func FuzzCaptions(f *testing.F) {
	f.Add("WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:05.000\n\n1\n00:00:06.000 --> 00:00:07.500 line:0\nHello\n")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := validate.ParseCaptions([]byte(s))
		for _, cue := range c.Cues {
			if err == nil && cue.End < cue.Start {
				t.Error("a cue that ends before it begins")
			}
		}
	})
}
