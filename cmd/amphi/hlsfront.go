package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/hls/serve"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// relayedHeader marks a request that another node has passed on: it is answered here, whoever the owner is.
	relayedHeader = "Amphi-Relayed-By"
	// originPatience bounds the wait for the head of an origin's answer: a blocked reload waits for a part and a second.
	originPatience = 10 * time.Second
)

// hlsFront serves streams of rooms that other nodes own: it passes requests on to the owner's node, which composes. Paths
// mean the same at every node, so a player may ask any.
type hlsFront struct {
	self   string
	local  http.Handler
	owner  func(room string) (node, url string)
	remote http.Handler
}

// originKey carries the origin's URL from ServeHTTP to the proxy.
type originKey struct{}

func newHLSFront(self string, local http.Handler, owner func(string) (string, string), logger *slog.Logger) *hlsFront {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.ResponseHeaderTimeout, transport.Proxy = 64, originPatience, nil
	return &hlsFront{self: self, local: local, owner: owner, remote: &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(r.In.Context().Value(originKey{}).(*url.URL))
			r.Out.Header.Set(relayedHeader, self)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			logger.Debug("an origin does not answer", "err", err)
			// Players ask again; by then the room may have another owner.
			w.Header().Set("Retry-After", "1")
			plain(w, http.StatusServiceUnavailable, string(proto.Unavailable)+"\n")
		},
	}}
}

// ServeHTTP implements http.Handler.
func (h *hlsFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	room, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, serve.Prefix), "/")
	node, address := h.owner(room)
	origin, err := url.Parse(address)
	if node == "" || node == h.self || r.Header.Get(relayedHeader) != "" || err != nil || origin.Host == "" {
		h.local.ServeHTTP(w, r)
		return
	}
	h.remote.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), originKey{}, &url.URL{Scheme: origin.Scheme, Host: origin.Host})))
}

// originOf is the node that composes a room's streams, and its URL; empty where nobody owns the room.
func (m *mesh) originOf(room string) (node, url string) {
	if !proto.ValidRoomName(room) {
		return "", ""
	}
	// Read, not Owner: asking for a stream is no reason to give a room an owner.
	owner := ""
	m.cluster.Read(func(r *amphiv1.Registry) { owner = r.GetPlacements()[strings.ToLower(room)].GetNode() })
	for _, g := range m.members() {
		if owner != "" && g.id == owner {
			return g.id, g.url
		}
	}
	return "", ""
}
