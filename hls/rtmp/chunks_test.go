package rtmp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/bluenviron/gortmplib"
	"github.com/bluenviron/gortmplib/pkg/bytecounter"
	"github.com/bluenviron/gortmplib/pkg/codecs"
	"github.com/bluenviron/gortmplib/pkg/rawmessage"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
)

// chunk is a whole header of format 0, and what follows it.
func chunk(id, typ byte, length int, body []byte) []byte {
	b := []byte{id, 0, 0, 0, byte(length >> 16), byte(length >> 8), byte(length), typ, 1, 0, 0, 0}
	return append(b, body...)
}

func TestLongMessages(t *testing.T) {
	t.Parallel()
	size := func(n uint32) []byte { return chunk(2, typeChunkSize, 4, binary.BigEndian.AppendUint32(nil, n)) }
	for _, c := range []struct {
		name string
		b    []byte
		err  error
	}{
		{"command", chunk(3, 20, maxMessage, nil), nil},
		{"long command", chunk(3, 20, maxMessage+1, nil), errTooLong},
		{"long data", chunk(3, 18, maxMessage+1, nil), errTooLong},
		{"long sound", chunk(4, 8, maxMessage+1, nil), errTooLong},
		{"picture", chunk(6, typeVideo, maxPicture, []byte{0x17}), nil},
		{"long picture", chunk(6, typeVideo, maxPicture+1, nil), errTooLong},
		{"data as a picture", chunk(6, typeVideo, maxMessage+1, []byte{0x84}), errTooLong},
		{"length from the chunk before", append(chunk(3, 20, 1, []byte{1}), 0x43, 0, 0, 0, 1, 0, 0, 20), errTooLong},
		{"after larger chunks", append(append(size(1000), chunk(3, 20, 1000, make([]byte, 1000))...), chunk(3, 20, maxMessage+1, nil)...), errTooLong},
		{"after a chunk with a late time", append(append([]byte{6, 255, 255, 255, 0, 1, 0, 9, 0, 0, 0, 0, 2, 0, 0, 0}, make([]byte, 128)...),
			append(append([]byte{0xc6, 2, 0, 0, 0}, make([]byte, 128)...), chunk(3, 20, maxMessage+1, nil)...)...), errTooLong},
		// The times of chunks that begin a message are late, too, if they repeat the header before. Whoever passes over that sees a picture here.
		{"in a chunk with a late time", append(append([]byte{2, 255, 255, 255, 0, 0, 4, 3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0}, 0xc2, 2, 0, 0, 0, 6, 0, 0, 0),
			8, 0, 0, typeVideo, 0x90, 0, 0, 18, 1, 0, 0, 0), errTooLong},
		{"chunks of nothing", size(0), errChunks},
		{"abort", chunk(2, typeAbort, 4, make([]byte, 4)), errChunks},
		{"nothing before", []byte{0xc6}, errChunks},
	} {
		for _, step := range []int{1, 7, 1 << 20} {
			g := Chunks{handshake: handshakeBytes, size: minChunk}
			var err error
			for rest := c.b; len(rest) > 0 && err == nil; {
				n := min(step, len(rest))
				err = g.Take(rest[:n])
				rest = rest[n:]
			}
			if !errors.Is(err, c.err) {
				t.Errorf("%s by %d bytes: %v", c.name, step, err)
			}
		}
	}
	if err := new(Chunks).Take([]byte{6}); !errors.Is(err, errNotRTMP) {
		t.Errorf("an encrypted handshake: %v", err)
	}
}

// nested is objects within objects, behind the header of a message of data. At the given places of what is returned are keys of twelve
// bytes, with which begins what seems to be another picture.
func nested(id, late byte, pictures ...int) []byte {
	const size = 9 << 20
	b := chunk(id, 18, size, nil)
	b[3] = late
	for len(b)-12 < size {
		if len(pictures) == 0 || len(b) < pictures[0]-100 {
			b = append(b, 3, 0, 1, 'a')
			continue
		}
		pad := pictures[0] - 6 - len(b)
		b = append(append(append(b, 3, 0, byte(pad)), make([]byte, pad)...), 3, 0, 12)
		b = append(b, chunk(6, typeVideo, maxPicture-16, nil)...)
		pictures = pictures[1:]
	}
	return b[:12+size]
}

// TestNestedObjects: objects within objects, without end, from one who may publish; as they are, and in what looks like pictures to who
// does not know that a message may begin with a chunk that has nothing but a late time.
func TestNestedObjects(t *testing.T) {
	t.Parallel()
	st := newStage()
	s := serve(t, Config{}, st)
	good := publish(t, s, "good")
	large := chunk(2, typeChunkSize, 4, binary.BigEndian.AppendUint32(nil, 10<<20))
	const first = 12 - 4 + 0x80000 // the first picture's length is read from the header: 08 00 00
	hidden := nested(8, typeVideo, first, first+maxPicture-4, first+2*(maxPicture-4))
	for _, b := range [][]byte{
		append(bytes.Clone(large), nested(8, 0)...),
		append(append(bytes.Clone(large), 2, 255, 255, 255, 0, 0, 4, 3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xc2, 2, 0, 0, 0, 6, 0, 0, 0), hidden...),
	} {
		bad := publish(t, s, "good")
		_, _ = bad.NetConn().Write(b)
		_, _ = io.Copy(io.Discard, bad.NetConn())
	}
	if err := good.send(0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "taken", func() bool { v, _, _ := st.counts(); return v == 1 })
}

// TestPictureGrows: a size that the role does not have cannot come later.
func TestPictureGrows(t *testing.T) {
	t.Parallel()
	st := newStage()
	s := serve(t, Config{}, st)
	c := publish(t, s, "good")
	if err := c.send(0); err != nil {
		t.Fatal(err)
	}
	again := *c.Writer
	if err := again.Initialize(); err != nil { // the same once more
		t.Fatal(err)
	}
	if err := c.send(1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "taken", func() bool { v, _, _ := st.counts(); return v == 2 })
	was := c.video.Codec.(*codecs.H264)
	larger := &codecs.H264{PPS: was.PPS, SPS: map[byte][]byte{ // 1920 by 1080, by profile
		66:  {0x67, 0x42, 0xc0, 0x28, 0xd9, 0x00, 0x78, 0x02, 0x27, 0xe5, 0x84, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x60, 0xc9, 0x20},
		100: {0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0x84, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x60, 0xc6, 0x58},
	}[was.SPS[1]]}
	var sps h264.SPS
	if err := sps.Unmarshal(larger.SPS); err != nil || sps.Width() != 1920 {
		t.Fatalf("profile %d: %v", was.SPS[1], err)
	}
	w := &gortmplib.Writer{Conn: c.Client, Tracks: []*gortmplib.Track{{Codec: larger}, c.audio}}
	if err := w.Initialize(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "closed", func() bool { return s.Stats().Open == 0 })
}

func TestErrorsHoldNoKey(t *testing.T) {
	t.Parallel()
	_, parse := url.Parse(strings.Join([]string{"/SECRET", "zz"}, "%"))
	for _, err := range []error{
		parse, fmt.Errorf("unexpected command: SECRET"), fmt.Errorf("unexpected command &{SECRET}"), fmt.Errorf("bad [SECRET]"), errors.New(strings.Repeat("x", 60) + "SECRET"),
	} {
		if got := short(err).Error(); got == "" || strings.Contains(got, "SECRET") {
			t.Errorf("%q", got)
		}
	}
}

// FuzzChunks: what passes never makes the library take in more than the limits, and is the same to both.
func FuzzChunks(f *testing.F) {
	f.Add(chunk(6, typeVideo, 300, make([]byte, 128)))
	f.Add(append(chunk(3, 20, 1, []byte{1}), 0x83, 0, 0, 0, 5, 0xc3, 6))
	f.Add(append(chunk(2, typeChunkSize, 4, []byte{0, 0, 1, 0}), chunk(4, 8, 200, make([]byte, 200))...))
	f.Add(append([]byte{6, 255, 255, 255, 0, 1, 0, 9, 0, 0, 0, 0, 2, 0, 0, 0}, make([]byte, 128)...))
	f.Add([]byte{2, 255, 255, 255, 0, 0, 4, 3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xc2, 2, 0, 0, 0, 6, 0, 0, 0, 0xc2, 2, 0, 0, 0, 6, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		g := Chunks{handshake: handshakeBytes, size: minChunk}
		if g.Take(b) != nil {
			return
		}
		r := bytes.NewReader(b)
		counter := bytecounter.NewReader(r)
		raw := rawmessage.NewReader(counter, counter, func(uint32) error { return nil })
		for {
			m, err := raw.Read()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "without previous chunk") {
					t.Fatalf("%x: %v", b, err)
				}
				return
			}
			if m.Type == typeChunkSize {
				if err := raw.SetChunkSize(binary.BigEndian.Uint32(m.Body)); err != nil {
					t.Fatal(err)
				}
			}
			if len(m.Body) > maxMessage && (m.Type != typeVideo || m.Body[0]&enhanced != 0) {
				t.Fatalf("%x: a message of %d bytes", b, len(m.Body))
			}
		}
	})
}
