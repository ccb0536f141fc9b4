package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/amphi-sfu/amphi/media/turn"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// The usual ports of TURN (RFC 8656, RFC 7065).
const (
	defaultTURNPort    = 3478
	defaultTURNTLSPort = 5349
	// relayTries is how often TURN looks for free ports.
	relayTries = 10
)

// turnAddr is the address with this port on the host of the HTTP address; empty for port 0.
func turnAddr(httpAddr string, port uint16) (string, error) {
	host, _, err := net.SplitHostPort(httpAddr)
	if err != nil {
		return "", fmt.Errorf("%q is not HOST:PORT: %w", httpAddr, err)
	}
	if port == 0 {
		return "", nil
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port))), nil
}

// newRelay opens TURN, on other ports than the wished ones where these are taken. It is nil when TURN is off.
func (n *Node) newRelay() (*turn.Server, error) {
	if n.cfg.TURNAddr == "" {
		return nil, nil
	}
	peers, err := n.media.Addresses()
	if err != nil {
		return nil, err
	}
	config := turn.Config{Logger: n.log, Addr: n.cfg.TURNAddr, Media: n.media.UDPAddr(), Peers: peers}
	if n.tls != nil {
		config.TLSAddr, config.TLS = n.cfg.TURNTLSAddr, n.tls
	}
	server, err := turn.New(config)
	if err == nil {
		return server, nil
	}
	var again error
	for _, address := range []*string{&config.Addr, &config.TLSAddr} {
		if host, _, split := net.SplitHostPort(*address); split == nil {
			*address = net.JoinHostPort(host, "0")
		}
	}
	// The port that UDP is given may be taken for TCP, on a machine with many connections.
	for range relayTries {
		if server, again = turn.New(config); again == nil {
			break
		}
	}
	if again != nil {
		return nil, errors.Join(err, again)
	}
	n.log.Warn("TURN has other ports than usual, which firewalls may not let pass", "err", err,
		"port", server.Port(), "tls_port", server.TLSPort())
	return server, nil
}

// iceServers are what a peer is told that reached this node as host: TURN there, or at the address that the node was
// told to have. TLS is for the name that the certificate is for.
func (n *Node) iceServers(peerID, host string) []*amphiv1.IceServer {
	if n.relay == nil {
		return nil
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	secure := host
	if len(n.cfg.PublicIPs) > 0 {
		host = n.cfg.PublicIPs[0].String()
	}
	username, password := n.relay.Credentials(peerID, time.Now())
	server := &amphiv1.IceServer{Username: username, Credential: password}
	if host, ok := urlHost(host); ok {
		for _, transport := range []string{"udp", "tcp"} {
			server.Urls = append(server.Urls, fmt.Sprintf("turn:%s:%d?transport=%s", host, n.relay.Port(), transport))
		}
	}
	if host, ok := urlHost(secure); ok && n.relay.TLSPort() != 0 {
		server.Urls = append(server.Urls, fmt.Sprintf("turns:%s:%d?transport=tcp", host, n.relay.TLSPort()))
	}
	if len(server.GetUrls()) == 0 {
		return nil
	}
	return []*amphiv1.IceServer{server}
}

// urlHost is a host as TURN's URLs have it (RFC 7065). What isn't an address or a plain name is none.
func urlHost(host string) (string, bool) {
	bare := host
	if len(bare) > 2 && bare[0] == '[' && bare[len(bare)-1] == ']' {
		bare = bare[1 : len(bare)-1]
	}
	if ip, err := netip.ParseAddr(bare); err == nil {
		if ip.Is6() {
			return "[" + ip.WithZone("").String() + "]", true
		}
		return bare, true
	}
	if host == "" || len(host) > 253 {
		return "", false
	}
	for _, c := range []byte(host) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return "", false
		}
	}
	return host, true
}
