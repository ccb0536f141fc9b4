package signal

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

// fakeOutputs writes down what it is asked for, in the diary of the streams.
type fakeOutputs struct {
	*diary
	fail error
}

func (o *fakeOutputs) CheckURL(url string) (string, error) {
	if !strings.HasPrefix(url, "rtmp://") {
		return "", proto.Errorf(proto.InvalidArgument, "no such scheme")
	}
	return url[:strings.LastIndex(url, "/")+1] + "…", nil
}

func (o *fakeOutputs) Start(s OutputStart) error {
	o.write("start output %s %s %s%s to %q", s.Room, s.Output.GetKind(), s.Output.GetStream(), s.Output.GetDestination(), s.URL)
	return o.fail
}
func (o *fakeOutputs) Pause(room, id string)  { o.write("pause %s", room) }
func (o *fakeOutputs) Resume(room, id string) { o.write("resume %s", room) }
func (o *fakeOutputs) Stop(room, id string)   { o.write("stop output %s", room) }

// fakeFiles are the files of assets.
type fakeFiles struct{ *diary }

func (f fakeFiles) URL(_ context.Context, a *amphiv1.Asset, ttl time.Duration) (string, error) {
	return fmt.Sprintf("https://files.example/%s?%v", a.GetKey(), ttl), nil
}

func (f fakeFiles) Delete(_ context.Context, a *amphiv1.Asset) error {
	f.write("delete %s", a.GetKey())
	return nil
}

func withOutputs(book *diary, fail error) func(*Config, *Deps) {
	return func(_ *Config, d *Deps) {
		d.Streams, d.Outputs, d.Assets = &fakeStreams{diary: book}, &fakeOutputs{book, fail}, fakeFiles{book}
		may := d.Registry.(*fakeRegistry).reg.Templates["concert"].Roles[0].Permissions
		may.ControlRecording, may.ControlPush = true, true
	}
}

const (
	pushURL   = "rtmp://live.example/app/the-stream-key"
	streamKey = "the-stream-key"
)

func output(w *amphiv1.ControlOutput) *amphiv1.Command {
	return &amphiv1.Command{Body: &amphiv1.Command_ControlOutput{ControlOutput: w}}
}

func (b *browser) output(state amphiv1.OutputState) *amphiv1.Output {
	b.t.Helper()
	return b.event(state.String(), func(e *amphiv1.Event) bool { return e.GetOutputChanged().GetOutput().GetState() == state }).GetOutputChanged().GetOutput()
}

// secretless fails where a client was sent the key, or the bytes that hold it.
func (b *browser) secretless() {
	b.t.Helper()
	for _, m := range b.seen {
		if text := protojson.Format(m); strings.Contains(text, streamKey) || strings.Contains(text, "sealed") {
			b.t.Errorf("a client was sent %s", text)
		}
	}
}

func TestOutputsAreCarriedOut(t *testing.T) {
	t.Parallel()
	book := newDiary()
	w := newWorld(t, withOutputs(book, nil))
	ann, vera := w.enter(t, "steward", "Ann"), w.enter(t, "field", "Vera")
	push := &amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_PUSH, Url: pushURL, SealedUrl: []byte("forged")}
	if ans := vera.do(output(push)); ans.GetError().GetCode() != string(proto.PermissionDenied) {
		t.Errorf("a viewer was answered %v", ans)
	}
	if ans := ann.do(output(&amphiv1.ControlOutput{Action: push.Action, Kind: push.Kind, Url: "gopher://x/" + streamKey})); ans.GetError().GetCode() != string(proto.InvalidArgument) {
		t.Errorf("a bad URL was answered %v", ans)
	}
	ans := ann.do(output(push))
	if ans.GetError() != nil || ans.GetResult().GetControlOutput().GetOutputs()[0].GetUrl() != "rtmp://live.example/app/…" {
		t.Fatal(ans)
	}
	// The stream is there before what is made of it, and the node gets the whole URL.
	book.wait(t, fmt.Sprintf("start output hall OUTPUT_KIND_PUSH main to %q", pushURL))
	if told := book.told(); told[0] != "start hall main of [singer steward] as LAYOUT_KIND_AUTO" {
		t.Errorf("%q", told)
	}
	id := ans.GetResult().GetControlOutput().GetOutputs()[0].GetId()
	w.ReportOutput("Hall", &amphiv1.Output{Id: id, State: amphiv1.OutputState_OUTPUT_STATE_RETRYING, Failure: "refused", Retries: 1})
	if o := vera.output(amphiv1.OutputState_OUTPUT_STATE_RETRYING); o.GetFailure() != "refused" {
		t.Errorf("%v", o)
	}
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_RETRY, Id: id}))
	book.wait(t, "stop output hall")
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_RECORDING}))
	book.wait(t, `start output hall OUTPUT_KIND_RECORDING main to ""`)
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_PAUSE, Kind: amphiv1.OutputKind_OUTPUT_KIND_RECORDING}))
	book.wait(t, "pause hall")
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_RESUME, Kind: amphiv1.OutputKind_OUTPUT_KIND_RECORDING}))
	book.wait(t, "resume hall")
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_TRACKS}))
	book.wait(t, `start output hall OUTPUT_KIND_TRACKS  to ""`)
	late := w.enter(t, "field", "Lena")
	rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, w.url, manager(t))
	state, err := rooms.GetState(t.Context(), connect.NewRequest(&amphiv1.GetStateRequest{Room: "hall"}))
	if err != nil || len(state.Msg.GetOutputs()) != 3 || strings.Contains(protojson.Format(state.Msg), "sealed") {
		t.Errorf("%v %v", state, err)
	}
	// The end of the session ends what runs: outputs first.
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: &amphiv1.EndRoom{}}})
	book.wait(t, "stop hall main")
	for _, b := range []*browser{ann, vera, late} {
		b.secretless()
	}
	stopped := 0
	for _, line := range book.told() {
		if line == "stop output hall" {
			stopped++
		}
		if line == "stop hall main" && stopped < 3 {
			t.Errorf("the stream ended before its outputs: %q", book.told())
		}
	}
}

func TestOutputThatCannotStartFails(t *testing.T) {
	t.Parallel()
	book := newDiary()
	w := newWorld(t, withOutputs(book, proto.Errorf(proto.Unavailable, "the disk is full")))
	ann := w.enter(t, "steward", "Ann")
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_TRACKS}))
	if o := ann.output(amphiv1.OutputState_OUTPUT_STATE_FAILED); o.GetFailure() != "the disk is full" {
		t.Errorf("%v", o)
	}
}

// TestOutputsGoOnAtANewOwner kills the owner: its standby starts the stream, the recording, which stays paused, and the push.
func TestOutputsGoOnAtANewOwner(t *testing.T) {
	t.Parallel()
	books := map[string]*diary{"no_a": newDiary(), "no_b": newDiary()}
	c := newClusterWith(t, &amphiv1.Placement{Node: "no_a", Standby: "no_b", Epoch: 1},
		func(node string, d *Deps) { withOutputs(books[node], nil)(nil, d) }, "no_a", "no_b")
	ann := c.nodes["no_b"].enter(t, "steward", "Ann")
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_PUSH, Url: pushURL}))
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_RECORDING}))
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_PAUSE, Kind: amphiv1.OutputKind_OUTPUT_KIND_RECORDING}))
	books["no_a"].wait(t, "pause hall")
	c.kill("no_a", &amphiv1.Placement{Node: "no_b", Epoch: 2})
	books["no_b"].wait(t, "start hall main of [singer steward] as LAYOUT_KIND_AUTO")
	books["no_b"].wait(t, fmt.Sprintf("start output hall OUTPUT_KIND_PUSH main to %q", pushURL))
	books["no_b"].wait(t, `start output hall OUTPUT_KIND_RECORDING main to ""`)
	books["no_b"].wait(t, "pause hall")
	ann.secretless()
}

func TestManagementOfOutputs(t *testing.T) {
	t.Parallel()
	book := newDiary()
	w := newWorld(t, withOutputs(book, nil))
	ctx := t.Context()
	records := amphiv1connect.NewRecordingServiceClient(http.DefaultClient, w.url, manager(t))
	pushes := amphiv1connect.NewPushServiceClient(http.DefaultClient, w.url, manager(t))
	_, err := pushes.AddPush(ctx, connect.NewRequest(&amphiv1.AddPushRequest{Room: "hall", Url: pushURL}))
	refusedWith(t, err, connect.CodeNotFound, proto.NotFound)
	ann := w.enter(t, "steward", "Ann")
	push, err := pushes.AddPush(ctx, connect.NewRequest(&amphiv1.AddPushRequest{Room: "hall", Url: pushURL}))
	if err != nil || push.Msg.GetId() == "" {
		t.Fatal(push, err)
	}
	rec, err := records.StartRecording(ctx, connect.NewRequest(&amphiv1.StartRecordingRequest{Room: "hall", Tracks: true}))
	if err != nil || rec.Msg.GetKind() != amphiv1.OutputKind_OUTPUT_KIND_TRACKS {
		t.Fatal(rec, err)
	}
	if res, err := records.PauseRecording(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: "hall"})); err != nil || len(res.Msg.GetOutputs()) != 1 {
		t.Error(res, err)
	}
	_, err = pushes.RemovePush(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: "hall", Id: rec.Msg.GetId()}))
	refusedWith(t, err, connect.CodeNotFound, proto.NotFound)
	if res, err := pushes.RemovePush(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: "hall", Id: push.Msg.GetId()})); err != nil || len(res.Msg.GetOutputs()) != 1 {
		t.Error(res, err)
	}
	if res, err := pushes.ListPushes(ctx, connect.NewRequest(&amphiv1.ListOutputsRequest{Room: "hall", ActiveOnly: true})); err != nil || len(res.Msg.GetOutputs()) != 0 {
		t.Error(res, err)
	}
	if res, err := records.ListRecordings(ctx, connect.NewRequest(&amphiv1.ListOutputsRequest{Room: "hall"})); err != nil || len(res.Msg.GetOutputs()) != 1 {
		t.Error(res, err)
	}
	if res, err := records.StopRecording(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: "hall"})); err != nil || len(res.Msg.GetOutputs()) != 1 {
		t.Error(res, err)
	}
	ann.output(amphiv1.OutputState_OUTPUT_STATE_STOPPED)
}

// TestTemplateKeepsSecrets: a destination's URL is kept encrypted, clients get it without its secrets, and a template that is
// read and set again is the same.
func TestTemplateKeepsSecrets(t *testing.T) {
	t.Parallel()
	book := newDiary()
	w := newWorld(t, withOutputs(book, nil))
	ctx := t.Context()
	templates := amphiv1connect.NewTemplateServiceClient(http.DefaultClient, w.url, manager(t))
	got, err := templates.GetTemplate(ctx, connect.NewRequest(&amphiv1.GetTemplateRequest{Name: "concert"}))
	if err != nil {
		t.Fatal(err)
	}
	mine := got.Msg
	mine.Destinations = []*amphiv1.Destination{
		{Name: "channel", Kind: amphiv1.OutputKind_OUTPUT_KIND_PUSH, Url: pushURL, AutoStart: true, SealedUrl: []byte("forged")},
		{Name: "archive", Kind: amphiv1.OutputKind_OUTPUT_KIND_RECORDING, AutoStart: true},
	}
	set := func(tmpl *amphiv1.Template) *amphiv1.Template {
		t.Helper()
		res, err := templates.SetTemplate(ctx, connect.NewRequest(&amphiv1.SetTemplateRequest{Template: tmpl}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	again := set(mine)
	if d := again.GetDestinations()[0]; d.GetUrl() != pushURL || len(d.GetSealedUrl()) != 0 {
		t.Errorf("answered %v", d)
	}
	kept := w.registry.reg.Templates["concert"].GetDestinations()[0]
	if kept.GetUrl() != "rtmp://live.example/app/…" || strings.Contains(string(kept.GetSealedUrl()), streamKey) {
		t.Errorf("kept %v", kept)
	}
	// Also by somebody who was not told the secrets.
	again.Destinations[0].Url = kept.GetUrl()
	if d := set(again).GetDestinations()[0]; d.GetUrl() != pushURL {
		t.Errorf("after a round without secrets: %v", d)
	}
	again.Destinations[0].Url = "rtmp://"
	_, err = templates.SetTemplate(ctx, connect.NewRequest(&amphiv1.SetTemplateRequest{Template: again}))
	refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	ann := w.enter(t, "steward", "Ann")
	ann.do(control(amphiv1.ControlStream_ACTION_START, 0))
	book.wait(t, fmt.Sprintf("start output hall OUTPUT_KIND_PUSH mainchannel to %q", pushURL))
	book.wait(t, `start output hall OUTPUT_KIND_RECORDING mainarchive to ""`)
	ann.secretless()
}

func TestManagementOfAssets(t *testing.T) {
	t.Parallel()
	book := newDiary()
	w := newWorld(t, withOutputs(book, nil))
	ctx := t.Context()
	assets := amphiv1connect.NewAssetServiceClient(http.DefaultClient, w.url, manager(t))
	w.registry.reg.Assets = map[string]*amphiv1.Asset{}
	for i := range 7 {
		id := fmt.Sprint("as_", i)
		w.registry.reg.Assets[id] = &amphiv1.Asset{Id: id, Room: "Hall", Key: "k" + id, CreatedMs: int64(1000 + i/2), State: amphiv1.AssetState_ASSET_STATE_READY}
	}
	w.registry.reg.Assets["as_6"].State = amphiv1.AssetState_ASSET_STATE_RECORDING
	var ids []string
	q := &amphiv1.ListAssetsRequest{Room: "hall", Limit: 3}
	for {
		res, err := assets.ListAssets(ctx, connect.NewRequest(q))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range res.Msg.GetAssets() {
			ids = append(ids, a.GetId())
		}
		if q.After = res.Msg.GetNext(); q.After == "" {
			break
		}
		// A page goes on although its mark is gone.
		delete(w.registry.reg.Assets, ids[len(ids)-1])
	}
	if got := strings.Join(ids, " "); got != "as_6 as_4 as_5 as_2 as_3 as_0 as_1" {
		t.Errorf("pages: %s", got)
	}
	res, err := assets.ListAssets(ctx, connect.NewRequest(&amphiv1.ListAssetsRequest{State: amphiv1.AssetState_ASSET_STATE_RECORDING}))
	if err != nil || len(res.Msg.GetAssets()) != 1 {
		t.Error(res, err)
	}
	_, err = assets.ListAssets(ctx, connect.NewRequest(&amphiv1.ListAssetsRequest{After: "nonsense"}))
	refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	url, err := assets.PresignAsset(ctx, connect.NewRequest(&amphiv1.PresignAssetRequest{Id: "as_1", TtlS: 60}))
	if err != nil || url.Msg.GetUrl() != "https://files.example/kas_1?1m0s" || url.Msg.GetExpiresMs() <= time.Now().UnixMilli() {
		t.Error(url, err)
	}
	_, err = assets.PresignAsset(ctx, connect.NewRequest(&amphiv1.PresignAssetRequest{Id: "as_6"}))
	refusedWith(t, err, connect.CodeAborted, proto.Conflict)
	_, err = assets.DeleteAsset(ctx, connect.NewRequest(&amphiv1.DeleteAssetRequest{Id: "as_6"}))
	refusedWith(t, err, connect.CodeAborted, proto.Conflict)
	if _, err := assets.DeleteAsset(ctx, connect.NewRequest(&amphiv1.DeleteAssetRequest{Id: "as_1"})); err != nil {
		t.Error(err)
	}
	book.wait(t, "delete kas_1")
	_, err = assets.GetAsset(ctx, connect.NewRequest(&amphiv1.GetAssetRequest{Id: "as_1"}))
	refusedWith(t, err, connect.CodeNotFound, proto.NotFound)
}
