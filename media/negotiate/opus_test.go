package negotiate

import (
	"strings"
	"testing"
)

const opusOffer = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n" +
	"a=fingerprint:sha-256 " + "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n"

// answerAudio answers an offer of one audio section with the given formats and lines.
func answerAudio(t *testing.T, d Direction, formats string, lines ...string) (*Section, string) {
	t.Helper()
	o, err := Parse(opusOffer + "m=audio 9 UDP/TLS/RTP/SAVPF " + formats + "\r\na=mid:0\r\na=rtcp-mux\r\n" + strings.Join(lines, "\r\n") + "\r\n")
	if err != nil {
		t.Fatal(err)
	}
	a := Answer{Ufrag: "ours", Pwd: "password-of-at-least-22-chars", Fingerprint: Fingerprint{"sha-256", "AA:BB"}, Sections: []SectionAnswer{{Accept: true, Direction: d}}}
	return &o.Sections[0], a.Marshal(o)
}

// TestOpusParametersAreKept: discontinuous transmission and stereo are answered as offered,
// and publishers are asked for Opus' own error correction.
func TestOpusParametersAreKept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		offered string
		d       Direction
		want    string
	}{
		{"minptime=10;useinbandfec=1", RecvOnly, "minptime=10;useinbandfec=1"},
		{"useinbandfec=1;usedtx=1;stereo=1;sprop-stereo=1;maxaveragebitrate=128000", RecvOnly, "useinbandfec=1;usedtx=1;stereo=1;sprop-stereo=1;maxaveragebitrate=128000"},
		{"maxplaybackrate=48000;stereo=1;useinbandfec=1", SendOnly, "maxplaybackrate=48000;stereo=1;useinbandfec=1"},
		{"stereo=1", RecvOnly, "stereo=1;useinbandfec=1"},
		{"stereo=1", SendOnly, "stereo=1"},
		{"useinbandfec=0", RecvOnly, "useinbandfec=0"},
		{"", RecvOnly, "useinbandfec=1"},
	} {
		lines := []string{"a=rtpmap:111 opus/48000/2"}
		if c.offered != "" {
			lines = append(lines, "a=fmtp:111 "+c.offered)
		}
		if _, answer := answerAudio(t, c.d, "111", lines...); !strings.Contains(answer, "a=fmtp:111 "+c.want+"\r\n") {
			t.Errorf("%q, %v: want %q in\n%s", c.offered, c.d, c.want, answer)
		}
	}
}

func TestRedundantAudioIsNegotiated(t *testing.T) {
	t.Parallel()
	opus, redundant := "a=rtpmap:111 opus/48000/2", "a=rtpmap:63 red/48000/2"
	for name, c := range map[string]struct {
		formats string
		lines   []string
		red     uint8
		answer  string
	}{
		"as Chromium offers":  {"111 63 9", []string{opus, redundant, "a=fmtp:63 111/111"}, 63, "SAVPF 111 63\r\n"},
		"preferred":           {"63 111", []string{opus, redundant, "a=fmtp:63 111/111"}, 63, "SAVPF 63 111\r\n"},
		"three frames":        {"111 63", []string{opus, redundant, "a=fmtp:63 111/111/111"}, 63, "SAVPF 111 63\r\n"},
		"without its format":  {"111 63", []string{opus, redundant}, 0, "SAVPF 111\r\n"},
		"of another format":   {"111 63", []string{opus, redundant, "a=fmtp:63 111/9"}, 0, "SAVPF 111\r\n"},
		"nonsense":            {"111 63", []string{opus, redundant, "a=fmtp:63 111/x"}, 0, "SAVPF 111\r\n"},
		"not among the codes": {"111", []string{opus, redundant, "a=fmtp:63 111/111"}, 0, "SAVPF 111\r\n"},
		"of video":            {"111 63", []string{opus, "a=rtpmap:63 red/90000", "a=fmtp:63 111/111"}, 0, "SAVPF 111\r\n"},
	} {
		s, answer := answerAudio(t, RecvOnly, c.formats, c.lines...)
		if len(s.Formats) != 1 || s.Formats[0].RED != c.red {
			t.Errorf("%s: formats %+v", name, s.Formats)
		}
		if !strings.Contains(answer, c.answer) || strings.Contains(answer, "a=rtpmap:63 red/48000/2\r\na=fmtp:63 ") != (c.red != 0) {
			t.Errorf("%s: answer\n%s", name, answer)
		}
	}
}
