package lab

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// keyID is the API key of a lab; its secret is made anew for each.
const keyID = "lab"

// Ports of a node in the lab: each has an address of its own, so all have the same.
const (
	gossipPort = 7946
	linkPort   = 7947
	trunkPort  = 7948
)

// credentials make a certificate authority, a certificate for each node and the gossip key, with the
// commands that an operator uses.
func (l *Lab) credentials(ctx context.Context) error {
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, l.cfg.Program, args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("amphi %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	ca := filepath.Join(l.cfg.Dir, "ca")
	if err := run("ca", "init", "--out", ca); err != nil {
		return err
	}
	for _, n := range l.cfg.Topology.Nodes {
		if err := run("ca", "issue", "--ca", ca, "--node", n.ID, "--out", filepath.Join(l.cfg.Dir, n.ID)); err != nil {
			return err
		}
	}
	key := make([]byte, 32)
	rand.Read(key)
	line := base64.StdEncoding.EncodeToString(key) + "\n"
	return os.WriteFile(filepath.Join(l.cfg.Dir, "gossip.key"), []byte(line), 0o600)
}

// configure writes a node's configuration and sets how its program is called.
func (l *Lab) configure(p *process, addr string) error {
	if l.cfg.Topology.Alone {
		p.args = []string{
			"dev", "--http", fmt.Sprintf("%s:%d", addr, httpPort), "--data", p.data(), "--region", p.Region, "--public-ip", addr,
			"--metrics", "", "--turn-port", "0", "--turn-tls-port", "0",
		}
		return nil
	}
	name := filepath.Join(p.dir, "node.yaml")
	p.args = []string{"serve", "--config", name}
	return os.WriteFile(name, []byte(l.configuration(p, addr)), 0o600)
}

func (l *Lab) configuration(p *process, addr string) string {
	var seeds []string
	voters := 0
	for i, n := range l.cfg.Topology.Nodes {
		if contains(n.Roles, "voter") {
			voters++
		}
		if n.ID != p.ID {
			seeds = append(seeds, fmt.Sprintf("%q", fmt.Sprintf("%s:%d", l.net.hosts[i].addr, gossipPort)))
		}
	}
	if !contains(p.Roles, "voter") {
		voters = 0
	}
	const most = 5
	seeds = seeds[:min(most, len(seeds))]
	return fmt.Sprintf(`node: %s
region: %s
zone: %s
roles: [%s]
data: data
http: "%s:%d"
url: "%s"
advertise: %s
public_ips: [%s]
metrics: "127.0.0.1:6789"
media: {udp: "%s:7882", tcp: "%s:7881"}
turn: {port: 0, tls_port: 0}
drain: 30s
cluster:
  name: lab
  ca: ../ca/ca.pem
  cert: %s.pem
  key: %s.key
  gossip_key_file: ../gossip.key
  gossip: "%s:%d"
  listen: "%s:%d"
  trunk: "%s:%d"
  seeds: [%s]
  bootstrap_expect: %d
keys:
  - {id: %s, secret: %s}
`, p.ID, p.Region, p.Zone, strings.Join(p.Roles, ", "), addr, httpPort, p.url, addr, addr, addr, addr, p.ID, p.ID,
		addr, gossipPort, addr, linkPort, addr, trunkPort, strings.Join(seeds, ", "), voters, keyID, l.secret)
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// checkProgram tells early what the program lacks.
func (l *Lab) checkProgram(ctx context.Context) error {
	if l.cfg.Topology.Alone {
		return nil
	}
	out, err := exec.CommandContext(ctx, l.cfg.Program, "serve", "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--config") {
		return errors.Join(fmt.Errorf("%s has no command serve; topology solo needs none", l.cfg.Program), err)
	}
	return nil
}
