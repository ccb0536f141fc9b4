package playlist_test

import (
	"testing"

	"github.com/amphi-sfu/amphi/hls/playlist"
)

func TestWithQuery(t *testing.T) {
	t.Parallel()
	variants := []playlist.Variant{{URI: "720p/index.m3u8", Codecs: "avc1.64001f", Width: 1280, Height: 720, FrameRate: 30, Bitrate: 1, Peak: 2}}
	audio := &playlist.Audio{URI: "audio/index.m3u8", Codecs: "mp4a.40.2", Channels: 2, Bitrate: 3}
	got := string(playlist.WithQuery(playlist.Multivariant(variants, audio, nil, ""), "token=a"))
	if want := string(playlist.Multivariant(variants, audio, nil, "token=a")); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for in, want := range map[string]string{
		"": "", "x": "x?token=a", "x?y\r\n\n#z\n": "x?y&token=a\r\n\n#z\n", `#A:URI="b?c",D="e"`: `#A:URI="b?c&token=a",D="e"`, `#A:URI="b`: `#A:URI="b`,
	} {
		if got := string(playlist.WithQuery([]byte(in), "token=a")); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
