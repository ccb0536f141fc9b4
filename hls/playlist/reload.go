package playlist

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
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
func ParseReload(q url.Values) (Reload, error) {
	r := Reload{Part: -1}
	for _, k := range []string{"_HLS_msn", "_HLS_part", "_HLS_skip"} {
		if len(q[k]) > 1 {
			return Reload{}, errTwice
		}
	}
	switch q.Get("_HLS_skip") {
	case "YES":
		r.Skip = SkipSegments
	case "v2":
		r.Skip = SkipRanges
	}
	if q.Has("_HLS_msn") {
		n, err := strconv.ParseUint(q.Get("_HLS_msn"), 10, 63)
		if err != nil {
			return Reload{}, fmt.Errorf("_HLS_msn is not a media sequence number")
		}
		r.Blocking, r.MSN = true, n
	}
	if q.Has("_HLS_part") {
		if !r.Blocking {
			return Reload{}, errPartAlone
		}
		n, err := strconv.ParseUint(q.Get("_HLS_part"), 10, 31)
		if err != nil || n > maxPart {
			return Reload{}, fmt.Errorf("_HLS_part is not a part index up to %d", maxPart)
		}
		r.Part = int(n)
	}
	return r, nil
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
