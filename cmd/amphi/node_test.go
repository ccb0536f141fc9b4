package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/hls/hlstest"

	"github.com/amphi-sfu/amphi/signal/auth"
)

// The test binary is its own compositor.
func TestMain(m *testing.M) {
	hlstest.Main()
	goleak.VerifyTestMain(m)
}

// startNode runs a node with the development room on free ports until the test ends.
func startNode(t *testing.T) *Node {
	t.Helper()
	return startNodeWith(t, Config{})
}

func startNodeWith(t *testing.T, cfg Config) *Node {
	t.Helper()
	cfg.Logger, cfg.HTTPAddr = slog.New(slog.NewTextHandler(testWriter{t}, nil)), "127.0.0.1:0"
	node, err := NewNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seedDev(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- node.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the node ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the node did not end")
		}
		http.DefaultClient.CloseIdleConnections()
	})
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		t.Fatal("the node did not become ready")
	}
	return node
}

// testWriter sends a node's log to its test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// appToken is a token of the development room.
func appToken(t *testing.T, role string) string {
	t.Helper()
	now := time.Now()
	token, err := auth.Signer{KeyID: devKey, Secret: devSecret}.Mint(auth.Grant{
		Type: auth.App, Room: devRoom, Role: role, IssuedAt: now, ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestNodeAnswersItsFixedPaths(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/m/abc-defg-hij": 200, "/embed/abc-defg-hij": 200, "/ops": 200, "/": 200,
		"/v1/hls/demo/main/index.m3u8": 404, "/v1/hls/demo/none/index.m3u8": 404, "/v1/nothing": 404, "/amphi.v1.RoomService/Nothing": 404,
	} {
		if status, body := get(t, node.URL()+path); status != want {
			t.Errorf("GET %s: status %d, want %d (%.100s)", path, status, want, body)
		}
	}
}

func TestTwoNodesOnOnePortFailEarly(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	address := node.front.listener.Addr().String()
	if second, err := NewNode(Config{HTTPAddr: address}); err == nil {
		second.Close()
		t.Fatal("a second node took the same port")
	}
}
