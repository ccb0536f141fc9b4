package playlist

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Skip is what a delta update may leave out (_HLS_skip).
type Skip uint8

// The values of _HLS_skip.
const (
	SkipNone Skip = iota
	SkipSegments
	SkipRanges // "v2": segments and date ranges
)

// Reload is the query of a playlist request (RFC 8216bis section 6.2.5).
type Reload struct {
	Blocking bool
	MSN      uint64
	Part     int // -1: the whole segment
	Skip     Skip
}

// maxPart bounds _HLS_part; no segment of ours has nearly as many.
const maxPart = 1000

var (
	errPartAlone = errors.New("_HLS_part without _HLS_msn")
	errTwice     = errors.New("an _HLS_ parameter is given twice")
)

// ParseReload reads the delivery directives of a query. Unknown parameters and an
// unknown _HLS_skip are ignored, as section 6.2.5 wants it.
func ParseReload(query string) (Reload, error) {
	r := Reload{Part: -1}
	skip, skips := Parameter(query, "_HLS_skip")
	msn, msns := Parameter(query, "_HLS_msn")
	part, parts := Parameter(query, "_HLS_part")
	if skips > 1 || msns > 1 || parts > 1 {
		return Reload{}, errTwice
	}
	switch skip {
	case "YES":
		r.Skip = SkipSegments
	case "v2":
		r.Skip = SkipRanges
	}
	if msns > 0 {
		n, err := strconv.ParseUint(msn, 10, 63)
		if err != nil {
			return Reload{}, fmt.Errorf("_HLS_msn is not a media sequence number")
		}
		r.Blocking, r.MSN = true, n
	}
	if parts > 0 {
		if !r.Blocking {
			return Reload{}, errPartAlone
		}
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil || n > maxPart {
			return Reload{}, fmt.Errorf("_HLS_part is not a part index up to %d", maxPart)
		}
		r.Part = int(n)
	}
	return r, nil
}

// Parameter is the first value that a query has for a name, and how many there are: what url.ParseQuery finds, without its map.
func Parameter(query, name string) (value string, n int) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		k, v, _ := strings.Cut(pair, "=")
		if pair == "" || strings.IndexByte(pair, ';') >= 0 {
			continue
		}
		if strings.ContainsAny(pair, "%+") {
			var bad, worse error
			k, bad = url.QueryUnescape(k)
			v, worse = url.QueryUnescape(v)
			if bad != nil || worse != nil {
				continue
			}
		}
		if k != name {
			continue
		}
		if n++; n == 1 {
			value = v
		}
	}
	return value, n
}

// Verdict is what to do with a request now.
type Verdict uint8

// The verdicts.
const (
	Ready  Verdict = iota // answer with this snapshot
	Wait                  // ask again with the next snapshot
	TooFar                // refuse: the client is ahead of anything that will come soon
)

// Form is the text that a reload asks for: all of it; without old segments (_HLS_skip=YES); without old date ranges too (v2). They
// are the same where nothing is old enough.
func (s *Snapshot) Form(k Skip) *Form { return s.forms[k] }
