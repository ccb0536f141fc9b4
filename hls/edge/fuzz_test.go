package edge

import (
	"bytes"
	"compress/gzip"
	"testing"

	protobuf "google.golang.org/protobuf/proto"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte("#EXTM3U\n"))
	_ = z.Close()
	good, err := protobuf.Marshal(&amphiv1.EdgePlaylist{Full: b.Bytes(), OpenMsn: 7, OpenParts: 1, WaitMs: 1500})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("\x0a\x01x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := new(followed).read(b)
		if err != nil {
			return
		}
		for _, form := range s.forms {
			if text := form.Bytes(); !bytes.HasPrefix(text, []byte("#EXTM3U")) || len(text) > maxText {
				t.Fatalf("a playlist of %d bytes", len(text))
			}
		}
	})
}
