// Package web serves the browser's side of Amphi: the SDK, the prebuilt app and the ops dashboard, built into the binary.
package web

import (
	"embed"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// dist is what `npm run build` made. In a fresh checkout it holds only its .gitignore, so that Go builds without Node.
//
//go:embed all:dist
var dist embed.FS

// Headers of pages. Scripts and styles come from this origin only; the player needs blobs for its media and its worker.
const (
	policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; " +
		"connect-src 'self' ws: wss: https:; media-src 'self' blob: mediastream: https:; worker-src 'self' blob:; " +
		"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
	features = "camera=(self), microphone=(self), display-capture=(self), autoplay=(self), fullscreen=(self), speaker-selection=(self), geolocation=()"
)

// Cache-Control of files whose name holds a hash of their content, and of all others.
const (
	immutable  = "public, max-age=31536000, immutable"
	revalidate = "no-cache"
)

// Handler serves
//
//	/                       a small start page
//	/m/{code}               the app
//	/embed/{code}           the app for iframes, the only page that other sites may frame
//	/ops                    the ops dashboard
//	/sdk/amphi.js, .d.ts    the SDK and its types, for any origin; amphi-e2ee likewise, end-to-end encryption
//	/sdk/, /assets/         hashed files, kept by browsers for good
//
// and 404 for everything else. It may be used by any number of goroutines.
func Handler() http.Handler {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the name is constant
	}
	return handler(files)
}

func handler(files fs.FS) http.Handler {
	s := &server{files: files}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page("index.html", "'none'"))
	mux.HandleFunc("GET /m/{code}", s.page("app.html", "'none'"))
	mux.HandleFunc("GET /embed/{code}", s.page("app.html", "*"))
	mux.HandleFunc("GET /ops", s.page("ops.html", "'none'"))
	mux.HandleFunc("GET /sdk/{name}", s.script)
	mux.HandleFunc("GET /assets/{name}", s.asset)
	mux.HandleFunc("GET /icon.svg", s.icon)
	return mux
}

type server struct {
	files fs.FS
}

// page serves one HTML page that the given ancestors may frame.
func (s *server) page(name, ancestors string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy+ancestors)
		h.Set("Permissions-Policy", features)
		// An embedded room tells its parent's origin from the referrer that it receives; it sends none onwards.
		h.Set("Referrer-Policy", "no-referrer")
		if ancestors == "'none'" {
			h.Set("X-Frame-Options", "DENY")
		}
		if !s.serve(w, r, name, revalidate) {
			notBuilt(w)
		}
	}
}

// script serves the SDK, which pages of other origins may import.
func (s *server) script(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	cache := immutable
	switch name {
	case "amphi.js", "amphi.d.ts", "amphi-e2ee.js", "amphi-e2ee.d.ts":
		cache = revalidate
	}
	if !s.serve(w, r, "sdk/"+name, cache) {
		http.NotFound(w, r)
	}
}

func (s *server) asset(w http.ResponseWriter, r *http.Request) {
	if !s.serve(w, r, "assets/"+r.PathValue("name"), immutable) {
		http.NotFound(w, r)
	}
}

func (s *server) icon(w http.ResponseWriter, r *http.Request) {
	if !s.serve(w, r, "icon.svg", revalidate) {
		http.NotFound(w, r)
	}
}

// serve answers with a file, compressed where the client takes it; false when there is no such file.
func (s *server) serve(w http.ResponseWriter, r *http.Request, name, cache string) bool {
	if !fs.ValidPath(name) {
		return false
	}
	raw, err := fs.ReadFile(s.files, name)
	if err != nil {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", contentType(name))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", cache)
	h.Add("Vary", "Accept-Encoding")
	tag := `"` + checksum(raw) + `"`
	h.Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	body := raw
	for _, encoding := range []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}} {
		if !accepts(r.Header.Get("Accept-Encoding"), encoding.name) {
			continue
		}
		if packed, err := fs.ReadFile(s.files, name+encoding.suffix); err == nil {
			h.Set("Content-Encoding", encoding.name)
			body = packed
			break
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client is gone, or it has it
	}
	return true
}

// accepts tells whether an Accept-Encoding header takes an encoding (RFC 9110 section 12.5.3).
func accepts(header, encoding string) bool {
	for _, item := range strings.Split(header, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(item), ";")
		if !strings.EqualFold(strings.TrimSpace(name), encoding) {
			continue
		}
		weight, found := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if !found {
			return true
		}
		q, err := strconv.ParseFloat(weight, 64)
		return err == nil && q > 0
	}
	return false
}

func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".ts":
		return "text/plain; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".html":
		return "text/html; charset=utf-8"
	}
	if known := mime.TypeByExtension(path.Ext(name)); known != "" {
		return known
	}
	return "application/octet-stream"
}
