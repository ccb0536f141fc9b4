package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func built() fstest.MapFS {
	return fstest.MapFS{
		"app.html":                {Data: []byte("<title>app</title>")},
		"app.html.gz":             {Data: []byte("gzipped")},
		"app.html.br":             {Data: []byte("brotlied")},
		"ops.html":                {Data: []byte("<title>ops</title>")},
		"index.html":              {Data: []byte("<title>start</title>")},
		"sdk/amphi.js":            {Data: []byte("export {}")},
		"sdk/amphi-0123456789.js": {Data: []byte("export {}")},
		"sdk/amphi.d.ts":          {Data: []byte("export {}")},
		"sdk/amphi-e2ee.js":       {Data: []byte("export {}")},
		"assets/app-AAAA.css":     {Data: []byte("body{}")},
		".gitignore":              {Data: []byte("*")},
	}
}

func get(t *testing.T, h http.Handler, target string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestPathsAndCaching(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, contentType, cache string
		status                   int
	}{
		{"/", "text/html", revalidate, 200},
		{"/m/abc-defg-hij", "text/html", revalidate, 200},
		{"/embed/abc-defg-hij", "text/html", revalidate, 200},
		{"/ops", "text/html", revalidate, 200},
		{"/sdk/amphi.js", "text/javascript", revalidate, 200},
		{"/sdk/amphi.d.ts", "text/plain", revalidate, 200},
		{"/sdk/amphi-e2ee.js", "text/javascript", revalidate, 200},
		{"/sdk/amphi-0123456789.js", "text/javascript", immutable, 200},
		{"/assets/app-AAAA.css", "text/css", immutable, 200},
		{"/assets/missing.css", "text/plain", "", 404},
		{"/m/", "text/plain", "", 404},
		{"/.gitignore", "text/plain", "", 404},
		{"/assets/..%2fapp.html", "text/plain", "", 404},
	} {
		res := get(t, handler(built()), c.path)
		if res.StatusCode != c.status || !strings.HasPrefix(res.Header.Get("Content-Type"), c.contentType) {
			t.Errorf("%s: %d %q, want %d %q", c.path, res.StatusCode, res.Header.Get("Content-Type"), c.status, c.contentType)
		}
		if got := res.Header.Get("Cache-Control"); c.status == 200 && got != c.cache {
			t.Errorf("%s: Cache-Control %q, want %q", c.path, got, c.cache)
		}
	}
}

func TestOnlyEmbedMayBeFramed(t *testing.T) {
	t.Parallel()
	h := handler(built())
	for path, want := range map[string]string{"/": "'none'", "/m/x": "'none'", "/ops": "'none'", "/embed/x": "*"} {
		res := get(t, h, path)
		csp := res.Header.Get("Content-Security-Policy")
		if !strings.HasSuffix(csp, "frame-ancestors "+want) {
			t.Errorf("%s: %q does not end in frame-ancestors %s", path, csp, want)
		}
		if denied := res.Header.Get("X-Frame-Options") == "DENY"; denied != (want == "'none'") {
			t.Errorf("%s: X-Frame-Options %q", path, res.Header.Get("X-Frame-Options"))
		}
	}
}

func TestCompressionAndValidation(t *testing.T) {
	t.Parallel()
	h := handler(built())
	for accept, want := range map[string]string{
		"": "", "gzip": "gzip", "gzip, deflate, br": "br", "br;q=0, gzip;q=0.5": "gzip", "identity": "", "BR": "br", "gzip;q=x": "",
	} {
		if got := get(t, h, "/m/x", "Accept-Encoding", accept).Header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: %q, want %q", accept, got, want)
		}
	}
	tag := get(t, h, "/m/x").Header.Get("ETag")
	if res := get(t, h, "/m/x", "If-None-Match", tag); tag == "" || res.StatusCode != http.StatusNotModified {
		t.Errorf("ETag %q answered with %d", tag, res.StatusCode)
	}
}

func TestOtherOriginsMayImportTheSDK(t *testing.T) {
	t.Parallel()
	if got := get(t, handler(built()), "/sdk/amphi.js").Header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("Access-Control-Allow-Origin %q", got)
	}
}

func TestWithoutTheWebBuild(t *testing.T) {
	t.Parallel()
	res := get(t, handler(fstest.MapFS{".gitignore": {Data: []byte("*")}}), "/m/x")
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d", res.StatusCode)
	}
	if Handler() == nil {
		t.Error("no handler from the embedded files")
	}
}

func FuzzAccepts(f *testing.F) {
	for _, seed := range []string{"", "br", "gzip;q=0.5, br;q=1", ";;;,,,", "br;q=", "*;q=0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if accepts(header, "br") && !strings.Contains(strings.ToLower(header), "br") {
			t.Errorf("%q takes br", header)
		}
	})
}
