package playlist_test

import (
	"testing"

	"github.com/amphi-sfu/amphi/hls/playlist"
)

func TestWithQuery(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "x": "x?token=a", "x?y\r\n\n#z\n": "x?y&token=a\r\n\n#z\n", `#A:URI="b?c",D="e"`: `#A:URI="b?c&token=a",D="e"`, `#A:URI="b`: `#A:URI="b`,
	} {
		if got := string(playlist.WithQuery([]byte(in), "token=a")); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
