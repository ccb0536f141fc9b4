package storage

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Gate makes links to objects that this node serves, and serves them: {base}/{expires}-{signature}/{key}. The signature of a playlist's link
// covers the directory that it is in, so that what it lists is found beside it; any other covers one object.
type Gate struct {
	base   string
	secret []byte
	now    func() time.Time
}

// NewGate makes a Gate whose links begin with base, a URL or a path without a slash at its end. secret is at least 16 bytes; nodes
// with the same one honour each other's links. now may be nil.
func NewGate(base string, secret []byte, now func() time.Time) (*Gate, error) {
	if len(secret) < 16 {
		return nil, fmt.Errorf("gate with a secret of %d bytes", len(secret))
	}
	if now == nil {
		now = time.Now
	}
	return &Gate{base: strings.TrimSuffix(base, "/"), secret: append([]byte(nil), secret...), now: now}, nil
}

// maxTTL of links.
const maxTTL = 7 * 24 * time.Hour

// Link is a link to an object that works until ttl has passed, at most a week.
func (g *Gate) Link(key string, ttl time.Duration) string {
	expires := g.now().Add(min(ttl, maxTTL)).Unix()
	return fmt.Sprintf("%s/%d-%s/%s", g.base, expires, g.sign(scope(key), expires), escape(key))
}

func escape(key string) string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

func isPlaylist(key string) bool { return strings.HasSuffix(key, ".m3u8") }

// scope is what a link's signature covers.
func scope(key string) string {
	if isPlaylist(key) {
		return path.Dir(key) + "/"
	}
	return key
}

func (g *Gate) sign(scope string, expires int64) string {
	mac := hmac.New(sha256.New, g.secret)
	fmt.Fprintf(mac, "amphi storage link\n%d\n%s", expires, scope)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

// Errors of links.
var (
	errExpired = errors.New("link has expired")
	errForged  = errors.New("link is not ours")
)

// check finds the key that a path behind base names, and until when. Directory links lead to playlists and to the files that playlists list.
func (g *Gate) check(p string) (key string, expires time.Time, err error) {
	pass, key, ok := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	number, signature, dash := strings.Cut(pass, "-")
	unix, err := strconv.ParseInt(number, 10, 64)
	if !ok || !dash || err != nil || CheckKey(key) != nil {
		return "", time.Time{}, errForged
	}
	valid := hmac.Equal([]byte(signature), []byte(g.sign(key, unix)))
	if isPlaylist(key) || path.Ext(key) == ".mp4" {
		valid = valid || hmac.Equal([]byte(signature), []byte(g.sign(path.Dir(key)+"/", unix)))
	}
	if !valid {
		return "", time.Time{}, errForged
	}
	expires = time.Unix(unix, 0)
	if !g.now().Before(expires) {
		return "", time.Time{}, errExpired
	}
	return key, expires, nil
}

// Handler serves the objects of a store to those who have a link. Mount it with base's path stripped. Of a store that has links of its own, playlists are
// served here, and everything else is sent there.
func (g *Gate) Handler(log *slog.Logger, store Store) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
			return
		}
		key, expires, err := g.check(r.URL.Path)
		switch {
		case errors.Is(err, errExpired):
			http.Error(w, err.Error(), http.StatusGone)
			return
		case err != nil:
			http.Error(w, "no such object", http.StatusNotFound)
			return
		}
		left := expires.Sub(g.now())
		_, local := store.(*Disk)
		if !local && !isPlaylist(key) {
			g.send(w, r, log, store, key, left)
			return
		}
		g.serve(w, r, log, store, key, left)
	})
}

// send sends the client to the store's own link.
func (g *Gate) send(w http.ResponseWriter, r *http.Request, log *slog.Logger, store Store, key string, left time.Duration) {
	link, err := store.URL(r.Context(), key, left)
	if err != nil {
		fail(w, log, key, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, link, http.StatusFound)
}

// maxPlaylist is the largest playlist that is served from a store, in bytes.
const maxPlaylist = 16 << 20

func (g *Gate) serve(w http.ResponseWriter, r *http.Request, log *slog.Logger, store Store, key string, left time.Duration) {
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	body, err := store.Open(ctx, key)
	if err != nil {
		fail(w, log, key, err)
		return
	}
	defer body.Close()
	w.Header().Set("Content-Type", contentType(key))
	w.Header().Set("Cache-Control", fmt.Sprintf("private, max-age=%d", int(left.Seconds())))
	if file, ok := body.(io.ReadSeeker); ok {
		http.ServeContent(w, r, "", time.Time{}, file)
		return
	}
	if _, err := io.Copy(w, io.LimitReader(body, maxPlaylist)); err != nil {
		log.Debug("serving an object", "key", key, "err", err)
	}
}

func fail(w http.ResponseWriter, log *slog.Logger, key string, err error) {
	if errors.Is(err, ErrNotFound) {
		http.Error(w, "no such object", http.StatusNotFound)
		return
	}
	log.Warn("serving an object", "key", key, "err", err)
	http.Error(w, "the storage does not answer", http.StatusBadGateway)
}

func contentType(key string) string {
	switch path.Ext(key) {
	case ".mp4":
		return "video/mp4"
	case ".m3u8":
		return "application/vnd.apple.mpegurl"
	case ".webm":
		return "video/webm"
	case ".jpg":
		return "image/jpeg"
	default:
		return "application/octet-stream"
	}
}
