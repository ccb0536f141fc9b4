package web

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
)

// What a binary that was built without Node says instead of a page.
const unbuiltPage = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Amphi</title>
<body><h1>Web app not built: run <code>make build</code></h1>
<p>This binary was compiled before the web app. The server itself works.</p></body></html>
`

func notBuilt(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write([]byte(unbuiltPage))
}

// checksum identifies a file's content in an ETag.
func checksum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}
