package playlist

import (
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

// Multivariant writes the multivariant playlist (section 4.4.6). query is appended to
// every URI when it is not empty: it carries a playback token to the child playlists.
func Multivariant(variants []Variant, audio *Audio, texts []Text, query string) []byte {
	if query != "" {
		query = "?" + query
	}
	var b strings.Builder
	b.WriteString("#EXTM3U\n#EXT-X-VERSION:10\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	if audio != nil {
		b.WriteString(`#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="` + audioGroup + `",NAME="Main",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="`)
		b.WriteString(strconv.Itoa(audio.Channels))
		b.WriteString(`",URI="` + audio.URI + query + "\"\n")
	}
	for i, t := range texts {
		b.WriteString(`#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="` + textGroup + `",NAME="` + t.Language + `",LANGUAGE="` + t.Language + `",AUTOSELECT=YES`)
		if i == 0 {
			b.WriteString(",DEFAULT=YES")
		}
		b.WriteString(`,URI="` + t.URI + query + "\"\n")
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
		b.WriteString(",CLOSED-CAPTIONS=NONE\n" + v.URI + query + "\n")
	}
	return []byte(b.String())
}
