package media

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/media/layer"
)

// sendWanted sends frames of the sources that the publisher was told to send, beginning with
// a keyframe after a pause, as browsers do.
func sendWanted(t testing.TB, c *client, id string, sources []*vp8Source) {
	paused := make([]bool, len(sources))
	every(t, 20*time.Millisecond, func() {
		wanted := c.observer.interested(id)
		for i, s := range sources {
			if i > wanted {
				paused[i] = true
				continue
			}
			if paused[i] || s.frames%50 == 0 {
				paused[i] = false
				s.keyframe.Store(true)
			}
			s.frame(t)
		}
	})
}

// within measures how long it takes until ok says true.
func within(t testing.TB, most time.Duration, what string, ok func() bool) {
	t.Helper()
	began := time.Now()
	eventually(t, what, ok)
	if took := time.Since(began); took > most && !raceDetector() {
		t.Errorf("%s: took %v", what, took)
	} else {
		t.Logf("%s: %v", what, took)
	}
}

func TestOnlyWantedLayersAreSent(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	p, sources := publishSimulcast(t, r, "cam")
	sendWanted(t, p, "cam", sources)
	eventually(t, "all is there at first", func() bool { return len(r.UpTrack("cam").Encodings()) == 3 })
	interest := func(n int) func() bool { return func() bool { return p.observer.interested("cam") == n } }
	within(t, 3*time.Second, "without viewers it stops", interest(-1))

	c := newClient(t, r, "subscriber", clientOptions{plain: true})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	rec := c.section("0")
	show := func(w, h int) {
		c.ep.Subscribe([]Subscription{{TrackID: "cam", MaxWidth: w, MaxHeight: h, MaxSpatial: -1}})
	}
	show(320, 180)
	within(t, time.Second, "a viewer has it sent", func() bool { return rec.count() > 0 })
	eventually(t, "in its size", currentSpatial(c, 0))
	if n := p.observer.interested("cam"); n != 0 {
		t.Fatalf("layers up to %d are wanted for a small picture", n)
	}
	show(1280, 720)
	within(t, time.Second, "the top layer comes", func() bool {
		d := c.ep.Stats().DownTracks
		return currentSpatial(c, 2)() && d[0].Reason == ReasonOK && r.UpTrack("cam").Stats().Wanted >= 2
	})
	if n := r.UpTrack("cam").Encodings()[2].gate.Count(); n > 1 {
		t.Errorf("%d keyframes of the top layer were asked for", n)
	}
	show(320, 180)
	eventually(t, "the small one again", currentSpatial(c, 0))
	within(t, 3*time.Second, "the others stop", interest(0))
	show(0, 0)
	within(t, 3*time.Second, "hidden, all stops", interest(-1))
	eventually(t, "really", func() bool { return !r.UpTrack("cam").at(0).live(e.now()) })
	before := rec.count()
	show(320, 180)
	within(t, time.Second, "it is back", func() bool { return rec.count() > before })
	show(1280, 720)
	eventually(t, "and large", currentSpatial(c, 2))
	c.ep.Close()
	within(t, 3*time.Second, "the viewer left", interest(-1))
	continuous(t, rec.all())
	checkVP8(t, rec.all())
	p.observer.mu.Lock()
	defer p.observer.mu.Unlock()
	if p.observer.told > 12 {
		t.Errorf("told %d times", p.observer.told)
	}
}

func TestSinksAndSizesAreInterest(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	p, sources := publishSimulcast(t, r, "cam")
	sendWanted(t, p, "cam", sources)
	eventually(t, "all is there at first", func() bool { return len(r.UpTrack("cam").Encodings()) == 3 })
	u := r.UpTrack("cam")
	interest := func(n int) func() bool { return func() bool { return p.observer.interested("cam") == n } }
	s := &testSink{}
	defer s.release()
	u.Encodings()[1].Attach(s)
	eventually(t, "what a sink is attached to is sent", interest(1))
	u.Want(s, 100, 100)
	u.Encodings()[1].Detach(s)
	eventually(t, "what a size needs is sent", interest(0))
	u.Want(s, 4000, 3000)
	eventually(t, "all is sent where nothing is enough", interest(3))
	u.Want(s, 0, 0)
	eventually(t, "nothing is sent for nobody", interest(-1))
}

// A publisher that does not listen is forwarded as ever.
func TestInterestMayBeIgnored(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	p, sources := publishSimulcast(t, r, "cam")
	sendAll(t, sources, 20*time.Millisecond)
	eventually(t, "nobody wants it", func() bool { return p.observer.interested("cam") == -1 })
	c := newClient(t, r, "subscriber", clientOptions{plain: true})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	rec := c.section("0")
	subscribeAll(c.ep, "cam")
	eventually(t, "the top layer is forwarded", currentSpatial(c, 2))
	c.ep.Subscribe([]Subscription{{TrackID: "cam", MaxWidth: 300, MaxHeight: 150, MaxSpatial: -1}})
	eventually(t, "the lowest layer is forwarded", currentSpatial(c, 0))
	eventually(t, "that is for its size", func() bool { return c.ep.Stats().DownTracks[0].Reason == ReasonSize })
	continuous(t, rec.all())
	checkVP8(t, rec.all())
}

// talker is a microphone that is sent a packet of each 20 ms.
type talker struct {
	write   func(*rtp.Packet) error
	levelID uint8
	level   atomic.Uint32
	silent  atomic.Int32 // packets since it was spoken into
	sent    atomic.Uint32
}

func publishMic(t testing.TB, r *Router, id string) *talker {
	t.Helper()
	c := newClient(t, r, "publisher-"+id, clientOptions{})
	c.publishes = "mic"
	local, tr := c.send(webrtc.MimeTypeOpus)
	c.negotiate(map[*webrtc.RTPTransceiver]string{tr: id})
	c.connected()
	m := &talker{write: local.WriteRTP}
	for _, x := range tr.Sender().GetParameters().HeaderExtensions {
		if x.URI == "urn:ietf:params:rtp-hdrext:ssrc-audio-level" {
			m.levelID = uint8(x.ID)
		}
	}
	m.level.Store(110)
	return m
}

func (m *talker) send(t testing.TB) {
	p := opusPacket(uint16(m.sent.Load()))
	level := byte(m.level.Load())
	if err := p.SetExtension(m.levelID, []byte{level}); err != nil {
		t.Errorf("setting the level: %v", err)
	}
	if err := m.write(p); err != nil {
		t.Errorf("writing Opus: %v", err)
	}
	m.sent.Add(1)
	if level < 50 {
		m.silent.Store(0)
	} else {
		m.silent.Add(1)
	}
}

// opusNumber is that which opusPacket gave.
func opusNumber(p *rtp.Packet) uint16 { return uint16(p.Payload[1]) | uint16(p.Payload[2])<<8 }

func TestOnlyTheLoudestAreForwarded(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	r.SetLoudest(2)
	ids := []string{"a", "b", "c"}
	var mics []*talker
	for _, id := range ids {
		mics = append(mics, publishMic(t, r, id))
	}
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(3, 0)
	c.negotiate(nil)
	subscribeAll(c.ep, ids...)
	mics[0].level.Store(30)
	mics[1].level.Store(30)
	every(t, 20*time.Millisecond, func() {
		for _, m := range mics {
			m.send(t)
		}
	})
	at := func(id string) *received { // the section that carries the track
		d := c.ep.Stats().DownTracks
		i := slices.IndexFunc(d, func(d DownTrackStats) bool { return d.TrackID == id })
		return c.section(d[i].Mid)
	}
	reason := func(id string, want Reason) func() bool {
		return func() bool {
			return slices.ContainsFunc(c.ep.Stats().DownTracks, func(d DownTrackStats) bool { return d.TrackID == id && d.Reason == want })
		}
	}
	eventually(t, "two are forwarded", func() bool {
		return reason("a", ReasonOK)() && reason("b", ReasonOK)() && at("a").count() > 20 && at("b").count() > 20
	})
	eventually(t, "the third is not, and it is said why", reason("c", ReasonNotLoudest))
	sink := &testSink{}
	defer sink.release()
	r.UpTrack("c").at(0).Attach(sink)
	rec, silent := at("c"), at("c").count()
	eventually(t, "sinks get them all", func() bool { n, _ := sink.counts(); return n > 10 })
	if n := rec.count(); n != silent {
		t.Fatalf("%d packets of somebody who is silent", n-silent)
	}

	mics[0].level.Store(110) // a falls silent, and c speaks
	eventually(t, "a is silent for a while", func() bool { return mics[0].silent.Load() > 60 })
	first := uint16(mics[2].sent.Load())
	mics[2].level.Store(25)
	eventually(t, "c is heard", func() bool { return rec.count() > silent+20 })
	eventually(t, "a is not", reason("a", ReasonNotLoudest))
	all := rec.all()
	continuous(t, all)
	number := opusNumber(all[silent])
	if number > first+1 {
		t.Errorf("forwarding begins with packet %d, c began to speak with %d", number, first)
	}
	for i := silent + 1; i < len(all); i++ {
		if opusNumber(all[i]) != opusNumber(all[i-1])+1 || all[i].Timestamp != all[i-1].Timestamp+960 {
			t.Fatalf("packet %d at %d follows %d at %d", opusNumber(all[i]), all[i].Timestamp, opusNumber(all[i-1]), all[i-1].Timestamp)
		}
	}
	// Back to a: its own numbers go on.
	again := at("a").count()
	mics[2].level.Store(110)
	eventually(t, "c is silent for a while", func() bool { return mics[2].silent.Load() > 60 })
	mics[0].level.Store(25)
	eventually(t, "a is heard", func() bool { return at("a").count() > again+20 })
	recA := at("a").all()
	continuous(t, recA)
	for i := 1; i < len(recA); i++ { // whatever was left out, the clock is that of the microphone
		if got, want := recA[i].Timestamp-recA[0].Timestamp, 960*uint32(opusNumber(recA[i])-opusNumber(recA[0])); got != want {
			t.Fatalf("timestamp %d of packet %d, want %d", got, i, want)
		}
	}
	r.SetLoudest(0)
	eventually(t, "all are forwarded", func() bool { return reason("a", ReasonOK)() && reason("b", ReasonOK)() && reason("c", ReasonOK)() })
}

func TestReasonsOfSizeAndPreference(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, sources := publishSimulcast(t, r, "cam")
	sendAll(t, sources, 20*time.Millisecond)
	c := newClient(t, r, "subscriber", clientOptions{plain: true})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	for _, step := range []struct {
		w, max int
		want   Reason
		layer  layer.Layer
	}{{1280, -1, ReasonOK, layer.Layer{Spatial: 2}}, {640, -1, ReasonSize, layer.Layer{Spatial: 1}}, {1280, 0, ReasonPreference, layer.Layer{Spatial: 0}}} {
		c.ep.Subscribe([]Subscription{{TrackID: "cam", MaxWidth: step.w, MaxHeight: step.w * 9 / 16, MaxSpatial: step.max}})
		eventually(t, "the reason for the layer", func() bool {
			d := c.ep.Stats().DownTracks
			return len(d) == 1 && d[0].Current.Spatial == step.layer.Spatial && d[0].Reason == step.want
		})
	}
}

func TestWhoFellSilentWantsNothing(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{DisconnectedAfter: 500 * time.Millisecond, FailedAfter: time.Minute})
	r := e.Router("room")
	p, sources := publishSimulcast(t, r, "cam")
	sendWanted(t, p, "cam", sources)
	c := newClient(t, r, "subscriber", clientOptions{plain: true})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, "cam")
	eventually(t, "it is forwarded", currentSpatial(c, 2))
	c.pc.Close()
	eventually(t, "the client is missed", func() bool { return c.ep.State() == Disconnected || c.ep.State() == Failed })
	eventually(t, "nothing is sent for it", func() bool { return p.observer.interested("cam") == -1 })
}
