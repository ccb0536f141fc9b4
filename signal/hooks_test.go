package signal

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/webhook"
)

// fakeWebhooks writes down what is told.
type fakeWebhooks struct {
	*diary
	*webhook.Sender
}

func (w *fakeWebhooks) Emit(ev webhook.Event) {
	data, err := json.Marshal(ev.Data)
	if err != nil {
		panic(err)
	}
	var d struct {
		Name, Role, Reason, Failure, Stream, Kind string
		UserID                                    string `json:"user_id"`
		Session                                   string `json:"session_id"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		panic(err)
	}
	if !strings.HasPrefix(ev.ID, "wh_"+strings.TrimPrefix(d.Session, "se_")+"_") {
		panic(ev.ID)
	}
	w.write("%s", strings.Join(strings.Fields(strings.Join([]string{ev.Type, d.Name, d.UserID, d.Role, d.Reason, d.Stream, d.Kind, d.Failure}, " ")), " "))
	w.write("id %s %s", ev.Type, ev.ID)
	w.Sender.Emit(ev)
}

func withWebhooks(t *testing.T, book *diary) func(*Config, *Deps) {
	t.Helper()
	sender, err := webhook.New(webhook.Config{Targets: []webhook.Target{{URL: "http://127.0.0.1:1/?k=v", Secrets: []string{"a secret of thirty-two bytes, just"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return func(_ *Config, d *Deps) { d.Webhooks = &fakeWebhooks{book, sender} }
}

func TestWebhooksTellWhatHappens(t *testing.T) {
	t.Parallel()
	book, works := newDiary(), newDiary()
	w := newWorld(t, withWebhooks(t, book), withOutputs(works, nil), func(_ *Config, d *Deps) {
		d.Chat = func(room string, m *amphiv1.Message) { works.write("chat %s %s", room, m.GetText()) }
	})
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_ChangeRole{ChangeRole: &amphiv1.ChangeRole{Peers: []string{bob.self}, Role: "singer", Force: true}}})
	ann.do(say("hello"))
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_Send{Send: &amphiv1.SendMessage{Text: "secret", To: &amphiv1.Recipients{Peers: []string{bob.self}}}}})
	ans := ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_RECORDING}))
	id := ans.GetResult().GetControlOutput().GetOutputs()[0].GetId()
	w.ReportStream("hall", &amphiv1.Stream{Name: "main", State: amphiv1.StreamState_STREAM_STATE_LIVE})
	report := func(state amphiv1.OutputState, bytes uint64, why string) {
		w.ReportOutput("hall", &amphiv1.Output{Id: id, State: state, Bytes: bytes, Failure: why})
		ann.event(why, func(e *amphiv1.Event) bool { return e.GetOutputChanged() != nil })
	}
	report(amphiv1.OutputState_OUTPUT_STATE_ACTIVE, 0, "")
	report(amphiv1.OutputState_OUTPUT_STATE_FAILED, 10, "the disk is full")
	ann.do(output(&amphiv1.ControlOutput{Action: amphiv1.ControlOutput_ACTION_START, Kind: amphiv1.OutputKind_OUTPUT_KIND_PUSH, Url: pushURL}))
	bob.do(&amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}})
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: &amphiv1.EndRoom{Reason: "late"}}})
	want := []string{"session.started", "peer.joined Ann u-steward steward", "peer.joined Bob u-gallery gallery", "peer.role_changed Bob u-gallery singer",
		"stream.started main", "stream.live main", "recording.started main recording", "recording.failed main recording the disk is full", "push.starting main push",
		"peer.left Bob u-gallery left", "session.ended late"}
	book.wait(t, want[len(want)-1])
	told := slices.DeleteFunc(book.told(), func(l string) bool { return strings.HasPrefix(l, "id ") })
	if !slices.Equal(told, want) {
		t.Errorf("told %q", told)
	}
	works.wait(t, "chat hall hello")
	if slices.Contains(works.told(), "chat hall secret") {
		t.Error("a private message was noted")
	}
	hooks := amphiv1connect.NewWebhookServiceClient(http.DefaultClient, w.url, manager(t))
	targets, err := hooks.ListWebhookTargets(t.Context(), connect.NewRequest(&amphiv1.ListWebhookTargetsRequest{}))
	if err != nil || len(targets.Msg.GetTargets()) != 1 || strings.Contains(targets.Msg.GetTargets()[0].GetUrl(), "k=v") {
		t.Errorf("%v %v", targets, err)
	}
	_, err = hooks.ReplayWebhookEvents(t.Context(), connect.NewRequest(&amphiv1.ReplayWebhookEventsRequest{}))
	refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	if _, err := hooks.ListWebhookEvents(t.Context(), connect.NewRequest(&amphiv1.ListWebhookEventsRequest{})); err != nil {
		t.Error(err)
	}
}

// TestWebhooksGoOnAtANewOwner: what the owner before told last is told again, with the same ids.
func TestWebhooksGoOnAtANewOwner(t *testing.T) {
	t.Parallel()
	books := map[string]*diary{"no_a": newDiary(), "no_b": newDiary()}
	c := newClusterWith(t, &amphiv1.Placement{Node: "no_a", Standby: "no_b", Epoch: 1},
		func(node string, d *Deps) { withWebhooks(t, books[node])(nil, d) }, "no_a", "no_b")
	c.nodes["no_b"].enter(t, "steward", "Ann")
	books["no_a"].wait(t, "peer.joined Ann u-steward steward")
	c.kill("no_a", &amphiv1.Placement{Node: "no_b", Epoch: 2})
	books["no_b"].wait(t, "peer.joined Ann u-steward steward")
	c.nodes["no_b"].enter(t, "singer", "Ben")
	books["no_b"].wait(t, "peer.joined Ben u-singer singer")
	first, again := books["no_a"].told(), books["no_b"].told()
	if !slices.Equal(first[:4], again[:4]) {
		t.Errorf("told %q, then %q", first, again)
	}
}
