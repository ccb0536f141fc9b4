package playlist

import (
	"bytes"
	"strconv"
	"strings"
)

// Variant is one rung of the ladder in the multivariant playlist.
type Variant struct {
	URI           string
	Codecs        string // of the video, RFC 6381
	Width, Height int
	FrameRate     float64
	Bitrate       int // average, bit/s, video only
	Peak          int // bit/s, video only
}

// Audio is the one audio rendition that all variants share.
type Audio struct {
	URI      string
	Codecs   string
	Channels int
	Bitrate  int // average, bit/s
	Peak     int // bit/s
}

// Text is a rendition of captions; the first of several is the default.
type Text struct{ URI, Language string }

const (
	audioGroup = "audio"
	textGroup  = "captions"
)

// Multivariant writes the multivariant playlist (section 4.4.6).
func Multivariant(variants []Variant, audio *Audio, texts []Text) []byte {
	var b strings.Builder
	b.WriteString("#EXTM3U\n#EXT-X-VERSION:10\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	if audio != nil {
		b.WriteString(`#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="` + audioGroup + `",NAME="Main",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="`)
		b.WriteString(strconv.Itoa(audio.Channels))
		b.WriteString(`",URI="` + audio.URI + "\"\n")
	}
	for i, t := range texts {
		b.WriteString(`#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="` + textGroup + `",NAME="` + t.Language + `",LANGUAGE="` + t.Language + `",AUTOSELECT=YES`)
		if i == 0 {
			b.WriteString(",DEFAULT=YES")
		}
		b.WriteString(`,URI="` + t.URI + "\"\n")
	}
	for _, v := range variants {
		codecs, avg, peak := v.Codecs, v.Bitrate, v.Peak
		if audio != nil {
			codecs += "," + audio.Codecs
			avg += audio.Bitrate
			peak += audio.Peak
		}
		b.WriteString("#EXT-X-STREAM-INF:BANDWIDTH=" + strconv.Itoa(peak))
		b.WriteString(",AVERAGE-BANDWIDTH=" + strconv.Itoa(avg))
		b.WriteString(`,CODECS="` + codecs + `",RESOLUTION=` + strconv.Itoa(v.Width) + "x" + strconv.Itoa(v.Height))
		b.WriteString(",FRAME-RATE=" + strconv.FormatFloat(v.FrameRate, 'f', 3, 64))
		if audio != nil {
			b.WriteString(`,AUDIO="` + audioGroup + `"`)
		}
		if len(texts) > 0 {
			b.WriteString(`,SUBTITLES="` + textGroup + `"`)
		}
		b.WriteString(",CLOSED-CAPTIONS=NONE\n" + v.URI + "\n")
	}
	return []byte(b.String())
}

// WithQuery appends a query, as "token=x", to every URI of a multivariant playlist: it carries a playback token to the
// child playlists.
func WithQuery(text []byte, query string) []byte {
	if query == "" {
		return text
	}
	out := make([]byte, 0, len(text)+16*(len(query)+1))
	for line := range bytes.Lines(text) {
		body := bytes.TrimRight(line, "\r\n")
		uri, rest := body, []byte(nil)
		if len(body) == 0 || body[0] == '#' {
			_, after, ok := bytes.Cut(body, []byte(`URI="`))
			end := bytes.IndexByte(after, '"')
			if !ok || end < 0 {
				out = append(out, line...)
				continue
			}
			rest = after[end:]
			uri = body[:len(body)-len(rest)]
		}
		out = append(out, uri...)
		if bytes.IndexByte(uri[bytes.LastIndexByte(uri, '"')+1:], '?') >= 0 {
			out = append(out, '&')
		} else {
			out = append(out, '?')
		}
		out = append(append(append(out, query...), rest...), line[len(body):]...)
	}
	return out
}
