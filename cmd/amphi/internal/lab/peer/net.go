package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/media/netem/tun"
)

// Network is the network of a namespace, for peers in this process.
type Network struct {
	*stdnet.Net
	ns *tun.Namespace
}

// NewNetwork reads the devices of a namespace, which must stay open.
func NewNetwork(ns *tun.Namespace) (*Network, error) {
	n := &Network{ns: ns}
	err := ns.Do(func() (err error) {
		n.Net, err = stdnet.NewNet()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the devices of a namespace: %w", err)
	}
	return n, nil
}

// ListenUDP opens a socket in the namespace.
func (n *Network) ListenUDP(network string, local *net.UDPAddr) (conn transport.UDPConn, err error) {
	err = n.ns.Do(func() error {
		c, err := net.ListenUDP(network, local)
		if err == nil {
			conn = c
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a UDP socket in a namespace: %w", err)
	}
	return conn, nil
}

// dialTimeout is how long a node may take to accept a connection.
const dialTimeout = 2 * time.Second

// Dial makes a connection from the namespace.
func Dial(ns *tun.Namespace) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = ns.Do(func() error {
			conn, err = (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
}

// HTTPClient makes connections from the namespace, a new one for each request.
func HTTPClient(ns *tun.Namespace) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: Dial(ns)}}
}

// Certificate makes one for the media connections of any number of peers.
func Certificate() (*webrtc.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	cert, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return cert, nil
}
