package signal

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// fakeMedia stands in for the engine: it answers every offer and notes what it is told.
type fakeMedia struct {
	mu      sync.Mutex // guards the fields below
	changed chan struct{}
	rooms   map[string]*fakeRouter
	offers  []Section
	// making, where set, is called while an endpoint is made.
	making func()
}

func newFakeMedia() *fakeMedia {
	return &fakeMedia{changed: make(chan struct{}), rooms: map[string]*fakeRouter{}}
}

func (m *fakeMedia) Router(name string) MediaRouter {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &fakeRouter{m: m, endpoints: map[string]*fakeEndpoint{}, tracks: map[string]bool{}}
	m.rooms[name] = r
	return r
}

func (m *fakeMedia) Sections(string) ([]Section, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.offers, nil
}

// note changes something under the lock and wakes those who wait.
func (m *fakeMedia) note(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

// when waits until cond, which is called under the lock, holds.
func (m *fakeMedia) when(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		m.mu.Lock()
		ok, changed := cond(), m.changed
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s did not happen", what)
		}
	}
}

type fakeRouter struct {
	m         *fakeMedia
	endpoints map[string]*fakeEndpoint
	tracks    map[string]bool // muted, by id
	onTracks  func()
	speakers  func([]Speaking)
	loudest   int
	closed    bool
}

func (r *fakeRouter) NewEndpoint(id string, to EndpointObserver) (Endpoint, error) {
	ep := &fakeEndpoint{r: r, to: to}
	var making func()
	r.m.note(func() { r.endpoints[id], making = ep, r.m.making })
	if making != nil {
		making()
	}
	return ep, nil
}

func (r *fakeRouter) Mute(muted func(string) bool) {
	r.m.note(func() {
		for id := range r.tracks {
			r.tracks[id] = muted(id)
		}
	})
}

func (r *fakeRouter) Watch(tracks func(), speakers func([]Speaking)) {
	r.m.note(func() { r.onTracks, r.speakers = tracks, speakers })
}

func (r *fakeRouter) Loudest(n int) { r.m.note(func() { r.loudest = n }) }

func (r *fakeRouter) Close() error { r.m.note(func() { r.closed = true }); return nil }

type fakeEndpoint struct {
	r         *fakeRouter
	to        EndpointObserver
	published []Publishing
	subs      []Subscribing
	closed    bool
}

func (e *fakeEndpoint) Negotiate(offer string, publish []Publishing) (string, error) {
	if strings.Contains(offer, "refuse") {
		return "", proto.Errorf(proto.SDPInvalid, "as asked")
	}
	e.r.m.note(func() {
		e.published = publish
		for _, p := range publish {
			e.r.tracks[p.TrackID] = false
		}
	})
	return "v=0 answer", nil
}

func (e *fakeEndpoint) Subscribe(subs []Subscribing) { e.r.m.note(func() { e.subs = subs }) }
func (e *fakeEndpoint) Close() error                 { e.r.m.note(func() { e.closed = true }); return nil }

func (e *fakeEndpoint) subscribed() []string {
	var ids []string
	for _, s := range e.subs {
		if s.Width > 0 {
			ids = append(ids, s.TrackID)
		}
	}
	slices.Sort(ids)
	return ids
}

func withMedia(m Media) worldOption { return func(_ *Config, d *Deps) { d.Media = m } }

// publish announces a track and answers its id.
func (b *browser) publish(kind amphiv1.Kind, source string, muted bool) string {
	b.t.Helper()
	ans := b.do(&amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: kind, Source: source, Muted: muted}}})
	if ans.GetError() != nil {
		b.t.Fatal(ans.GetError())
	}
	return ans.GetResult().GetPublish().GetTrack().GetId()
}

func (b *browser) offer(generation uint32, sdp string, mids ...string) *amphiv1.Answer {
	b.t.Helper()
	n := &amphiv1.Negotiate{Sdp: sdp, Generation: generation}
	for i := 0; i+1 < len(mids); i += 2 {
		n.Publish = append(n.Publish, &amphiv1.PublishedSection{Mid: mids[i], TrackId: mids[i+1]})
	}
	id := b.id()
	b.send(&amphiv1.ClientMessage{Id: id, Body: &amphiv1.ClientMessage_Negotiate{Negotiate: n}})
	return b.answer(id)
}

func (b *browser) want(set *amphiv1.SetSubscriptions) {
	b.t.Helper()
	id := b.id()
	b.send(&amphiv1.ClientMessage{Id: id, Body: &amphiv1.ClientMessage_SetSubscriptions{SetSubscriptions: set}})
	if ans := b.answer(id); ans.GetError() != nil {
		b.t.Fatal(ans.GetError())
	}
}

const audio, video = amphiv1.Kind_KIND_AUDIO, amphiv1.Kind_KIND_VIDEO

func TestMediaFollowsTheRoom(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	w := newWorld(t, withMedia(m))
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	mic, cam := ann.publish(audio, "mic", false), ann.publish(video, "camera", true)
	if ans := ann.offer(1, "v=0\r\n", "0", mic, "1", cam); ans.GetNegotiated().GetSdp() == "" {
		t.Fatal(ans)
	}
	room := m.rooms["hall"]
	m.when(t, "the muted camera", func() bool { return room.tracks[cam] && !room.tracks[mic] })
	if d := cmp.Diff([]Publishing{{"0", mic, audio, "mic", 0}, {"1", cam, video, "camera", 0}}, room.endpoints[ann.self].published); d != "" {
		t.Error(d)
	}
	// The viewer receives everything, or what it names, at the size it shows.
	if ans := bob.offer(1, "v=0\r\n"); ans.GetNegotiated() == nil {
		t.Fatal(ans)
	}
	bob.want(&amphiv1.SetSubscriptions{Auto: true, Tracks: []*amphiv1.Subscription{{TrackId: cam, Width: 320, Height: 180}, {TrackId: "tr_unknown"}}})
	ep := room.endpoints[bob.self]
	want := []Subscribing{{cam, 320, 180, 1, -1}, {mic, fullSize, fullSize, 1, -1}}
	m.when(t, "the subscriptions", func() bool { return cmp.Equal(ep.subs, want) })
	bob.want(&amphiv1.SetSubscriptions{Tracks: []*amphiv1.Subscription{{TrackId: cam, Width: 320, Height: 180, Paused: true}, {TrackId: mic, Paused: true}}})
	m.when(t, "the pause", func() bool { return cmp.Equal(ep.subs, []Subscribing{{cam, 0, 0, 1, -1}}) })
	bob.want(&amphiv1.SetSubscriptions{Auto: true})
	// A new track is received by itself; unmuting opens it on the server.
	screen := ann.publish(video, "screen", false)
	m.when(t, "the screen", func() bool { return slices.Contains(ep.subscribed(), screen) })
	unmute := false
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_UpdateTrack{UpdateTrack: &amphiv1.UpdateTrack{TrackId: cam, Muted: &unmute}}})
	m.when(t, "unmuting", func() bool { return !room.tracks[cam] })
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_Unpublish{Unpublish: &amphiv1.UnpublishTrack{TrackId: screen}}})
	m.when(t, "the end of the screen", func() bool { return !slices.Contains(ep.subscribed(), screen) })
	// A role without WebRTC has no endpoint.
	change := &amphiv1.ChangeRole{Peers: []string{bob.self}, Role: "field", Force: true}
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_ChangeRole{ChangeRole: change}})
	m.when(t, "the end of the viewer's endpoint", func() bool { return ep.closed })
	if ans := bob.offer(2, "v=0\r\n"); ans.GetError().GetCode() != string(proto.PermissionDenied) {
		t.Errorf("a viewer of the stream negotiated: %v", ans)
	}
	ann.do(&amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}})
	m.when(t, "the end of the publisher's endpoint", func() bool { return room.endpoints[ann.self].closed })
}

func TestMediaMessagesReachTheClient(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	w := newWorld(t, withMedia(m))
	ann, bob, vera := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob"), w.enter(t, "field", "Vera")
	mic := ann.publish(audio, "mic", false)
	ann.offer(1, "v=0\r\n", "0", mic)
	bob.offer(1, "v=0\r\n")
	room := m.rooms["hall"]
	to := room.endpoints[bob.self].to
	to.Slots([]*amphiv1.Slot{{Mid: "0", TrackId: mic}})
	to.SlotsNeeded(3, 4)
	to.Quality(&amphiv1.Quality{Network: 4})
	to.Interest(&amphiv1.Interest{TrackId: "x", MaxSpatial: 1})
	slots := bob.until("slots", func(m *amphiv1.ServerMessage) bool { return m.GetSlots() != nil }).GetSlots()
	if slots.GetGeneration() != 1 || slots.GetSlots()[0].GetTrackId() != mic {
		t.Errorf("slots %v", slots)
	}
	bob.until("slots_needed", func(m *amphiv1.ServerMessage) bool { return m.GetSlotsNeeded().GetVideo() == 4 })
	bob.until("quality", func(m *amphiv1.ServerMessage) bool { return m.GetQuality().GetNetwork() == 4 })
	bob.until("interest", func(m *amphiv1.ServerMessage) bool { return m.GetInterest().GetMaxSpatial() == 1 })
	if room.loudest != 5 {
		t.Errorf("the loudest %d microphones are forwarded", room.loudest)
	}
	room.speakers([]Speaking{{mic, -30}, {"tr_unknown", -20}})
	for _, b := range []*browser{ann, bob} {
		s := b.until("speakers", func(m *amphiv1.ServerMessage) bool { return len(m.GetSpeakers().GetSpeakers()) > 0 }).GetSpeakers().GetSpeakers()
		if len(s) != 1 || s[0].GetPeerId() != ann.self || s[0].GetLevel() != -30 {
			t.Errorf("speakers %v", s)
		}
	}
	if ans := vera.do(say("I watch the stream")); ans.GetError() != nil {
		t.Error(ans)
	}
	for _, m := range vera.seen {
		if m.GetSpeakers() != nil {
			t.Error("who does not receive over WebRTC heard of speakers")
		}
	}
	// The transport outlives a lost WebSocket, and the client hears again how it stands.
	_ = bob.sock.CloseNow()
	again, j := w.comeBack(t, bob, bob.seq)
	if !j.GetMediaKept() {
		t.Error("the media was not kept")
	}
	again.until("slots", func(m *amphiv1.ServerMessage) bool {
		return len(m.GetSlots().GetSlots()) > 0 && m.GetSlots().GetSlots()[0].GetTrackId() == mic
	})
	again.until("interest", func(m *amphiv1.ServerMessage) bool {
		return m.GetInterest().GetTrackId() == "x" && m.GetInterest().GetMaxSpatial() == 1
	})
	old := room.endpoints[bob.self]
	if ans := again.offer(2, "v=0\r\n"); ans.GetNegotiated() == nil {
		t.Error(ans)
	}
	m.when(t, "the end of the first transport", func() bool { return old.closed && room.endpoints[bob.self] != old })
	to.Slots([]*amphiv1.Slot{{Mid: "late"}})
	room.endpoints[bob.self].to.Slots([]*amphiv1.Slot{{Mid: "new"}})
	s := again.until("slots", func(m *amphiv1.ServerMessage) bool { return m.GetSlots() != nil }).GetSlots()
	if s.GetSlots()[0].GetMid() != "new" || s.GetGeneration() != 2 {
		t.Errorf("slots %v", s)
	}
	room.endpoints[bob.self].to.Gone()
	m.when(t, "the end of the failed transport", func() bool { return room.endpoints[bob.self].closed })
}

// TestReloadedPageThatCountsAnew offers a second PeerConnection under the generation of the first.
func TestReloadedPageThatCountsAnew(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	w := newWorld(t, withMedia(m))
	ann := w.enter(t, "steward", "Ann")
	ann.offer(1, "v=0\r\na=fingerprint:sha-256 AA\r\n")
	first := m.rooms["hall"].endpoints[ann.self]
	ann.offer(1, "v=0\r\na=fingerprint:sha-256 AA\r\n")
	if first.closed || m.rooms["hall"].endpoints[ann.self] != first {
		t.Error("the second offer of one PeerConnection made another endpoint")
	}
	if ans := ann.offer(1, "v=0\r\na=fingerprint:sha-256 BB\r\n"); ans.GetNegotiated() == nil {
		t.Error(ans)
	}
	m.when(t, "another endpoint", func() bool { return first.closed && m.rooms["hall"].endpoints[ann.self] != first })
}

func TestBadOffersAreAnswered(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	w := newWorld(t, withMedia(m))
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "singer", "Bob")
	mic := ann.publish(audio, "mic", false)
	sections := "v=0\r\n" + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", 500)
	for _, tt := range []struct {
		sdp  string
		mids []string
		want proto.Code
	}{
		{"junk", nil, proto.SDPInvalid},
		{"", nil, proto.SDPInvalid},
		{"v=0\r\nrefuse", nil, proto.SDPInvalid},
		{sections, nil, proto.SDPTooLarge},
		{"v=0\r\n" + strings.Repeat("a=x\r\n", 14000), nil, proto.SDPTooLarge},
		{"v=0\r\n", []string{"0", mic}, proto.TrackNotFound},
		{"v=0\r\n", []string{"0", "tr_unknown"}, proto.TrackNotFound},
	} {
		if ans := bob.offer(1, tt.sdp, tt.mids...); ans.GetError().GetCode() != string(tt.want) {
			t.Errorf("an offer of %d bytes was answered %v, not %s", len(tt.sdp), ans, tt.want)
		}
	}
	undisturbed(t, ann, bob, "still here")
	n := &amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Negotiate{Negotiate: &amphiv1.Negotiate{Sdp: "v=0\r\n"}}}
	for range 30 {
		if typ, p := bob.raw(n); bob.sock.Write(context.Background(), typ, p) != nil {
			break
		}
	}
	if status, code := bob.ends(); status != 4003 || code != proto.RateLimited {
		t.Errorf("closed with %d %s", status, code)
	}
}

// TestEngineAnswersItsCodes joins with the real engine: what it refuses has its code.
func TestEngineAnswersItsCodes(t *testing.T) {
	t.Parallel()
	e, err := media.New(media.Config{UDPAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { defer close(over); _ = e.Run(ctx) }()
	t.Cleanup(func() { stop(); <-over })
	w := newWorld(t, withMedia(Engine(e)))
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "singer", "Bob")
	many := chromeOffer + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:9\r\n", 100)
	for sdp, want := range map[string]proto.Code{"v=0\r\njunk": proto.SDPInvalid, "v=0\r\n": proto.SDPInvalid, many: proto.SDPTooLarge} {
		if ans := bob.offer(1, sdp); ans.GetError().GetCode() != string(want) {
			t.Errorf("answered %v, not %s", ans, want)
		}
	}
	mic := bob.publish(audio, "mic", false)
	ans := bob.offer(1, chromeOffer, "0", mic)
	if !strings.Contains(ans.GetNegotiated().GetSdp(), "a=recvonly") {
		t.Errorf("answered %v", ans)
	}
	undisturbed(t, ann, bob, "still here")
}

const chromeOffer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n" +
	"a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=ice-options:trickle\r\n" +
	"a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n" +
	"a=setup:actpass\r\na=mid:0\r\na=sendonly\r\na=msid:s t\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=ssrc:1 cname:x\r\n"

// post does a WHIP or WHEP request.
func (w *world) post(t *testing.T, path, tok, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/sdp")
	req.Header.Set("Authorization", "Bearer "+tok)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestWHIPAndWHEP(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	m.offers = []Section{{Mid: "0", Kind: audio, Sends: true}, {Mid: "1", Kind: video, Sends: true}}
	w := newWorld(t, withMedia(m))
	ann := w.enter(t, "steward", "Ann")
	annMic, annCam := ann.publish(audio, "mic", false), ann.publish(video, "camera", false)
	ann.offer(1, "v=0\r\n", "0", annMic, "1", annCam)
	room := m.rooms["hall"]
	res, sdp := w.post(t, "/v1/whip/hall", token(t, "singer"), "v=0\r\n")
	if res.StatusCode != http.StatusCreated || sdp != "v=0 answer" || res.Header.Get("Content-Type") != "application/sdp" {
		t.Fatalf("%d %s", res.StatusCode, sdp)
	}
	obs := ann.event("the publisher", func(e *amphiv1.Event) bool { return e.GetPeerJoined() != nil }).GetPeerJoined().GetPeer()
	obsMic := ann.event("its audio", func(e *amphiv1.Event) bool { return e.GetTrackPublished().GetTrack().GetSource() == "mic" }).GetTrackPublished().GetTrack().GetId()
	obsCam := ann.event("its video", func(e *amphiv1.Event) bool { return e.GetTrackPublished().GetTrack().GetSource() == "camera" }).GetTrackPublished().GetTrack().GetId()
	m.when(t, "its endpoint", func() bool { return len(room.endpoints[obs.GetId()].published) == 2 })

	play, _ := w.post(t, "/v1/whep/hall", token(t, "gallery"), "v=0\r\n")
	viewer := ann.event("the player", func(e *amphiv1.Event) bool { return e.GetPeerJoined() != nil }).GetPeerJoined().GetPeer().GetId()
	receives := func(want ...string) func() bool {
		slices.Sort(want)
		return func() bool { return slices.Equal(room.endpoints[viewer].subscribed(), want) }
	}
	if play.StatusCode != http.StatusCreated {
		t.Fatal(play.Status)
	}
	m.when(t, "the first on stage", receives(annMic, annCam))
	room.speakers([]Speaking{{obsMic, -30}, {annMic, -40}})
	m.when(t, "the speaker", receives(obsMic, obsCam))
	room.speakers(nil)
	room.speakers([]Speaking{{annMic, -40}})
	m.when(t, "the next speaker", receives(annMic, annCam))

	one, _ := w.post(t, "/v1/whep/hall?track="+obsCam, token(t, "gallery"), "v=0\r\n")
	single := ann.event("the player of one track", func(e *amphiv1.Event) bool { return e.GetPeerJoined() != nil }).GetPeerJoined().GetPeer().GetId()
	if one.StatusCode != http.StatusCreated {
		t.Fatal(one.Status)
	}
	m.when(t, "the one track", func() bool { return slices.Equal(room.endpoints[single].subscribed(), []string{obsCam}) })

	// It ends by DELETE, or when its media ends.
	req, _ := http.NewRequest(http.MethodDelete, w.url+res.Header.Get("Location"), nil)
	gone, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Body.Close()
	if gone.StatusCode != http.StatusOK {
		t.Error(gone.Status)
	}
	ann.event("the publisher leaving", func(e *amphiv1.Event) bool { return e.GetPeerLeft().GetPeerId() == obs.GetId() })
	room.endpoints[viewer].to.Gone()
	ann.event("the player leaving", func(e *amphiv1.Event) bool { return e.GetPeerLeft().GetPeerId() == viewer })
}

func TestWHIPRefusals(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	m.offers = []Section{{Mid: "0", Kind: audio, Sends: true}}
	w := newWorld(t, withMedia(m))
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	for name, tt := range map[string]struct {
		path, token, body string
		want              proto.Code
	}{
		"no token":        {"/v1/whip/hall", "x", "v=0\r\n", proto.Unauthenticated},
		"another room":    {"/v1/whip/closed", token(t, "singer"), "v=0\r\n", proto.PermissionDenied},
		"may not publish": {"/v1/whip/hall", token(t, "gallery"), "v=0\r\n", proto.PermissionDenied},
		"no WebRTC":       {"/v1/whep/hall", token(t, "field"), "v=0\r\n", proto.PermissionDenied},
		"no such track":   {"/v1/whep/hall?track=x", token(t, "gallery"), "v=0\r\n", proto.TrackNotFound},
		"junk":            {"/v1/whip/hall", token(t, "singer"), "junk", proto.SDPInvalid},
		"refused":         {"/v1/whip/hall", token(t, "singer"), "v=0\r\nrefuse", proto.SDPInvalid},
		"500 sections":    {"/v1/whip/hall", token(t, "singer"), "v=0\r\n" + strings.Repeat("m=audio 9 x 0\r\n", 500), proto.SDPTooLarge},
		"10 MB":           {"/v1/whip/hall", token(t, "singer"), "v=0\r\n" + strings.Repeat("x", 10<<20), proto.SDPTooLarge},
	} {
		res, body := w.post(t, tt.path, tt.token, tt.body)
		if res.StatusCode != tt.want.HTTPStatus() || !strings.Contains(body, `"`+string(tt.want)+`"`) {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	undisturbed(t, ann, bob, "still here")
	// Whoever was refused after joining has left again.
	rooms := w.Rooms(t.Context())
	if n := slices.Collect(maps.Values(rooms[0].GetPeersByLevel())); len(rooms) != 1 || len(rooms[0].GetPeers()) != 2 {
		t.Errorf("%v, %v", n, rooms)
	}
}

// TestEncryptedRoom: what would have to read media is refused on every way into the room; people come and publish.
func TestEncryptedRoom(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	m.offers = []Section{{Mid: "0", Kind: audio, Sends: true, Receives: true}}
	origin := &fakeStreams{diary: newDiary()}
	w := newWorld(t, withMedia(m), func(_ *Config, d *Deps) {
		d.Streams = origin
		d.Registry.(*fakeRegistry).reg.Templates["concert"].EndToEndEncrypted = true
	})
	ann := w.enter(t, "steward", "Ann")
	if mic := ann.publish(audio, "mic", false); mic == "" {
		t.Error("nothing published")
	}
	for path, role := range map[string]string{"/v1/whip/hall": "singer", "/v1/whep/hall": "gallery"} {
		res, body := w.post(t, path, token(t, role), "v=0\r\n")
		if res.StatusCode != proto.EncryptedRoom.HTTPStatus() || !strings.Contains(body, `"encrypted_room"`) {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	if ans := ann.do(control(amphiv1.ControlStream_ACTION_START, 0)); ans.GetError().GetCode() != string(proto.EncryptedRoom) {
		t.Errorf("a stream was answered %v", ans)
	}
	undisturbed(t, ann, w.enter(t, "gallery", "Bob"), "still here")
	if peers := w.Rooms(t.Context())[0].GetPeers(); len(peers) != 2 || len(origin.lines) != 0 {
		t.Errorf("%v, %q", peers, origin.lines)
	}
}

func TestMaxKbps(t *testing.T) {
	t.Parallel()
	layer := func(kbps uint32) *amphiv1.SimulcastLayer { return &amphiv1.SimulcastLayer{MaxBitrateKbps: kbps} }
	for want, layers := range map[int][]*amphiv1.SimulcastLayer{
		0: nil, 1700: {layer(1200), layer(400), layer(100)}, 500: {layer(500)},
	} {
		if got := maxKbps(layers); got != want {
			t.Errorf("%v: %d, want %d", layers, got, want)
		}
	}
	if got := maxKbps([]*amphiv1.SimulcastLayer{layer(1200), layer(0)}); got != 0 {
		t.Errorf("with a layer without limit: %d", got)
	}
}
