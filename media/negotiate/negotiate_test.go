package negotiate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/media/codec"
)

func load(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(raw), "\n", "\r\n")
}

func TestBrowserOffer(t *testing.T) {
	t.Parallel()
	o, err := Parse(load(t, "chrome.sdp"))
	if err != nil {
		t.Fatal(err)
	}
	if o.Ufrag != "Xk3z" || o.Setup != "actpass" || len(o.Fingerprints) != 1 || o.Fingerprints[0].Hash != "sha-256" {
		t.Fatalf("transport %+v", o)
	}
	if len(o.Sections) != 4 {
		t.Fatalf("%d sections", len(o.Sections))
	}
	audio, video, slot, data := o.Sections[0], o.Sections[1], o.Sections[2], o.Sections[3]
	if audio.Kind != codec.Audio || audio.Direction != SendOnly || audio.Stream != "stream0" || audio.Track != "mic0" {
		t.Fatalf("audio %+v", audio)
	}
	if len(audio.Formats) != 1 || audio.Formats[0].PayloadType != 111 || audio.Formats[0].Fmtp != "minptime=10;useinbandfec=1" || !audio.Formats[0].Feedback.TransportCC {
		t.Fatalf("audio formats %+v", audio.Formats)
	}
	if !slices.Equal(video.RIDs, []string{"q", "h", "f"}) || video.Extensions != (Extensions{MID: 4, RID: 10, RepairedRID: 11, TransportCC: 3}) {
		t.Fatalf("video %+v", video)
	}
	var formats []string
	for _, f := range video.Formats {
		formats = append(formats, f.Codec.String())
		if f.RTX == 0 || !f.Feedback.NACK || f.Codec.Name != codec.VP9 && (!f.Feedback.PLI || !f.Feedback.FIR || !f.Feedback.TransportCC || !f.Feedback.REMB) {
			t.Errorf("format %+v", f)
		}
	}
	if want := []string{"VP8", "H264 constrained-baseline", "VP9", "H264 high"}; !slices.Equal(formats, want) {
		t.Fatalf("formats %v", formats)
	}
	if slot.Direction != RecvOnly || !slot.Direction.Receives() || slot.Direction.Sends() {
		t.Fatalf("slot %+v", slot)
	}
	if data.Kind != 0 || data.Rejected {
		t.Fatalf("data channel %+v", data)
	}
}

// TestLayeredOffer: an offer as Chromium makes it, with VP9 first. The descriptor is only
// agreed on where it can be sent in full.
func TestLayeredOffer(t *testing.T) {
	t.Parallel()
	text := load(t, "layers.sdp")
	o, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	s := o.Sections[0]
	if len(s.Formats) != 1 || s.Formats[0].Codec.String() != "VP9" || s.Extensions.Descriptor != 13 {
		t.Fatalf("%+v", s)
	}
	a := Answer{Ufrag: "u", Pwd: "p", Sections: []SectionAnswer{{Accept: true, Direction: RecvOnly}}}
	if got := a.Marshal(o); !strings.Contains(got, "a=extmap:13 "+uriDescriptor+"\r\n") || !strings.Contains(got, "a=extmap-allow-mixed\r\n") {
		t.Fatalf("answer %s", got)
	}
	if o, err = Parse(strings.Replace(text, "a=extmap:13 ", "a=extmap:18 ", 1)); err != nil || o.Sections[0].Extensions.Descriptor != 18 {
		t.Fatalf("with an id of the two-byte form: %v, %+v", err, o.Sections[0].Extensions)
	}
	o, err = Parse(strings.Replace(text, "a=extmap-allow-mixed\r\n", "", 1))
	if err != nil || o.Sections[0].Extensions.Descriptor != 0 {
		t.Fatalf("without mixed extensions: %v, %+v", err, o.Sections[0].Extensions)
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	o, err := Parse(load(t, "chrome.sdp"))
	if err != nil {
		t.Fatal(err)
	}
	a := Answer{
		SessionID: 7, Version: 2, Ufrag: "ours", Pwd: "password-of-at-least-22-chars", Fingerprint: Fingerprint{"sha-256", "AA:BB"},
		Candidates: []string{"1 1 udp 2130706431 192.0.2.1 7882 typ host"},
		Sections: []SectionAnswer{
			{Accept: true, Direction: RecvOnly},
			{Accept: true, Direction: RecvOnly, RIDs: o.Sections[1].RIDs},
			{Accept: true, Direction: SendOnly, SSRC: 11, RTX: 12, Stream: "slot-0", Track: "slot-2", CNAME: "amphi"},
			{},
		},
	}
	got := a.Marshal(o)
	golden := filepath.Join("testdata", "answer.sdp")
	if os.Getenv("REWRITE") != "" {
		if err := os.WriteFile(golden, []byte(strings.ReplaceAll(got, "\r\n", "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := load(t, "answer.sdp"); got != want {
		t.Fatalf("answer (REWRITE=1 rewrites the golden file):\n%s\nwant:\n%s", got, want)
	}
}

func TestParseTakesOddButLegalOffers(t *testing.T) {
	t.Parallel()
	chrome := load(t, "chrome.sdp")
	for name, c := range map[string]struct {
		old, new string
		check    func(o *Offer) bool
	}{
		"bundle-only":             {"m=video 9", "m=video 0", func(o *Offer) bool { return o.Sections[1].Rejected }},
		"bundle-only marked":      {"m=audio 9", "m=audio 0", func(o *Offer) bool { return o.Sections[0].Rejected }},
		"no a=mid":                {"a=mid:0\r\n", "", nil},
		"unknown attribute":       {"a=rtcp-mux", "a=hello:world\r\na=rtcp-mux", func(o *Offer) bool { return len(o.Sections) == 4 }},
		"wildcard feedback":       {"a=rtcp-fb:96 nack\r\n", "a=rtcp-fb:* nack\r\n", func(o *Offer) bool { return o.Sections[1].Formats[0].Feedback.NACK }},
		"unknown fingerprint too": {"a=fingerprint:sha-256", "a=fingerprint:md5 00:11\r\na=fingerprint:sha-256", func(o *Offer) bool { return len(o.Fingerprints) == 1 }},
		"paused and alternatives": {"a=simulcast:send q;h;f", "a=simulcast:recv x send ~q,h;f", func(o *Offer) bool {
			return slices.Equal(o.Sections[1].RIDs, []string{"q", "f"})
		}},
		"extension out of range": {"a=extmap:3 ", "a=extmap:15 ", func(o *Offer) bool { return o.Sections[1].Extensions.TransportCC == 0 }},
	} {
		o, err := Parse(strings.ReplaceAll(chrome, c.old, c.new))
		if name == "no a=mid" {
			var e *Error // a bundle of sections that cannot be named is refused, not misread
			if !errors.As(err, &e) || e.Reason != NoBundle {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !c.check(o) {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	head := "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n"
	for name, c := range map[string]struct {
		sdp  string
		want Reason
	}{
		"size":           {"v=0" + strings.Repeat("x", MaxSize), TooLarge},
		"sections":       {head + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", MaxSections+1), TooManySections},
		"formats":        {head + "m=audio 9 UDP/TLS/RTP/SAVPF" + strings.Repeat(" 1", maxCodecs+1), Malformed},
		"port":           {head + "m=audio x UDP/TLS/RTP/SAVPF 0", Malformed},
		"mid":            {head + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:" + strings.Repeat("x", 300), Malformed},
		"setup":          {strings.ReplaceAll(load(t, "chrome.sdp"), "actpass", "sideways"), Malformed},
		"all rejected":   {head + "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n", NoMedia},
		"line":           {head + "nonsense", Malformed},
		"not an sdp":     {"hello", Malformed},
		"no fingerprint": {head + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=rtcp-mux\r\n", NoFingerprint},
	} {
		_, err := Parse(c.sdp)
		var e *Error
		if !errors.As(err, &e) || e.Reason != c.want || e.Error() == "" {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	chrome := load(f, "chrome.sdp")
	f.Add(chrome)
	f.Add("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=ssrc-group:FID 1 2\r\na=simulcast:send ;;~,\r\na=extmap:1\r\na=rtcp-fb:* \r\n")
	f.Fuzz(func(t *testing.T, sdp string) {
		o, err := Parse(sdp)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		a := Answer{Ufrag: "u", Pwd: "p", Sections: make([]SectionAnswer, len(o.Sections))}
		for i, s := range o.Sections {
			a.Sections[i] = SectionAnswer{Accept: s.Kind != 0 && !s.Rejected && len(s.Formats) > 0, Direction: SendOnly, SSRC: 1, RIDs: s.RIDs}
		}
		if n := strings.Count(a.Marshal(o), "\r\nm="); n != len(o.Sections) {
			t.Fatalf("%d sections in the answer to %d", n, len(o.Sections))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	chrome := load(b, "chrome.sdp")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(chrome); err != nil {
			b.Fatal(err)
		}
	}
}
