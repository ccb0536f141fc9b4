package main

import (
	"fmt"
	"net"
	"strconv"
)

// Offsets of the other ports from the HTTP port, so that a second platform on one machine
// only needs another --http: 7880 HTTP, 7881 ICE-TCP, 7882 WebRTC media.
const (
	iceTCPOffset = 1
	mediaOffset  = 2
)

// beside is the address on the same host whose port lies offset above that of address; port
// 0 stays 0 (any free port), and a host name stays what it is.
func beside(address string, offset int) (string, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%q is not HOST:PORT: %w", address, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%q has no port number: %w", address, err)
	}
	if port == 0 {
		return net.JoinHostPort(host, "0"), nil
	}
	if int(port)+offset > 65535 {
		return "", fmt.Errorf("no port %d above %q", offset, address)
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)+offset)), nil
}
