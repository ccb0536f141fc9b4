package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/hls/hlstest"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// fakeCompositor is a program that this test binary plays.
func fakeCompositor(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	fake := hlstest.Compositor{}
	path := filepath.Join(t.TempDir(), "compositor")
	script := fmt.Sprintf("#!/bin/sh\n%s='%s' exec %s\n", hlstest.EnvName, strings.TrimPrefix(fake.Env(), hlstest.EnvName+"="), self)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// watcher is somebody who plays the demo room's stream at one node.
type watcher struct {
	t    *testing.T
	node *clusterNode
}

// get asks for a path of the stream; err is that of the connection.
func (w watcher) get(path string) (status int, body string, err error) {
	res, err := http.Get(w.node.URL() + "/v1/hls/" + devRoom + "/main/" + path)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// newest is the URI of the newest part in a playlist.
func newest(playlist string) string {
	i := strings.LastIndex(playlist, "#EXT-X-PART:")
	if i < 0 {
		return ""
	}
	_, rest, _ := strings.Cut(playlist[i:], `URI="`)
	uri, _, _ := strings.Cut(rest, `"`)
	return uri
}

// goLive has a host start the stream, and waits until every node serves it.
func (c *clustered) goLive(ctx context.Context, host guest) {
	c.t.Helper()
	if _, err := host.Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_ControlStream{
		ControlStream: &amphiv1.ControlStream{Action: amphiv1.ControlStream_ACTION_START}}}); err != nil {
		c.t.Fatalf("going live: %v", err)
	}
	for _, n := range c.nodes {
		w := watcher{c.t, n}
		c.until("node "+n.cfg.ID+" serves the stream", func() bool {
			status, list, err := w.get("720p/index.m3u8")
			return err == nil && status == 200 && newest(list) != ""
		})
	}
}

func TestEveryNodeServesEveryStream(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 3, func(cfg *Config) { cfg.CompositorPath = fakeCompositor(t) })
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	defer cancel()
	c.goLive(ctx, join(ctx, t, c.nodes[0].Node, "host", "Host"))
	var parts []string
	for _, n := range c.nodes {
		w := watcher{t, n}
		_, list, _ := w.get("720p/index.m3u8")
		part := newest(list)
		status, body, err := w.get("720p/" + part)
		if err != nil || status != 200 || len(body) < 100 {
			t.Errorf("node %s: part %q: %d %v", n.cfg.ID, part, status, err)
		}
		if status, multi, err := w.get("index.m3u8"); err != nil || status != 200 || !strings.Contains(multi, "720p/index.m3u8") {
			t.Errorf("node %s: %d %v %s", n.cfg.ID, status, err, multi)
		}
		parts = append(parts, part)
	}
	// Asked again, each edge has what another node's origin made.
	edges := 0
	for _, n := range c.nodes {
		for _, part := range parts {
			if status, _, err := (watcher{t, n}).get("720p/" + part); err != nil || status != 200 {
				t.Errorf("node %s: part %q: %d %v", n.cfg.ID, part, status, err)
			}
		}
		if s := n.mesh.edge.Stats(); s.Requests > 0 {
			edges++
			if s.Hits == 0 || s.Objects == 0 {
				t.Errorf("node %s: %+v", n.cfg.ID, s)
			}
		}
	}
	if edges != 2 {
		t.Errorf("%d nodes served another's stream", edges)
	}
}
