package cascade

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait lets virtual time pass.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestOneCopyOnEveryHop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "eu-2", "us-1", "us-2", "us-3")
		cam := n.publish("eu-1", "cam", codec.Video, 3, 1000)
		p := n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		gateway := p.Gateways["us"].Node
		wait(time.Second)
		if cam.t.interest() != -1 {
			t.Fatalf("nobody looks, and %d is sent", cam.t.interest())
		}
		for _, id := range []string{"us-1", "us-2", "us-3", "eu-2"} {
			track := n.nodes[id].media.track("cam")
			if track == nil || len(track.infos) != 3 || track.infos[2].Width != 1280 {
				t.Fatalf("%s knows %+v of the track", id, track)
			}
			track.show(1)
		}
		wait(10 * time.Second)
		for _, id := range []string{"us-1", "us-2", "us-3", "eu-2"} {
			for i := range 2 {
				if _, err := gaps(n.nodes[id].media.history("cam", i)); err != nil {
					t.Errorf("%s, encoding %d: %v", id, i, err)
				}
			}
			if h := n.nodes[id].media.history("cam", 2); len(h) != 0 {
				t.Errorf("%s has %d packets of a layer that nobody wants", id, len(h))
			}
		}
		for _, id := range []string{"us-1", "us-2", "us-3"} {
			all, different := n.sent("eu-1", id)
			if id != gateway && all != 0 || id == gateway && (all != different || all < 1000) {
				t.Errorf("from eu-1 to %s: %d packets, %d different", id, all, different)
			}
		}
		a, b := n.nodes["us-2"].media.history("cam", 1), n.nodes["eu-2"].media.history("cam", 1)
		if i := slices.IndexFunc(b, func(x arrived) bool { return x.ext == a[50].ext }); i < 0 || b[i].rtp != a[50].rtp {
			t.Error("packets that came by different ways differ")
		}
		for _, id := range []string{"us-1", "us-2", "us-3", "eu-2"} {
			n.nodes[id].media.track("cam").show(-1)
		}
		wait(2500 * time.Millisecond)
		before, _ := n.sent("eu-1", gateway)
		wait(500 * time.Millisecond)
		if after, _ := n.sent("eu-1", gateway); after != before || cam.t.interest() != -1 {
			t.Errorf("3 s after the last viewer left %d packets come, and %d is sent", after-before, cam.t.interest())
		}
	})
}

func TestLayerUpAcrossRegions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2")
		n.publish("eu-1", "cam", codec.Video, 3, 1000)
		p := n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		edge := p.Gateways["us"].Backup
		track := n.nodes[edge].media.track("cam")
		var took []time.Duration
		for i := range 20 {
			track.show(0)
			// It was let go of a moment ago, or longer.
			wait(2200*time.Millisecond + time.Duration(i)*147*time.Millisecond)
			at := time.Duration(n.nodes[edge].media.Now())
			track.show(2)
			wait(time.Second)
			list := n.nodes[edge].media.history("cam", 2)
			list = list[slices.IndexFunc(list, func(a arrived) bool { return a.at >= at }):]
			took = append(took, list[0].at-at)
			if first := slices.MinFunc(list, func(a, b arrived) int { return int(a.ext) - int(b.ext) }); !first.key {
				t.Errorf("the first of %d packets is no keyframe", len(list))
			}
		}
		if len(took) != 20 {
			t.Fatalf("%d of 20 times it came", len(took))
		}
		slices.Sort(took)
		t.Logf("a layer up over two hops, RTT 82 ms, first packet: median %v, 95 %% %v", took[10], took[18])
		if took[18] > 2*82*time.Millisecond+100*time.Millisecond {
			t.Errorf("95 %% took %v", took[18])
		}
	})
}

func TestGatewayKilled(t *testing.T) {
	t.Parallel()
	for _, loss := range []float64{0, 0.02} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, "eu-1", "us-1", "us-2", "us-3", "us-4")
			n.loss = loss
			n.publish("eu-1", "cam", codec.Video, 2, 1000)
			n.publish("eu-1", "mic", codec.Audio, 1, 1<<33)
			p := n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"), microphone("mic", "p"))
			gateway, backup := p.Gateways["us"].Node, p.Gateways["us"].Backup
			var viewers []string
			for id, x := range n.nodes {
				if x.region == "us" && id != gateway && id != backup { // the backup carries nothing yet
					viewers = append(viewers, id)
					x.media.track("cam").show(1)
					x.media.track("mic").show(0)
				}
			}
			wait(5*time.Second + 13*time.Millisecond)
			n.kill(gateway)
			wait(5 * time.Second)
			for _, id := range viewers {
				for track, encodings := range map[string]int{"cam": 2, "mic": 1} {
					for i := range encodings {
						list := n.nodes[id].media.history(track, i)
						longest, err := gaps(list)
						if err != nil && loss == 0 || longest > 600*time.Millisecond {
							t.Errorf("loss %v, %s, %s %d: %v without anything, %v", loss, id, track, i, longest, err)
						}
						t.Logf("loss %v, %s, %s %d: %v without anything", loss, id, track, i, longest)
						if last := list[len(list)-1].at; time.Duration(n.nodes[id].media.Now())-last > 200*time.Millisecond {
							t.Errorf("%s, %s %d: nothing comes any more", id, track, i)
						}
					}
				}
			}
			if got := n.nodes[viewers[0]].m.Stats("").Reparented; got != 1 {
				t.Errorf("%d changes of parents", got)
			}
			if all, different := n.sent("eu-1", backup); all > different*105/100 {
				t.Errorf("%d packets, %d different to the new gateway", all, different)
			}
			n.heal(gateway)
			wait(10 * time.Second)
			for _, id := range viewers {
				if longest, err := gaps(n.nodes[id].media.history("cam", 1)); err != nil && loss == 0 || longest > 600*time.Millisecond {
					t.Errorf("back again: %v without anything, %v", longest, err)
				}
			}
		})
	}
}
