package movie

import (
	"bytes"
	"fmt"
)

// Bytes of a sample entry's own in front of the boxes in it.
const (
	videoEntry = 78
	audioEntry = 28
)

// config is the body of the box in the sample entry that configures the decoder.
func (t *Track) config(kind string) []byte {
	x, _, err := cut(t.Entry)
	if err != nil {
		return nil
	}
	skip := audioEntry
	if t.Video {
		skip = videoEntry
	}
	if len(x.body) < skip {
		return nil
	}
	body, err := find(x.body[skip:], kind)
	if err != nil {
		return nil
	}
	return body
}

// Codec is the type of the sample entry: avc1, mp4a, Opus.
func (t *Track) Codec() string {
	if len(t.Entry) < boxHeader {
		return ""
	}
	return string(t.Entry[4:8])
}

// Codecs describes the track for a playlist (RFC 6381); empty when it is none that we write.
func (t *Track) Codecs() string {
	switch t.Codec() {
	case "avc1":
		if c := t.config("avcC"); len(c) >= 4 {
			return fmt.Sprintf("avc1.%02x%02x%02x", c[1], c[2], c[3])
		}
	case "mp4a":
		// The object type is in front of the AudioSpecificConfig, which the tag 5 begins; sizes have one or four bytes.
		c := t.config("esds")
		for _, tag := range [][]byte{{0x05, 0x80, 0x80, 0x80}, {0x05}} {
			if i := bytes.Index(c, tag); i >= 0 && i+len(tag)+1 < len(c) {
				return fmt.Sprintf("mp4a.40.%d", c[i+len(tag)+1]>>3)
			}
		}
	case "Opus":
		return "opus"
	}
	return ""
}

// AnnexB turns a sample of an H.264 track into an access unit in Annex B format that decodes by itself if the sample is a
// keyframe: parameter sets are put in front. It returns nil for anything else.
func (t *Track) AnnexB(sample []byte) []byte {
	c := t.config("avcC")
	if len(c) < 7 || c[4]&3 != 3 { // lengths of 4 bytes
		return nil
	}
	var out []byte
	rest := c[5:]
	for _, mask := range [2]byte{31, 255} { // of sequence parameter sets, of picture parameter sets
		if len(rest) == 0 {
			return nil
		}
		count := int(rest[0] & mask)
		rest = rest[1:]
		for range count {
			if len(rest) < 2 || len(rest)-2 < int(rest[0])<<8|int(rest[1]) {
				return nil
			}
			n := 2 + (int(rest[0])<<8 | int(rest[1]))
			out = append(append(out, 0, 0, 0, 1), rest[2:n]...)
			rest = rest[n:]
		}
	}
	for len(sample) > 4 {
		n := int(sample[0])<<24 | int(sample[1])<<16 | int(sample[2])<<8 | int(sample[3])
		if n <= 0 || n > len(sample)-4 {
			return nil
		}
		out = append(append(out, 0, 0, 0, 1), sample[4:4+n]...)
		sample = sample[4+n:]
	}
	return out
}
