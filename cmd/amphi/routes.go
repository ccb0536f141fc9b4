package main

import (
	"io"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/amphi-sfu/amphi/hls/serve"
	"github.com/amphi-sfu/amphi/signal/web"
)

// listen opens the node's HTTP sockets.
func (n *Node) listen() error {
	var err error
	if n.front, err = newFront(n.cfg.HTTPAddr, n.tls, n.routes(), n.log); err != nil {
		return err
	}
	if n.cfg.MetricsAddr == "" {
		return nil
	}
	if n.metrics, err = newFront(n.cfg.MetricsAddr, nil, n.metricsRoutes(), n.log); err != nil {
		// A second platform on this machine is no reason not to start.
		n.log.Warn("no metrics from this process", "err", err)
		n.metrics = nil
	}
	return nil
}

func (n *Node) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "alive\n") })
	mux.HandleFunc("GET /readyz", n.ready)
	signalling := n.signal.Handler()
	mux.Handle("/v1/", signalling)
	streams := n.origin.Handler()
	if n.mesh != nil {
		streams = n.mesh.edge
	}
	mux.Handle(assetsPath+"/", n.recordings.Handler())
	pages := web.Handler()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		// The management API's paths begin with the service's package, which a ServeMux cannot match as a prefix.
		if len(r.URL.Path) > len(managementPrefix) && r.URL.Path[:len(managementPrefix)] == managementPrefix {
			signalling.ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, serve.Prefix) { // nearly all requests there are, and none that a ServeMux would redirect
			streams.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

const managementPrefix = "/amphi.v1."

// ready answers 200 while new clients are welcome.
func (n *Node) ready(w http.ResponseWriter, _ *http.Request) {
	switch {
	case !n.serving.Load():
		plain(w, http.StatusServiceUnavailable, "starting or stopping\n")
		return
	case n.mesh != nil && !n.mesh.cluster.Ready():
		plain(w, http.StatusServiceUnavailable, "the cluster has no leader, or this node no lease\n")
		return
	case n.mesh != nil && n.mesh.drain.status() != nil:
		plain(w, http.StatusServiceUnavailable, "draining\n")
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

func (n *Node) metricsRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.collectors(), promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
