package negotiate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/media/codec"
)

// describe tells what was understood of an offer, one line for each section.
func describe(o *Offer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "setup %s, %d fingerprints\n", o.Setup, len(o.Fingerprints))
	for _, s := range o.Sections {
		kind := map[codec.Kind]string{codec.Audio: "audio", codec.Video: "video"}[s.Kind]
		fmt.Fprintf(&b, "%s %s %s rejected=%v rids=%v ssrcs=%d extensions=%+v\n", s.Mid, kind, s.Direction, s.Rejected, s.RIDs, len(s.SSRCs), s.Extensions)
		for _, f := range s.Formats {
			fmt.Fprintf(&b, "  %d %s rtx=%d red=%d %+v\n", f.PayloadType, f.Codec, f.RTX, f.RED, f.Feedback)
		}
	}
	return b.String()
}

// TestClients: offers of Chromium 156, Firefox 153 and GStreamer 1.22 as they were sent, and one in the form that
// libdatachannel gives those of OBS; what is read from them, and what they are answered, are golden files.
func TestClients(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"chromium", "firefox", "gstreamer", "obs"} {
		o, err := Parse(load(t, name+".sdp"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		a := Answer{SessionID: 1, Version: 1, Ufrag: "ours", Pwd: "password-of-at-least-22-chars", Fingerprint: Fingerprint{"sha-256", "AA:BB"},
			Candidates: []string{"1 1 udp 2130706431 192.0.2.1 7882 typ host"}, Sections: make([]SectionAnswer, len(o.Sections))}
		for i, s := range o.Sections {
			answer := SectionAnswer{Accept: s.Kind != 0 && !s.Rejected && len(s.Formats) > 0, RIDs: s.RIDs, Direction: RecvOnly}
			if s.Direction == RecvOnly {
				answer.Direction, answer.SSRC, answer.RTX, answer.Stream, answer.Track, answer.CNAME = SendOnly, uint32(2*i+1), uint32(2*i+2), "s", "t", "amphi"
			}
			a.Sections[i] = answer
		}
		got := describe(o) + "\n" + strings.ReplaceAll(a.Marshal(o), "\r\n", "\n")
		golden := filepath.Join("testdata", name+".golden")
		if os.Getenv("REWRITE") != "" {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || got != string(want) {
			t.Errorf("%s (REWRITE=1 rewrites the golden file): %v\n%s", name, err, got)
		}
	}
}

// TestOddOffers: offers that are legal and unusual are read rightly, others refused with a reason.
func TestOddOffers(t *testing.T) {
	t.Parallel()
	const transport = "v=0\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=ice-options:trickle ice2 renomination\r\n" +
		"a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n"
	const video = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 vp8/90000\r\na=rtpmap:97 RTX/90000\r\na=fmtp:97 apt=96\r\n"
	const audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 OPUS/48000/2\r\n"
	const base = transport + video + audio
	for name, tt := range map[string]struct {
		sdp   string
		want  Reason // empty: it is accepted
		check func(*Offer) bool
	}{
		"video first, names in any case": {base, "", func(o *Offer) bool {
			v, a := o.Sections[0], o.Sections[1]
			return v.Formats[0].Codec.Name == codec.VP8 && v.Formats[0].RTX == 97 && a.Formats[0].Codec.Name == codec.Opus && v.Stream == ""
		}},
		"wildcard feedback": {strings.Replace(base, "a=rtpmap:96", "a=rtcp-fb:* nack\r\na=rtcp-fb:* nack pli\r\na=rtcp-fb:* transport-cc\r\na=rtpmap:96", 1), "", func(o *Offer) bool {
			return o.Sections[0].Formats[0].Feedback == Feedback{NACK: true, PLI: true, TransportCC: true}
		}},
		"ice-lite":          {strings.Replace(base, "a=ice-ufrag", "a=ice-lite\r\na=ice-ufrag", 1), ICELite, nil},
		"setup:active":      {strings.Replace(base, "a=ice-ufrag", "a=setup:active\r\na=ice-ufrag", 1), "", func(o *Offer) bool { return o.Setup == "active" }},
		"setup:passive":     {strings.Replace(base, "a=ice-ufrag", "a=setup:passive\r\na=ice-ufrag", 1), "", func(o *Offer) bool { return o.Setup == "passive" }},
		"mDNS candidate":    {base + "a=candidate:1 1 udp 2113937151 3f1e7c1a-9c5e-4d0e-8f0c-1f1b1f6f2d51.local 50000 typ host\r\n", "", nil},
		"candidate of junk": {base + "a=candidate:;;;\r\na=candidate\r\n", "", nil},
		"ids above 14": {strings.Replace(base, "a=rtpmap:96", "a=extmap:15 "+uriMID+"\r\na=extmap:16 "+uriTransportCC+"\r\na=extmap:255 "+uriRID+"\r\na=rtpmap:96", 1), "", func(o *Offer) bool {
			return o.Sections[0].Extensions == Extensions{}
		}},
		"one section rejected": {strings.Replace(base, "m=audio 9", "m=audio 0", 1), "", func(o *Offer) bool { return o.Sections[1].Rejected && !o.Sections[0].Rejected }},
		"a mid in its place":   {strings.ReplaceAll(strings.Replace(base, "BUNDLE 0 1", "BUNDLE 0 7", 1), "a=mid:1", "a=mid:7"), "", func(o *Offer) bool { return o.Section("7") != nil }},
		"two of a kind": {transport + video + strings.Replace(video, "a=mid:0", "a=mid:1", 1), "", func(o *Offer) bool {
			return o.Sections[0].Kind == codec.Video && o.Sections[1].Kind == codec.Video
		}},
		"simulcast without SSRCs": {strings.Replace(base, "a=rtpmap:96", "a=rid:1 send\r\na=rid:2 send max-width=320\r\na=simulcast:send 1;2\r\na=rtpmap:96", 1), "", func(o *Offer) bool {
			return slices.Equal(o.Sections[0].RIDs, []string{"1", "2"}) && len(o.Sections[0].SSRCs) == 0
		}},
		"simulcast as drafts had it": {strings.Replace(base, "a=rtpmap:96", "a=rid:1 send\r\na=simulcast: send rid=1\r\na=rtpmap:96", 1), "", func(o *Offer) bool {
			return len(o.Sections[0].RIDs) == 0
		}},
		"not in the bundle":  {strings.Replace(base, "BUNDLE 0 1", "BUNDLE 0", 1), NoBundle, nil},
		"a mid is missing":   {strings.Replace(base, "a=mid:1\r\n", "", 1), NoBundle, nil},
		"the same mid twice": {strings.Replace(base, "a=mid:1", "a=mid:0", 1), Malformed, nil},
		"without rtcp-mux":   {strings.Replace(base, "a=rtcp-mux\r\n", "", 1), NoRTCPMux, nil},
		"plain RTP":          {strings.ReplaceAll(base, "UDP/TLS/RTP/SAVPF", "RTP/AVP"), "", func(o *Offer) bool { return o.Sections[0].Kind == 0 }},
	} {
		o, err := Parse(tt.sdp)
		var refused *Error
		switch {
		case tt.want != "":
			if !errors.As(err, &refused) || refused.Reason != tt.want {
				t.Errorf("%s: %v, want %s", name, err, tt.want)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.check != nil && !tt.check(o):
			t.Errorf("%s: read as\n%s", name, describe(o))
		}
	}
}
