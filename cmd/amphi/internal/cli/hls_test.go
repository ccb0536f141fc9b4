package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestHLSCheck(t *testing.T) {
	t.Parallel()
	const (
		multi = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000,CODECS=\"avc1.42\",RESOLUTION=2x2,FRAME-RATE=30\n%s.m3u8\n"
		media = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:%d\n#EXT-X-MAP:URI=\"i\"\n#EXTINF:2.0,\na.m4s\n#EXT-X-ENDLIST\n"
	)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good.m3u8":
			fmt.Fprintf(w, multi, "2")
		case "/bad.m3u8":
			fmt.Fprintf(w, multi, "1")
		case "/1.m3u8", "/2.m3u8":
			fmt.Fprintf(w, media, r.URL.Path[1]-'0')
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{srv.URL + "/good.m3u8", "--playlists"}, 0, "2 playlists and 0 objects (0 kB) looked at, 0 faults"},
		{[]string{srv.URL + "/bad.m3u8", "--playlists"}, exitFailed, "§ 4.4.3.1  target-duration  1.m3u8  segment 0 of 2s is longer than 1 s"},
		{[]string{srv.URL + "/bad.m3u8", "--playlists", "--json"}, exitFailed, `"section": "4.4.3.1"`},
		{[]string{srv.URL + "/good.m3u8"}, exitFailed, "a.m4s: status 404"},
		{[]string{srv.URL + "/none.m3u8"}, exitUnreachable, ""},
		{[]string{"main"}, exitUsage, ""},
	} {
		root := &cobra.Command{Use: "amphi", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(Commands()...)
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(append([]string{"hls", "check"}, c.args...))
		err := root.Execute()
		if got := ExitCode(err); got != c.status || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: exit %d, %v\n%s", c.args, got, errors.Join(err), &out)
		}
	}
}
