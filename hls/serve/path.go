package serve

import "strings"

// maxPath is longer than any path of ours.
const maxPath = 512

// Path is what a path below Prefix names.
type Path struct {
	Room, Stream string
	Media        string // empty for the multivariant playlist
	File         string
}

// ParsePath splits /v1/hls/{room}/{stream}[/{media}]/{file}.
func ParsePath(path string) (Path, bool) {
	if len(path) > maxPath {
		return Path{}, false
	}
	rest, ok := strings.CutPrefix(path, Prefix)
	if !ok {
		return Path{}, false
	}
	var f [4]string
	n := 0
	for s := range strings.SplitSeq(rest, "/") {
		if n == len(f) || s == "" || s == "." || s == ".." {
			return Path{}, false
		}
		f[n] = s
		n++
	}
	switch {
	case n == 3 && f[2] == IndexName:
		return Path{Room: f[0], Stream: f[1], File: f[2]}, true
	case n == 4:
		return Path{Room: f[0], Stream: f[1], Media: f[2], File: f[3]}, true
	default:
		return Path{}, false
	}
}
