package cli

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
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
	"github.com/amphi-sfu/amphi/signal/webhook"
)

type alone string

func (a alone) Owner(string) (*amphiv1.Placement, error) {
	return &amphiv1.Placement{Node: string(a), Epoch: 1}, nil
}
func (alone) Leased() bool            { return true }
func (alone) Watch(func(room string)) {}

// startReal runs the real management API, with the room "demo" of the template live-event.
func startReal(t *testing.T, more ...*amphiv1.RegistryCommand) string {
	t.Helper()
	registry, err := cluster.NewLocal(cluster.Config{})
	if err != nil {
		t.Fatal(err)
	}
	hooks, err := webhook.New(webhook.Config{Targets: []webhook.Target{{URL: "http://127.0.0.1:1/hook?key=hidden", Secrets: []string{"a secret of thirty-two bytes, just"}}}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := signal.New(signal.Config{Node: "no_test"}, signal.Deps{Registry: registry, Directory: alone("no_test"),
		Streams: noStreams{}, Outputs: noOutputs{}, Assets: noFiles{}, Webhooks: hooks})
	if err != nil {
		t.Fatal(err)
	}
	preset, err := template.Preset("live-event")
	if err != nil {
		t.Fatal(err)
	}
	for _, cmd := range append([]*amphiv1.RegistryCommand{
		{Body: &amphiv1.RegistryCommand_PutKey{PutKey: &amphiv1.ApiKey{Id: devKey, Secret: devSecret}}},
		{Body: &amphiv1.RegistryCommand_PutTemplate{PutTemplate: preset}},
		{Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: &amphiv1.Room{Name: "demo", Template: preset.GetName()}}},
	}, more...) {
		cmd.Id, cmd.TimeMs = proto.NewID(proto.RequestPrefix), time.Now().UnixMilli()
		if err := registry.Propose(context.Background(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Run(ctx) })
	wg.Go(func() { _ = hooks.Run(ctx) })
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

// noOutputs takes everything and makes nothing.
type noOutputs struct{}

func (noOutputs) CheckURL(url string) (string, error) {
	scheme, rest, _ := strings.Cut(url, "://")
	if scheme != "rtmp" && scheme != "srt" {
		return "", proto.Errorf(proto.InvalidArgument, "the URL is not of rtmp or srt")
	}
	if i := strings.LastIndex(rest, "/"); i >= 0 {
		rest = rest[:i+1] + "…"
	}
	return scheme + "://" + rest, nil
}

func (noOutputs) Start(signal.OutputStart) error { return nil }
func (noOutputs) Pause(string, string)           {}
func (noOutputs) Resume(string, string)          {}
func (noOutputs) Stop(string, string)            {}

type noFiles struct{}

func (noFiles) URL(_ context.Context, a *amphiv1.Asset, _ time.Duration) (string, error) {
	return "/v1/assets/" + a.GetId(), nil
}

func (noFiles) Delete(context.Context, *amphiv1.Asset) error { return nil }

// noStreams runs every stream, and shows nothing.
type noStreams struct{}

func (noStreams) Start(string, *amphiv1.StreamSettings, *amphiv1.Stream) error { return nil }
func (noStreams) SetLayout(string, *amphiv1.Stream)                            {}
func (noStreams) Stop(string, string)                                          {}
func (noStreams) Cue(string, string, *amphiv1.StreamCue)                       {}

func TestOutputsAgainstTheRealAPI(t *testing.T) {
	t.Parallel()
	url := startReal(t, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_SetNodeSecret{SetNodeSecret: make([]byte, 32)}},
		putAsset(&amphiv1.Asset{Id: "as_1", Type: amphiv1.AssetType_ASSET_TYPE_PROGRAM, State: amphiv1.AssetState_ASSET_STATE_READY, Room: "demo", Stream: "main",
			Variant: "720p", Part: 1, Size: 2048, DurationMs: 90_000, Checksum: "sha256:00"}),
		putAsset(&amphiv1.Asset{Id: "as_2", Type: amphiv1.AssetType_ASSET_TYPE_CHAT, State: amphiv1.AssetState_ASSET_STATE_RECORDING, Room: "demo"}))
	enter(t, url, "host", "Ada", false)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/outputs",
		Setup: func(env *testscript.Env) error {
			env.Setenv("AMPHI_URL", url)
			return nil
		},
	})
}

func putAsset(a *amphiv1.Asset) *amphiv1.RegistryCommand {
	return &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutAsset{PutAsset: a}}
}
