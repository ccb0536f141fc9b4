package load

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/template"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

const (
	testKey    = "key"
	testSecret = "secret-of-the-test"
	testRoom   = "load"
)

type alone string

func (a alone) Owner(string) (*amphiv1.Placement, error) {
	return &amphiv1.Placement{Node: string(a), Epoch: 1}, nil
}
func (alone) Leased() bool            { return true }
func (alone) Watch(func(room string)) {}

// startNode runs signalling and media in this process and answers its URL.
func startNode(t *testing.T) string {
	t.Helper()
	registry, err := cluster.NewLocal(cluster.Config{})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := media.New(media.Config{UDPAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	server, err := signal.New(signal.Config{Node: "no_test"},
		signal.Deps{Registry: registry, Directory: alone("no_test"), Media: signal.Engine(engine)})
	if err != nil {
		t.Fatal(err)
	}
	preset, err := template.Preset("live-event")
	if err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*amphiv1.RegistryCommand{
		{Body: &amphiv1.RegistryCommand_PutKey{PutKey: &amphiv1.ApiKey{Id: testKey, Secret: testSecret}}},
		{Body: &amphiv1.RegistryCommand_PutTemplate{PutTemplate: preset}},
		{Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: &amphiv1.Room{Name: testRoom, Template: preset.GetName()}}},
	} {
		cmd.Id, cmd.TimeMs = proto.NewID(proto.RequestPrefix), time.Now().UnixMilli()
		if err := registry.Propose(context.Background(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = engine.Run(ctx) })
	wg.Go(func() { _ = server.Run(ctx) })
	srv := httptest.NewServer(server.Handler())
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		cancel()
		wg.Wait()
		srv.Close()
		_ = registry.Close()
	})
	return srv.URL
}

func token(role, user string) (string, error) {
	now := time.Now()
	return auth.Signer{KeyID: testKey, Secret: testSecret}.Mint(auth.Grant{
		Type: auth.App, Room: testRoom, Role: role, UserID: user, IssuedAt: now, ExpiresAt: now.Add(time.Hour),
	})
}
