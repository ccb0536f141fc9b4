package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/webhook"
)

// manager puts a management token on each request.
func manager(t *testing.T) connect.ClientOption {
	t.Helper()
	now := time.Now()
	token, err := auth.Signer{KeyID: devKey, Secret: devSecret}.Mint(auth.Grant{Type: auth.Management, IssuedAt: now, ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+token)
			return next(ctx, req)
		}
	}))
}

// application takes the webhooks of a node and notes their types.
func application(t *testing.T) (target webhook.Target, told chan string) {
	t.Helper()
	told = make(chan string, 100)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var sent struct{ Type string }
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		told <- sent.Type
	}))
	t.Cleanup(web.Close)
	return webhook.Target{URL: web.URL, Secrets: []string{devHookSecret}}, told
}

// eventually asks until the answer passes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	late := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestARecordingBecomesFiles(t *testing.T) {
	t.Parallel()
	target, told := application(t)
	dir := t.TempDir()
	node := startNodeWith(t, Config{ID: "no_rec", CompositorPath: fakeCompositor(t), Storage: StorageConfig{Dir: dir}, Webhooks: []webhook.Target{target}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	host := join(ctx, t, node, "host", "Ada")
	defer host.Close()
	records := amphiv1connect.NewRecordingServiceClient(http.DefaultClient, node.URL(), manager(t))
	assets := amphiv1connect.NewAssetServiceClient(http.DefaultClient, node.URL(), manager(t))
	nodes := amphiv1connect.NewNodeServiceClient(http.DefaultClient, node.URL(), manager(t))
	started, err := records.StartRecording(ctx, connect.NewRequest(&amphiv1.StartRecordingRequest{Room: devRoom}))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "two seconds on the disk", func() bool {
		status, err := nodes.GetNode(ctx, connect.NewRequest(&amphiv1.GetNodeRequest{}))
		if err != nil || len(status.Msg.GetOutputs()) != 1 {
			return false
		}
		o := status.Msg.GetOutputs()[0].GetOutput()
		return o.GetId() == started.Msg.GetId() && o.GetState() == amphiv1.OutputState_OUTPUT_STATE_ACTIVE && o.GetBytes() > 20_000
	})
	list := func(state amphiv1.AssetState) []*amphiv1.Asset {
		t.Helper()
		res, err := assets.ListAssets(ctx, connect.NewRequest(&amphiv1.ListAssetsRequest{Room: devRoom, State: state}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg.GetAssets()
	}
	eventually(t, "a record of what is recorded", func() bool { return len(list(amphiv1.AssetState_ASSET_STATE_RECORDING)) == 1 })
	if _, err := records.StopRecording(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: devRoom})); err != nil {
		t.Fatal(err)
	}
	var program *amphiv1.Asset
	eventually(t, "the files", func() bool {
		for _, a := range list(amphiv1.AssetState_ASSET_STATE_READY) {
			if a.GetType() == amphiv1.AssetType_ASSET_TYPE_PROGRAM {
				program = a
			}
		}
		left, err := os.ReadDir(filepath.Join(dir, "running"))
		return program != nil && len(list(amphiv1.AssetState_ASSET_STATE_UNSPECIFIED)) == len(list(amphiv1.AssetState_ASSET_STATE_READY)) && err == nil && len(left) == 0
	})
	if program.GetOutputId() != started.Msg.GetId() || program.GetPart() != 1 || program.GetNode() != "no_rec" || program.GetDurationMs() < 500 || program.GetSessionId() == "" {
		t.Errorf("%v", program)
	}
	plays(ctx, t, node, assets, program)
	if _, err := assets.DeleteAsset(ctx, connect.NewRequest(&amphiv1.DeleteAssetRequest{Id: program.GetId()})); err != nil {
		t.Fatal(err)
	}
	want := []string{"session.started", "peer.joined", "stream.started", "recording.started", "recording.stopped", "asset.ready"}
	for got := range told {
		if len(want) > 0 && got == want[0] {
			want = want[1:]
		}
		if len(want) == 0 {
			break
		}
	}
}

// TestFilesWaitForADiskThatTakesNoUploads has the queue of uploads unable to write when a recording's files are complete: they are not
// given up, but queued when it can, while the node runs.
func TestFilesWaitForADiskThatTakesNoUploads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	node := startNodeWith(t, Config{ID: "no_full", CompositorPath: fakeCompositor(t), Storage: StorageConfig{Dir: dir}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	host := join(ctx, t, node, "host", "Ada")
	defer host.Close()
	records := amphiv1connect.NewRecordingServiceClient(http.DefaultClient, node.URL(), manager(t))
	if _, err := records.StartRecording(ctx, connect.NewRequest(&amphiv1.StartRecordingRequest{Room: devRoom})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "something on the disk", func() bool {
		all := node.outputs.status()
		return len(all) == 1 && all[0].GetOutput().GetBytes() > 20_000
	})
	uploads := filepath.Join(dir, "uploads")
	if err := os.Rename(uploads, uploads+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := records.StopRecording(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: devRoom})); err != nil {
		t.Fatal(err)
	}
	waiting := func() int {
		node.recordings.mu.Lock()
		defer node.recordings.mu.Unlock()
		return len(node.recordings.unqueued)
	}
	states := func() map[amphiv1.AssetState]int {
		found := map[amphiv1.AssetState]int{}
		node.registry.Read(func(r *amphiv1.Registry) {
			for _, a := range r.GetAssets() {
				found[a.GetState()]++
			}
		})
		return found
	}
	eventually(t, "files that cannot be queued", func() bool { return waiting() >= 2 && states()[amphiv1.AssetState_ASSET_STATE_RECORDING] == 0 })
	if s := states(); s[amphiv1.AssetState_ASSET_STATE_READY]+s[amphiv1.AssetState_ASSET_STATE_FAILED] > 0 {
		t.Errorf("meanwhile: %v", s)
	}
	if err := os.Rename(uploads+".away", uploads); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of them in the storage", func() bool {
		s := states()
		return len(s) == 1 && s[amphiv1.AssetState_ASSET_STATE_READY] >= 2
	})
}

// plays fetches a file by its link, and has ffprobe look at it where there is one. The link without its signature is no link.
func plays(ctx context.Context, t *testing.T, node *Node, assets amphiv1connect.AssetServiceClient, a *amphiv1.Asset) {
	t.Helper()
	link, err := assets.PresignAsset(ctx, connect.NewRequest(&amphiv1.PresignAssetRequest{Id: a.GetId(), TtlS: 60}))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get(node.URL() + link.Msg.GetUrl())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	file := filepath.Join(t.TempDir(), "program.mp4")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), res.Body)
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	if err != nil || res.StatusCode != http.StatusOK || uint64(n) != a.GetSize() || a.GetChecksum() != "sha256:"+hex.EncodeToString(sum.Sum(nil)) {
		t.Errorf("status %d, %d bytes of %v: %v", res.StatusCode, n, a, err)
	}
	if status, _ := get(t, node.URL()+assetsPath+"/"+a.GetKey()); status != http.StatusNotFound {
		t.Errorf("without a signature: status %d", status)
	}
	probe, err := exec.LookPath("ffprobe")
	if err != nil {
		return
	}
	text, err := exec.CommandContext(ctx, probe, "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", file).CombinedOutput()
	if got := strings.Fields(string(text)); err != nil || !slices.Equal(got, []string{"h264", "aac"}) {
		t.Errorf("ffprobe: %s %v", text, err)
	}
}

// TestAPushThatIsRefusedHurtsNobody adds two pushes to where nobody listens: each says so, is tried again and removed on its own, and
// no key is shown or logged.
func TestAPushThatIsRefusedHurtsNobody(t *testing.T) {
	t.Parallel()
	node := startNodeWith(t, Config{CompositorPath: fakeCompositor(t)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	host := join(ctx, t, node, "host", "Ada")
	defer host.Close()
	pushes := amphiv1connect.NewPushServiceClient(http.DefaultClient, node.URL(), manager(t))
	var ids []string
	for _, url := range []string{"rtmp://127.0.0.1:1/app/first-key", "rtmp://127.0.0.1:1/app/second-key"} {
		added, err := pushes.AddPush(ctx, connect.NewRequest(&amphiv1.AddPushRequest{Room: devRoom, Url: url}))
		if err != nil || added.Msg.GetUrl() != "rtmp://127.0.0.1:1/app/…" {
			t.Fatal(added, err)
		}
		ids = append(ids, added.Msg.GetId())
	}
	if ids[0] == ids[1] {
		t.Fatal("two keys, one push")
	}
	states := func() map[string]amphiv1.OutputState {
		t.Helper()
		res, err := pushes.ListPushes(ctx, connect.NewRequest(&amphiv1.ListOutputsRequest{Room: devRoom}))
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]amphiv1.OutputState{}
		for _, o := range res.Msg.GetOutputs() {
			all[o.GetId()] = o.GetState()
		}
		return all
	}
	const retrying, stopped = amphiv1.OutputState_OUTPUT_STATE_RETRYING, amphiv1.OutputState_OUTPUT_STATE_STOPPED
	eventually(t, "both to be tried again", func() bool { s := states(); return s[ids[0]] == retrying && s[ids[1]] == retrying })
	if _, err := pushes.RetryPush(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: devRoom, Id: ids[1]})); err != nil {
		t.Error(err)
	}
	if _, err := pushes.RemovePush(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: devRoom, Id: ids[0]})); err != nil {
		t.Error(err)
	}
	eventually(t, "the second alone", func() bool { s := states(); return s[ids[0]] == stopped && s[ids[1]] == retrying })
	if list := node.outputs.status(); len(list) != 1 || list[0].GetOutput().GetId() != ids[1] {
		t.Errorf("made: %v", list)
	}
	_, err := pushes.AddPush(ctx, connect.NewRequest(&amphiv1.AddPushRequest{Room: devRoom, Url: "rtmp://third-key"}))
	if err == nil || strings.Contains(err.Error(), "third-key") {
		t.Errorf("a bad URL: %v", err)
	}
	metrics := httptest.NewServer(node.metricsRoutes())
	defer metrics.Close()
	if _, text := get(t, metrics.URL+"/metrics"); !strings.Contains(text, `amphi_outputs{kind="push",state="retrying"} 1`) || !strings.Contains(text, `amphi_outputs{kind="push",state="stopped"} 2`) {
		t.Errorf("metrics: %s", text)
	}
}

// TestARecordingGoesOnAtAnotherNode ends the node that records: the room's next owner goes on with another part.
func TestARecordingGoesOnAtAnotherNode(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 3, func(cfg *Config) { cfg.CompositorPath, cfg.Storage.Dir = fakeCompositor(t), t.TempDir() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*clusterPatience)
	defer cancel()
	for _, n := range c.nodes {
		join(ctx, t, n.Node, "host", "Host of "+n.cfg.ID)
	}
	records := amphiv1connect.NewRecordingServiceClient(http.DefaultClient, c.nodes[0].URL(), manager(t))
	started, err := records.StartRecording(ctx, connect.NewRequest(&amphiv1.StartRecordingRequest{Room: devRoom}))
	if err != nil {
		t.Fatal(err)
	}
	// recorder is the node that records now, if that is under way.
	recorder := func() *clusterNode {
		for _, n := range c.nodes {
			if n.dead {
				continue
			}
			for _, o := range n.outputs.status() {
				if o.GetOutput().GetId() == started.Msg.GetId() && o.GetOutput().GetBytes() > 20_000 {
					return n
				}
			}
		}
		return nil
	}
	var first, second *clusterNode
	c.until("a node records", func() bool { first = recorder(); return first != nil })
	c.end(first)
	c.until("another node records", func() bool { second = recorder(); return second != nil })
	records = amphiv1connect.NewRecordingServiceClient(http.DefaultClient, second.URL(), manager(t))
	if _, err := records.StopRecording(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: devRoom, Id: started.Msg.GetId()})); err != nil {
		t.Fatal(err)
	}
	c.until("another part", func() (there bool) {
		second.registry.Read(func(r *amphiv1.Registry) {
			for _, a := range r.GetAssets() {
				there = there || a.GetOutputId() == started.Msg.GetId() && a.GetPart() >= 2 && a.GetNode() == second.cfg.ID &&
					a.GetType() == amphiv1.AssetType_ASSET_TYPE_PROGRAM && a.GetState() == amphiv1.AssetState_ASSET_STATE_READY
			}
		})
		return there
	})
}
