package serve

import (
	"net/http"
	"strconv"
	"strings"
)

// Answer is a body that any number of clients may be given.
type Answer struct {
	ContentType string
	// Cache is the Cache-Control. Tag names the body among all that its URL ever had, without quotes; empty: it has no name.
	Cache, Tag string
	// Gzip: the body is compressed, and only for those who accept that.
	Gzip bool
	// Negotiated: other clients get the body in another encoding.
	Negotiated bool
	Chunks     [][]byte
}

// Give answers a GET or HEAD request with a: not modified if the client has it. It returns how many bytes of the body
// went out, and whether all did.
func (a Answer) Give(w http.ResponseWriter, r *http.Request) (sent int64, ok bool) {
	size := 0
	for _, c := range a.Chunks {
		size += len(c)
	}
	f := fields{header: w.Header(), values: make([]string, 0, 6)}
	f.set("Content-Type", a.ContentType)
	f.set("Cache-Control", a.Cache)
	if a.Negotiated {
		f.set("Vary", "Accept-Encoding")
	}
	if a.Tag != "" {
		tag := `"` + a.Tag + `"`
		if a.Gzip {
			tag = `"` + a.Tag + `-gzip"`
		}
		f.set("Etag", tag)
		if known := r.Header.Get("If-None-Match"); known != "" && matches(known, tag) {
			w.WriteHeader(http.StatusNotModified)
			return 0, true
		}
	}
	if a.Gzip {
		f.set("Content-Encoding", "gzip")
	}
	f.set("Content-Length", strconv.Itoa(size))
	if r.Method == http.MethodHead {
		return 0, true
	}
	for _, c := range a.Chunks {
		n, err := w.Write(c)
		sent += int64(n)
		if err != nil {
			return sent, false
		}
	}
	return sent, true
}

// fields sets header fields, whose names must be as http.Header keeps them, with one allocation for all.
type fields struct {
	header http.Header
	values []string
}

func (f *fields) set(name, value string) {
	f.values = append(f.values, value)
	n := len(f.values)
	f.header[name] = f.values[n-1 : n : n]
}

// matches reads If-None-Match, by the weak comparison of RFC 9110 section 8.8.3.2.
func matches(known, tag string) bool {
	for t := range strings.SplitSeq(known, ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == tag {
			return true
		}
	}
	return false
}

// AcceptsGzip reads Accept-Encoding as far as it matters: gzip named and not with q=0.
func AcceptsGzip(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept-Encoding") {
		for e := range strings.SplitSeq(v, ",") {
			name, param, _ := strings.Cut(e, ";")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") {
				q := strings.ReplaceAll(param, " ", "")
				return !strings.HasPrefix(q, "q=0") || strings.Trim(q[3:], ".0") != ""
			}
		}
	}
	return false
}
