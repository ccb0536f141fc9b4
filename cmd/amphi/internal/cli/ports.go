package cli

import (
	"io"

	"github.com/spf13/cobra"
)

type port struct {
	Port     int    `json:"port"`
	Protocol string `json:"protocol"`
	For      string `json:"for"`
	Open     string `json:"open"`
}

// ports are the defaults; amphi dev puts its own relative to --http.
var ports = []port{
	{7880, "tcp", "HTTP and WebSocket, HTTPS when TLS is on", "clients"},
	{7881, "tcp", "media over ICE-TCP", "clients"},
	{7882, "udp", "WebRTC media", "clients"},
	{3478, "udp+tcp", "TURN", "clients"},
	{5349, "tcp", "TURN over TLS", "clients"},
	{1935, "tcp", "RTMP in, off by default", "encoders"},
	{7946, "udp+tcp", "gossip", "nodes"},
	{7947, "tcp", "cluster, mutual TLS: Raft, control", "nodes"},
	{7948, "udp", "trunks", "nodes"},
	{6789, "tcp", "metrics and pprof, loopback by default", "monitoring"},
}

func portsCommand() *cobra.Command {
	a := &app{}
	return a.flags(&cobra.Command{
		Use: "ports", Short: "List the ports that a firewall must let pass, and for whom", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.printValue(cmd, ports, func(w io.Writer) {
				row(w, "PORT", "PROTOCOL", "OPEN TO", "FOR")
				for _, p := range ports {
					row(w, p.Port, p.Protocol, p.Open, p.For)
				}
			})
		},
	})
}
