package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cluster/link"
	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/hls/edge"
)

const (
	// originStreams is how many requests another node may have under way here at once.
	originStreams = 4096
	// originPing is after what silence a connection between nodes is tried, and how long the answer may take.
	originPing = time.Second
)

// originServer answers other nodes what they serve of the streams that are made here: HTTP/2 on connections of the
// cluster's port, over which only nodes come.
type originServer struct {
	server *http.Server
	conns  chan net.Conn
	addr   net.Addr
	once   sync.Once
	closed chan struct{}
}

func newOriginServer(addr net.Addr, upstream http.Handler, logger *slog.Logger) *originServer {
	o := &originServer{conns: make(chan net.Conn), addr: addr, closed: make(chan struct{})}
	o.server = &http.Server{
		Handler: upstream, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeaderBytes, Protocols: onlyHTTP2(),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: originStreams, SendPingTimeout: originPing, PingTimeout: originPing},
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	return o
}

// onlyHTTP2 is without TLS of HTTP's own: the connections have it.
func onlyHTTP2() *http.Protocols {
	p := &http.Protocols{}
	p.SetUnencryptedHTTP2(true)
	return p
}

// secured is a connection whose TLS is not HTTP's business.
type secured struct{ net.Conn }

// take is a link's handler of streams' connections.
func (o *originServer) take(_ string, conn *tls.Conn) {
	select {
	case o.conns <- secured{conn}:
	case <-o.closed:
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (o *originServer) Accept() (net.Conn, error) {
	select {
	case conn := <-o.conns:
		return conn, nil
	case <-o.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (o *originServer) Close() error {
	o.once.Do(func() { close(o.closed) })
	return nil
}

// Addr implements net.Listener.
func (o *originServer) Addr() net.Addr { return o.addr }

// run serves until ctx ends.
func (o *originServer) run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- o.server.Serve(o) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving streams to other nodes: %w", err)
	case <-ctx.Done():
	}
	_ = o.server.Close() // who is served finds the stream elsewhere, or ended
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving streams to other nodes: %w", err)
	}
	return nil
}

// serveStreams makes what serves players at this node the streams of all, and other nodes those of this one.
func (m *mesh) serveStreams(origin *hls.Origin) error {
	m.origins = newOriginServer(m.link.Addr(), origin.Upstream(), m.log)
	m.link.Handle(link.StreamProtocol, m.origins.take)
	var err error
	m.edge, err = edge.New(edge.Config{Logger: m.log, Authorizer: authorizer{m.node}, Transport: &http.Transport{
		Protocols: onlyHTTP2(), HTTP2: &http.HTTP2Config{SendPingTimeout: originPing, PingTimeout: originPing},
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			node, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			conn, err := m.link.Dial(ctx, node, link.StreamProtocol)
			if err != nil {
				return nil, err
			}
			return secured{conn}, nil
		},
	}}, origin.Handler(), m)
	return err
}

// authorizer asks the node's signalling who may play, which is made after what serves.
type authorizer struct{ node *Node }

// AuthorizePlayback implements serve.Authorizer.
func (a authorizer) AuthorizePlayback(r *http.Request, room, stream, token string) (bool, error) {
	return a.node.signal.AuthorizePlayback(r, room, stream, token)
}

// Origin implements edge.Origins.
func (m *mesh) Origin(room, stream string) (edge.Origin, bool) {
	o := m.streamOrigin(room, stream)
	if o.GetNode() == "" {
		return edge.Origin{}, false
	}
	id := append(make([]byte, 0, 64), o.GetNode()...) // for every request of a player
	id = strconv.AppendUint(append(id, '/'), o.GetEpoch(), 10)
	id = strconv.AppendUint(append(id, '/'), o.GetProgramEpoch(), 10)
	return edge.Origin{ID: string(id), URL: "http://" + o.GetNode(),
		Local: o.GetNode() == m.self.GetId()}, true
}
