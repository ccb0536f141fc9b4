package cli

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/template"
)

type alone string

func (a alone) Owner(string) (*amphiv1.Placement, error) {
	return &amphiv1.Placement{Node: string(a), Epoch: 1}, nil
}
func (alone) Leased() bool            { return true }
func (alone) Watch(func(room string)) {}

// startReal runs the real management API, with the room "demo" of the template live-event.
func startReal(t *testing.T) string {
	t.Helper()
	registry, err := cluster.NewLocal(cluster.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := signal.New(signal.Config{Node: "no_test"}, signal.Deps{Registry: registry, Directory: alone("no_test")})
	if err != nil {
		t.Fatal(err)
	}
	preset, err := template.Preset("live-event")
	if err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*amphiv1.RegistryCommand{
		{Body: &amphiv1.RegistryCommand_PutKey{PutKey: &amphiv1.ApiKey{Id: devKey, Secret: devSecret}}},
		{Body: &amphiv1.RegistryCommand_PutTemplate{PutTemplate: preset}},
		{Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: &amphiv1.Room{Name: "demo", Template: preset.GetName()}}},
	} {
		cmd.Id, cmd.TimeMs = proto.NewID(proto.RequestPrefix), time.Now().UnixMilli()
		if err := registry.Propose(context.Background(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Run(ctx) })
	srv := httptest.NewServer(server.Handler())
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		stop()
		wg.Wait()
		srv.Close()
		_ = registry.Close()
	})
	return srv.URL
}

// enter joins a peer that stays until the test ends, and answers its id.
func enter(t *testing.T, url, role, name string, publish bool) string {
	t.Helper()
	token, err := sign(devKey, devSecret, claims{Type: auth.App, Room: "demo", Role: role, User: name, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, client.Config{URL: url, Token: token, Join: &amphiv1.Join{Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if publish {
		if _, err := c.Publish(ctx, &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_AUDIO, Source: "mic"}); err != nil {
			t.Fatal(err)
		}
	}
	return c.PeerID()
}

func TestScriptsAgainstTheRealAPI(t *testing.T) {
	t.Parallel()
	url := startReal(t)
	ada, vic := enter(t, url, "speaker", "Ada", true), enter(t, url, "viewer", "Vic", false)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/real",
		Setup: func(env *testscript.Env) error {
			env.Setenv("AMPHI_URL", url)
			env.Setenv("ADA", ada)
			env.Setenv("VIC", vic)
			return nil
		},
	})
}
