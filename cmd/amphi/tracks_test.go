package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/hls/storage"
	"github.com/amphi-sfu/amphi/hls/tracks"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

// TestTracksAreRecorded has somebody publish by WHIP: sound and picture share a file, a pause begins another one, and all of them
// go to the storage, the first one too, which for a while cannot be queued.
func TestTracksAreRecorded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	node := startNodeWith(t, Config{Storage: StorageConfig{Dir: dir}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pc, sent := obs(t, webrtc.Configuration{})
	res, answer := whip(t, http.MethodPost, node.URL()+"/v1/whip/"+devRoom, appToken(t, "speaker"), offer(t, pc))
	if res.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", res.StatusCode, answer)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	sending, stop := context.WithCancel(ctx)
	defer wg.Wait()
	defer stop()
	wg.Go(func() { stream(sending, sent) })
	arrives(t, node, "direct")
	records := amphiv1connect.NewRecordingServiceClient(http.DefaultClient, node.URL(), manager(t))
	assets := amphiv1connect.NewAssetServiceClient(http.DefaultClient, node.URL(), manager(t))
	started, err := records.StartRecording(ctx, connect.NewRequest(&amphiv1.StartRecordingRequest{Room: devRoom, Tracks: true,
		Filter: &amphiv1.TrackFilter{Roles: []string{"speaker"}}}))
	if err != nil {
		t.Fatal(err)
	}
	made := func() *trackRecorder { return node.outputs.find(started.Msg.GetId()).tracks }
	growing := func(glob string) func() bool {
		return func() bool {
			files, err := filepath.Glob(filepath.Join(dir, "tracks", "*", glob))
			if err != nil || len(files) == 0 {
				return false
			}
			info, err := os.Stat(files[0])
			return err == nil && info.Size() > 100_000
		}
	}
	eventually(t, "a second of it", growing("*-1-0.0.mp4"))
	change := func(f func(context.Context, *connect.Request[amphiv1.OutputRequest]) (*connect.Response[amphiv1.OutputsResponse], error)) {
		t.Helper()
		if _, err := f(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: devRoom})); err != nil {
			t.Fatal(err)
		}
	}
	uploads := filepath.Join(dir, "uploads")
	if err := os.Rename(uploads, uploads+".away"); err != nil {
		t.Fatal(err)
	}
	change(records.PauseRecording)
	eventually(t, "the first file", func() bool { return made().bytes.Load() > 100_000 })
	eventually(t, "that it waits", func() bool {
		node.recordings.mu.Lock()
		defer node.recordings.mu.Unlock()
		return len(node.recordings.unqueued) == 1
	})
	if err := os.Rename(uploads+".away", uploads); err != nil {
		t.Fatal(err)
	}
	change(records.ResumeRecording)
	eventually(t, "another second", growing("*-2-0.0.mp4"))
	change(records.StopRecording)
	var files []*amphiv1.Asset
	eventually(t, "both files", func() bool {
		list, err := assets.ListAssets(ctx, connect.NewRequest(&amphiv1.ListAssetsRequest{OutputId: started.Msg.GetId()}))
		if err != nil {
			t.Fatal(err)
		}
		files = list.Msg.GetAssets()
		return len(files) == 2 && !slices.ContainsFunc(files, func(a *amphiv1.Asset) bool {
			return a.GetState() != amphiv1.AssetState_ASSET_STATE_READY || a.GetType() != amphiv1.AssetType_ASSET_TYPE_TRACK
		})
	})
	eventually(t, "takes that are forgotten", func() bool {
		notes, err := filepath.Glob(filepath.Join(dir, "tracks", "*", "*"+noteEnd))
		return err == nil && len(notes) == 0
	})
	for _, a := range files {
		if a.GetPeerId() == "" || a.GetVariant() != "camera" || a.GetContentType() != "video/mp4" || a.GetDurationMs() < 300 {
			t.Errorf("%v", a)
		}
	}
}

// A take that could not be completed, for want of room, is at the next start; two parts never share a directory.
func TestTracksOfBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	part := filepath.Join(dir, "tracks", partName("out_a", 1, "solo"))
	blocked := filepath.Join(part, "peer-1-0.0.mp4") // a directory: it cannot be read as a movie
	if err := errors.Join(os.MkdirAll(filepath.Join(blocked, "x"), 0o700), writeNote(filepath.Join(part, "peer-1"+noteEnd), &amphiv1.Asset{Room: devRoom, SessionId: "s"})); err != nil {
		t.Fatal(err)
	}
	node := startNodeWith(t, Config{ID: "solo", Storage: StorageConfig{Dir: dir}})
	r := node.recordings
	if n, made, err := r.tracksPart("out_a"); err != nil || n != 2 || filepath.Base(made) != partName("out_a", 2, "solo") {
		t.Errorf("part %d in %s, %v", n, made, err)
	}
	r.recoverTake(part, "peer-1")
	note := filepath.Join(part, "peer-1"+noteEnd)
	if _, err := os.Stat(note); err != nil {
		t.Errorf("the take is forgotten: %v", err)
	}
	if err := os.RemoveAll(blocked); err != nil {
		t.Fatal(err)
	}
	r.recoverTake(part, "peer-1")
	if _, err := os.Stat(note); err == nil {
		t.Error("the take is not forgotten")
	}
}

// Two nodes that make the same part of a recording, because neither had the other's record, take each other's names for nothing: not in
// the bucket, not in the registry.
func TestPartsOfTwoNodes(t *testing.T) {
	t.Parallel()
	a, b := partName("out_x", 3, "ams-1"), partName("out_x", 3, "ams-2")
	if a == b || placeholder(a) == placeholder(b) || storage.KeyPart(a) != a || len(a) > len("out_x")+20 {
		t.Errorf("%s and %s", a, b)
	}
	for name, want := range map[string]uint32{a: 3, b: 3, "out_x-7": 7, "out_x": 1} {
		if output, part := partNumber(name); output != "out_x" || part != want {
			t.Errorf("%s is part %d of %s", name, part, output)
		}
	}
	one, two := startNodeWith(t, Config{ID: "ams-1"}).recordings, startNodeWith(t, Config{ID: "ams-2"}).recordings
	one.bucket, two.bucket = true, true
	seen := map[string]bool{}
	for _, r := range []*recordings{one, two} {
		part, dir, err := r.tracksPart("out_x")
		if err != nil || part != 1 {
			t.Fatal(part, err)
		}
		for _, name := range []string{"peer-1-0.0.webm", "peer-1-1.0.webm"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			a := r.trackAsset(dir, &amphiv1.Asset{Room: "demo", SessionId: "s", OutputId: "out_x", Part: part}, tracks.File{Name: name})
			if seen[a.GetId()] || seen[a.GetKey()] {
				t.Errorf("%s, %s: taken", a.GetId(), a.GetKey())
			}
			seen[a.GetId()], seen[a.GetKey()] = true, true
		}
	}
}
