package livekit

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// fakeServer is a room with one publisher, as LiveKit describes it.
func fakeServer(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Count(r.FormValue("access_token"), ".") != 2 {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		wrapped, _ := base64.URLEncoding.DecodeString(r.FormValue("join_request"))
		join, err := parse(wrapped)
		if err != nil || r.URL.Path != "/rtc/v1" || join.part(wrappedJoin).part(joinConnection).numbers[autoSubscribe] != 1 {
			t.Errorf("joins by %s, %v: %v", r.URL.Path, join, err)
		}
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		serve(r.Context(), ws)
	}))
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		srv.Close()
	})
	return srv.URL
}

func serve(ctx context.Context, ws *websocket.Conn) {
	say := func(field protowire.Number, body message) {
		_ = ws.Write(ctx, websocket.MessageBinary, message(nil).part(field, body))
	}
	other := message(nil).text(participantSID, "PA_other").
		part(participantTracks, message(nil).text(trackSID, "TR_mic")).
		part(participantTracks, message(nil).text(trackSID, "TR_cam").number(trackType, typeVideo))
	say(responseJoin, message(nil).part(joinParticipant, message(nil).text(participantSID, "PA_me")).part(joinOthers, other))
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			return
		}
		request, _ := parse(data)
		switch {
		case request.has(requestAddTrack):
			add := request.part(requestAddTrack)
			say(responseTrackPublished, message(nil).text(publishedCID, add.text(addCID)).
				part(publishedTrack, message(nil).text(trackSID, "TR_mine").number(trackType, add.numbers[addType])))
		case request.has(requestOffer):
			entry := message(nil).text(entryKey, "1").text(entryValue, "TR_cam")
			say(responseAnswer, message(nil).text(sdpText, "answer\r\nm=audio\r\n").part(sdpTracks, entry))
			say(responseTrickle, message(nil).text(trickleCandidate, `{"candidate":"candidate:1 1 udp"}`))
			say(responseTrickle, message(nil).text(trickleCandidate, `{"candidate":"candidate:2 1 udp"}`).number(trickleFinal, 1))
			say(responseSections, message(nil).number(sectionsVideo, 2))
		case request.has(requestLeave):
			say(responseLeave, message(nil).number(leaveReason, 1))
			return
		}
	}
}

func dial(t *testing.T, ctx context.Context, inbox *client.Inbox) *client.Client {
	t.Helper()
	token, err := Token("key", "secret", "room", "user", true, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(ctx, client.Config{
		URL: fakeServer(t), Token: token, Open: Open, Join: &amphiv1.Join{Name: "x"}, OnMessage: inbox.Add,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestAClientIsAParticipant(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	inbox := &client.Inbox{}
	c := dial(t, ctx, inbox)
	tracks := c.Joined().GetState().GetPeers()[0].GetTracks()
	if c.PeerID() != "PA_me" || len(tracks) != 2 || tracks[0].GetKind() != amphiv1.Kind_KIND_AUDIO || tracks[1].GetKind() != amphiv1.Kind_KIND_VIDEO {
		t.Errorf("joined as %v", c.Joined())
	}
	camera, err := c.Publish(ctx, &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_VIDEO, Source: "camera"})
	if err != nil || camera.GetId() != "TR_mine" || camera.GetKind() != amphiv1.Kind_KIND_VIDEO {
		t.Errorf("published %v, %v", camera, err)
	}
	if err := c.SetSubscriptions(ctx, &amphiv1.SetSubscriptions{Auto: true}); err != nil {
		t.Error(err)
	}
	sdp, err := c.Negotiate(ctx, &amphiv1.Negotiate{Sdp: "offer\r\nm=audio 1\r\nm=video 2\r\n"})
	if err != nil || sdp != "answer\r\nm=audio\r\na=candidate:1 1 udp\r\na=candidate:2 1 udp\r\n" {
		t.Errorf("answered %q, %v", sdp, err)
	}
	slots, err := inbox.Take(ctx, func(m *amphiv1.ServerMessage) bool { return m.GetSlots() != nil })
	if s := slots.GetSlots().GetSlots(); err != nil || len(s) != 1 || s[0].GetMid() != "1" || s[0].GetTrackId() != "TR_cam" {
		t.Errorf("slots are %v, %v", slots, err)
	}
	need, err := inbox.Take(ctx, func(m *amphiv1.ServerMessage) bool { return m.GetSlotsNeeded() != nil })
	if n := need.GetSlotsNeeded(); err != nil || n.GetAudio() != 1 || n.GetVideo() != 3 {
		t.Errorf("needed are %v, %v", need, err)
	}
	if err := c.Leave(ctx); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotTranslatedIsRefused(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := dial(t, ctx, &client.Inbox{})
	if _, err := c.Chat(ctx, "hello"); err == nil || !strings.Contains(err.Error(), "LiveKit") {
		t.Errorf("chat: %v", err)
	}
	if _, err := c.Publish(ctx, &amphiv1.PublishTrack{Layers: []*amphiv1.SimulcastLayer{{Rid: "q"}}}); err == nil {
		t.Error("simulcast was announced")
	}
}

func TestAServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for base, want := range map[string]string{fakeServer(t): "401", "http://127.0.0.1:1": "connecting to LiveKit", "ftp://x": "want http"} {
		if _, err := Open(ctx, client.Config{URL: base, Token: "none"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", base, err)
		}
	}
}
