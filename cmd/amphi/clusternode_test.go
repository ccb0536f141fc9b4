package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster/gossip"
	"github.com/amphi-sfu/amphi/cluster/identity"
)

// clusterFiles are what an operator prepares for the nodes of a cluster.
type clusterFiles struct {
	t   *testing.T
	dir string
	ca  *identity.Authority
}

func newClusterFiles(t *testing.T) *clusterFiles {
	ca, err := identity.New("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	f := &clusterFiles{t: t, dir: t.TempDir(), ca: ca}
	f.write("ca.pem", ca.CertPEM())
	f.write("gossip.key", []byte(gossip.NewKey()+"\n"))
	return f
}

func (f *clusterFiles) write(name string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// config writes a node's files and reads its configuration.
func (f *clusterFiles) config(id string, seeds ...string) serveConfig {
	f.t.Helper()
	cert, key, err := f.ca.Issue(id, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(id+".pem", cert)
	f.write(id+".key", key)
	f.write(id+".yaml", fmt.Appendf(nil, `node: %[1]s
region: eu-west
roles: [stage, voter]
data: %[1]s
http: "127.0.0.1:0"
url: http://127.0.0.1:7880
advertise: 127.0.0.1
cluster:
  name: live
  ca: ca.pem
  cert: %[1]s.pem
  key: %[1]s.key
  gossip_key_file: gossip.key
  gossip: "127.0.0.1:0"
  listen: "127.0.0.1:0"
  trunk: "127.0.0.1:0"
  seeds: [%[2]s]
`, id, strings.Join(seeds, ", ")))
	cfg, err := loadServeConfig(filepath.Join(f.dir, id+".yaml"))
	if err != nil {
		f.t.Fatal(err)
	}
	return cfg
}

func (f *clusterFiles) start(cfg serveConfig) *clusterNode {
	f.t.Helper()
	c, err := newClusterNode(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := c.openGossip(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7948}); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
	return c
}

func TestNodesKnowAndReachEachOtherByTheirFiles(t *testing.T) {
	t.Parallel()
	f := newClusterFiles(t)
	a := f.start(f.config("ams-1"))
	b := f.start(f.config("fra-1", fmt.Sprintf("%q", a.gossip.Addr())))
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !a.link.Connected("fra-1") || !b.link.Connected("ams-1") {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("no link: %+v, %+v", a.gossip.Members(), a.link.Stats())
		}
	}
	if all := a.members(); len(all) != 2 || all[1].id != "fra-1" || all[1].region != "eu-west" || !all[1].has(roleStage) || !all[1].alive {
		t.Errorf("%+v", all)
	}
	if peers := b.trunkPeers(); peers["ams-1"].String() != "127.0.0.1:7948" || len(peers) != 1 {
		t.Errorf("%v", peers)
	}
}

func TestANodeWithAnothersCertificateDoesNotStart(t *testing.T) {
	t.Parallel()
	f := newClusterFiles(t)
	cfg := f.config("ams-1")
	other := f.config("fra-1")
	cfg.Cluster.Cert, cfg.Cluster.Key = other.Cluster.Cert, other.Cluster.Key
	if _, err := newClusterNode(cfg, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), `names "fra-1", this node is "ams-1"`) {
		t.Errorf("%v", err)
	}
}

func TestTheSitesCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	f := newClusterFiles(t)
	write := func(id string) {
		cert, key, err := f.ca.Issue(id, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.write("site.pem", cert)
		f.write("site.key", key)
	}
	cert, key := filepath.Join(f.dir, "site.pem"), filepath.Join(f.dir, "site.key")
	if _, err := siteTLS(cert, key, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("missing files were taken")
	}
	write("one")
	s := &site{cert: cert, key: key, log: slog.New(slog.DiscardHandler)}
	name := func() string {
		s.checked = time.Time{}
		return s.current().Leaf.Subject.CommonName
	}
	if got := name(); got != "one" {
		t.Errorf("the certificate of %q", got)
	}
	write("two")
	future := time.Now().Add(time.Hour)
	if err := os.Chtimes(cert, future, future); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "two" {
		t.Errorf("after a change the certificate of %q", got)
	}
	f.write("site.pem", []byte("damaged"))
	if got := name(); got != "two" {
		t.Errorf("after damage the certificate of %q", got)
	}
}
