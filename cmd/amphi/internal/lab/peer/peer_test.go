package peer

import (
	"net/http"
	"slices"
	"testing"

	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/record"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func newPeer(t *testing.T) *Peer {
	t.Helper()
	p, err := New(Config{
		Name: "p", Room: "r", Token: "t", Nodes: []string{"home", "near", "far"}, Net: &Network{}, HTTP: http.DefaultClient,
		Certificate: &webrtc.Certificate{}, Messages: record.NewMessages(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhereAPeerTries(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	tries := func() (all []string) {
		for i := range 4 {
			all = append(all, p.next(i))
		}
		return all
	}
	if got := tries(); !slices.Equal(got, []string{"home", "near", "far", "home"}) {
		t.Errorf("before it has joined it tries %v", got)
	}
	p.resume, p.backups = "token", []string{"far"}
	if got := tries(); !slices.Equal(got, []string{"far", "near", "home", "far"}) {
		t.Errorf("after its node is lost it tries %v", got)
	}
	p.expire(proto.Errorf(proto.Unavailable, "later"))
	if p.resume == "" || len(p.Events()) != 0 {
		t.Error("it gave up its place for an error that passes")
	}
	p.expire(proto.Errorf(proto.ResumeExpired, "gone"))
	if p.resume != "" || p.Events()[0].What != Expired {
		t.Error("it keeps a token that is no longer taken")
	}
}

func TestWhatThereIsToReceive(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.id = "self"
	published := func(peer, track string, kind amphiv1.Kind) *amphiv1.Event {
		return &amphiv1.Event{Body: &amphiv1.Event_TrackPublished{TrackPublished: &amphiv1.TrackPublished{
			PeerId: peer, Track: &amphiv1.Track{Id: track, Kind: kind}}}}
	}
	p.tracks(published("self", "own", amphiv1.Kind_KIND_VIDEO))
	p.tracks(published("other", "camera", amphiv1.Kind_KIND_VIDEO))
	p.tracks(published("other", "mic", amphiv1.Kind_KIND_AUDIO))
	if len(p.videos) != 1 || !p.videos["camera"] {
		t.Errorf("videos to receive: %v", p.videos)
	}
	p.tracks(&amphiv1.Event{Body: &amphiv1.Event_TrackUnpublished{TrackUnpublished: &amphiv1.TrackUnpublished{TrackId: "camera"}}})
	if len(p.videos) != 0 {
		t.Errorf("videos to receive: %v", p.videos)
	}
}

func TestEventsAreTakenOnce(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	old, next := &connection{number: 1, fresh: true}, &connection{number: 2}
	for _, seq := range []uint64{5, 6, 7} {
		if !p.takes(old, seq) {
			t.Errorf("event %d was not taken", seq)
		}
	}
	// The next connection resumed at 6, before 7 came.
	if p.takes(next, 7) || !p.takes(next, 8) || p.takes(old, 8) || p.takes(old, 9) {
		t.Error("what both connections bring is not taken once")
	}
	if !p.takes(next, 8) {
		t.Error("what one connection brings twice is not seen")
	}
	again := &connection{number: 3, fresh: true}
	if !p.takes(again, 1) {
		t.Error("a new peer's events begin anew")
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {Name: "p", Room: "r", Token: "t"}, {Name: "p", Room: "r", Token: "t", Nodes: []string{"n"}}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
