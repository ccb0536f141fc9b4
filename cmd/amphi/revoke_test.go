package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/cluster/link"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

// onDisk are a node's certificate and key in files, which can be replaced.
type onDisk struct {
	t     *testing.T
	dir   string
	node  string
	files identity.Files
}

func newOnDisk(t *testing.T, authority *identity.Authority, node string) *onDisk {
	t.Helper()
	dir := t.TempDir()
	d := &onDisk{t: t, dir: dir, node: node, files: identity.Files{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "node.pem"), Key: filepath.Join(dir, "node.key")}}
	d.write(d.files.CA, authority.CertPEM())
	d.issue(authority)
	return d
}

func (d *onDisk) write(name string, data []byte) {
	d.t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *onDisk) issue(authority *identity.Authority) {
	d.t.Helper()
	cert, key, err := authority.Issue(d.node, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(d.files.Key, key)
	d.write(d.files.Cert, cert)
}

// A node whose key was stolen is revoked: the others are rid of it at once, and go on; with a new certificate it comes back.
func TestARevokedNodeIsOutUntilItHasANewCertificate(t *testing.T) {
	t.Parallel()
	var disk *onDisk
	authority, err := identity.New("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	data := map[string]string{"n1": t.TempDir(), "n2": t.TempDir(), "n3": t.TempDir()}
	disk = newOnDisk(t, authority, "n3")
	c := startClusterWith(t, 3, func(cfg *Config) {
		cfg.Data = data[cfg.ID]
		who, err := authority.Identity(cfg.ID)
		if cfg.ID == "n3" {
			who, err = identity.Load(identity.Config{Node: "n3", Files: disk.files})
		}
		if err != nil {
			t.Fatal(err)
		}
		cfg.Cluster.Identity = who
	})
	// Everybody's time-outs fail on a machine that is busy enough; it comes true when it is less so.
	const patience = 4 * clusterPatience
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	api := amphiv1connect.NewNodeServiceClient(http.DefaultClient, n1.URL(), manager(t))
	revoke := func(id string) (*amphiv1.NodeInfo, error) {
		res, err := api.RevokeNode(ctx, connect.NewRequest(&amphiv1.RevokeNodeRequest{Id: id}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	refuses := func(id string, want connect.Code, words string) {
		t.Helper()
		if _, err := revoke(id); connect.CodeOf(err) != want || !strings.Contains(err.Error(), words) {
			t.Errorf("revoking %q: %v", id, err)
		}
	}
	refuses("n1", connect.CodeAborted, "shut itself out")
	refuses("n9", connect.CodeNotFound, "no node")
	a, b := join(ctx, t, n1.Node, "host", "A"), join(ctx, t, n2.Node, "host", "B")
	connected := func(n *clusterNode, id string) bool {
		return slices.ContainsFunc(n.mesh.link.Stats().Peers, func(p link.PeerStats) bool { return p.Node == id && p.Connected })
	}
	c.until("all are connected", func() bool { return connected(n1, "n2") && connected(n1, "n3") && connected(n2, "n3") })
	begun := time.Now()
	var info *amphiv1.NodeInfo
	c.within(patience, "n3 is revoked", func() (ok bool) {
		info, err = revoke("n3")
		return err == nil
	})
	if info.GetRevokedBeforeMs() < begun.UnixMilli() {
		t.Errorf("%v", info)
	}
	c.within(patience, "n3 is out", func() bool {
		return !connected(n1, "n3") && !connected(n2, "n3") && !connected(n3, "n1") && !connected(n3, "n2")
	})
	t.Logf("out after %v", time.Since(begun).Round(time.Millisecond))
	c.within(patience, "its trunks are down, and it is dead to the others", func() bool {
		down := slices.ContainsFunc(n1.mesh.nodes(), func(i *amphiv1.NodeInfo) bool {
			return i.GetId() == "n3" && i.GetState() == "down" && i.GetRevokedBeforeMs() == info.GetRevokedBeforeMs()
		})
		member := slices.ContainsFunc(n1.mesh.living(), func(m cluster.Member) bool { return m.ID == "n3" })
		return down && !member && c.trunksUp(n1) == 1 && c.trunksUp(n2) == 1
	})
	t.Logf("down after %v", time.Since(begun).Round(time.Millisecond))
	for _, n := range []*clusterNode{n1, n2} {
		r, err := identity.OpenRevocations(filepath.Join(data[n.cfg.ID], revokedFile))
		if err != nil || r.Before("n3").UnixMilli() != info.GetRevokedBeforeMs() {
			t.Errorf("%s keeps %v, %v", n.cfg.ID, r.Before("n3"), err)
		}
	}
	// The others go on: one decides, both hear it.
	if _, err := a.Chat(ctx, "still here"); err != nil {
		t.Error(err)
	}
	if got := b.heard(ctx, t, 1); len(got) != 1 {
		t.Errorf("heard %v", got)
	}
	c.within(patience, "the others are connected", func() bool { return connected(n1, "n2") && connected(n2, "n1") })
	refuses("n2", connect.CodeAborted, "1 of 3 voters")
	// A certificate of the second in which it was revoked, or before, would not count.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Now().UnixMilli() < info.GetRevokedBeforeMs() {
		<-tick.C
	}
	disk.issue(authority)
	c.within(patience, "n3 is back with a new certificate", func() bool {
		return connected(n1, "n3") && connected(n2, "n3") && c.trunksUp(n1) == 2 && n3.mesh.cluster.Ready()
	})
	c.within(patience, "and alive", func() bool {
		return slices.ContainsFunc(n1.mesh.nodes(), func(i *amphiv1.NodeInfo) bool { return i.GetId() == "n3" && i.GetState() == "alive" })
	})
	if got := n1.mesh.link.Stats().Refused["revoked_certificate"] + n2.mesh.link.Stats().Refused["revoked_certificate"]; got > 0 {
		t.Logf("refused %d times", got)
	}
	c.within(patience, "one of three may be revoked again", func() bool { return n1.mesh.mayRevoke("n2") == nil })
}
