package cascade

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
)

func TestQuietMicrophonesStayAtHome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2")
		mic := n.publish("eu-1", "mic", codec.Audio, 1, 1000)
		n.update(nil, map[string]string{"p": "eu-1"}, microphone("mic", "p"))
		for _, id := range []string{"us-1", "us-2"} {
			n.nodes[id].media.track("mic").show(0)
		}
		wait(2 * time.Second)
		mic.t.quiet.Store(true)
		wait(100 * time.Millisecond)
		before := len(n.nodes["us-2"].media.history("mic", 0))
		wait(2 * time.Second)
		list := n.nodes["us-2"].media.history("mic", 0)
		if len(list) != before {
			t.Errorf("%d packets of a microphone that nobody is to hear", len(list)-before)
		}
		last := list[len(list)-1].ext
		mic.t.quiet.Store(false)
		f := n.nodes["eu-1"].media
		f.mu.Lock()
		next := mic.ext[0]
		f.mu.Unlock()
		wait(time.Second)
		list = n.nodes["us-2"].media.history("mic", 0)[before:]
		first := list[0].ext
		for _, a := range list {
			first = min(first, a.ext)
		}
		if first <= last || next-first > catchUpPackets || next-first < 2 {
			t.Errorf("it begins again with packet %d, %d was the next", first, next)
		}
		if _, err := gaps(list); err != nil {
			t.Error(err)
		}
		var label uint32
		home := n.nodes["eu-1"].m
		home.out.mu.RLock()
		for key := range home.out.relays {
			label = key.label
		}
		home.out.mu.RUnlock()
		if b := home.TrunkPacket("us-1", label, first-1, nil); len(b) != 0 {
			t.Error("what was left out is sent again")
		}
		if b := home.TrunkPacket("us-1", label, first, nil); len(b) == 0 {
			t.Error("what was sent is not to be had again")
		}
	})
}

func TestShedLabels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1")
		cam := n.publish("eu-1", "cam", codec.Video, 3, 1000)
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		n.nodes["us-1"].media.track("cam").show(2)
		wait(time.Second)
		home := n.nodes["eu-1"].m
		label := uint32(0)
		home.eachRelayLocked(func(r *relay) {
			if want := []Class{Base, MiddleSmall, TopSmall}[r.encoding]; Class(r.class.Load()) != want {
				t.Errorf("encoding %d is of class %d", r.encoding, r.class.Load())
			}
			if r.encoding == 2 {
				label = r.label
			}
		})
		home.Shed("us-1", label, true)
		home.Shed("us-1", 4711, true)
		if s := home.Stats("room").Relays[0]; s.Layer != 1 || s.Shed != 1 || s.Home != "eu-1" {
			t.Errorf("%+v", s)
		}
		asked := cam.t.encodings[2].requests
		home.Shed("us-1", label, false)
		if s := home.Stats("room").Relays[0]; s.Layer != 2 || s.Shed != 0 || cam.t.encodings[2].requests != asked+1 {
			t.Errorf("%+v, %d keyframes asked for", s, cam.t.encodings[2].requests-asked)
		}
		n.nodes["us-1"].media.track("cam").large.Store(true)
		wait(1200 * time.Millisecond)
		home.eachRelayLocked(func(r *relay) {
			if want := []Class{Base, MiddleLarge, TopLarge}[r.encoding]; Class(r.class.Load()) != want {
				t.Errorf("shown large, encoding %d is of class %d", r.encoding, r.class.Load())
			}
		})
	})
}

func TestReplayIsPacedAudioFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2")
		n.publish("eu-1", "cam", codec.Video, 3, 1000)
		n.publish("eu-1", "mic", codec.Audio, 1, 1000)
		p := n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"), microphone("mic", "p"))
		gateway, edge := p.Gateways["us"].Node, p.Gateways["us"].Backup
		n.nodes[edge].media.track("cam").show(2)
		n.nodes[edge].media.track("mic").show(0)
		wait(3 * time.Second)
		n.nodes["eu-1"].m.TrunkBudget(edge, 2_000_000) // of which a replay may take half
		n.kill(gateway)
		wait(detection - time.Millisecond)
		cut := time.Duration(n.nodes[edge].media.Now())
		wait(3 * time.Second)
		end := func(track string, encoding int) time.Duration { // when there was no more gap
			list := n.nodes[edge].media.history(track, encoding)
			if _, err := gaps(list); err != nil {
				t.Errorf("%s %d: %v", track, encoding, err)
			}
			for _, a := range list {
				if a.at > cut && a.at-a.sent < 100*time.Millisecond {
					return a.at - cut
				}
			}
			return time.Hour
		}
		audio, top := end("mic", 0), end("cam", 2)
		t.Logf("live again: audio after %v, the top layer after %v", audio, top)
		if audio > 150*time.Millisecond || top < audio+50*time.Millisecond || top > time.Second {
			t.Errorf("audio is live after %v, the top layer after %v", audio, top)
		}
	})
}
