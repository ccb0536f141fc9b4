package serve

import (
	"net/url"
	"strings"
)

// maxPath is longer than any path of ours.
const maxPath = 512

type hlsPath struct {
	room, stream string
	media        string // empty for the multivariant playlist
	file         string
}

// parsePath splits /v1/hls/{room}/{stream}[/{media}]/{file}.
func parsePath(path string) (hlsPath, bool) {
	if len(path) > maxPath {
		return hlsPath{}, false
	}
	rest, ok := strings.CutPrefix(path, Prefix)
	if !ok {
		return hlsPath{}, false
	}
	f := strings.Split(rest, "/")
	for _, s := range f {
		if s == "" || s == "." || s == ".." {
			return hlsPath{}, false
		}
	}
	switch {
	case len(f) == 3 && f[2] == indexName:
		return hlsPath{room: f[0], stream: f[1], file: f[2]}, true
	case len(f) == 4:
		return hlsPath{room: f[0], stream: f[1], media: f[2], file: f[3]}, true
	default:
		return hlsPath{}, false
	}
}

// escape makes a token fit into a URI inside a quoted attribute.
func escape(token string) string { return url.QueryEscape(token) }
