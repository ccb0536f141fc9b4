package cascade

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/cascade/plan"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

func TestAnotherGatewayTakesOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2", "us-3")
		n.publish("eu-1", "cam", codec.Video, 2, 1000)
		homes := map[string]string{"p": "eu-1"}
		p := n.update(nil, homes, camera("cam", "p"))
		before := p.Gateways["us"].Node
		for _, id := range []string{"us-1", "us-2", "us-3"} {
			n.nodes[id].media.track("cam").show(1)
		}
		wait(5 * time.Second)
		p = n.updateWith(p, homes, map[string]uint8{before: 200}, camera("cam", "p"))
		after := p.Gateways["us"].Node
		if after == before {
			t.Fatal("the plan is as before")
		}
		wait(5 * time.Second)
		for _, id := range []string{"us-1", "us-2", "us-3"} {
			for i := range 2 {
				longest, err := gaps(n.nodes[id].media.history("cam", i))
				if err != nil || longest > 150*time.Millisecond {
					t.Errorf("%s, encoding %d: %v without anything, %v", id, i, longest, err)
				}
				t.Logf("%s, encoding %d: %v without anything", id, i, longest)
			}
		}
		n.mu.Lock()
		n.copies, n.bytes = map[[2]string]map[sentPacket]int{}, map[[2]string]int{}
		n.mu.Unlock()
		wait(2 * time.Second)
		for _, id := range []string{"us-1", "us-2", "us-3"} {
			if all, _ := n.sent("eu-1", id); (all > 0) != (id == after) {
				t.Errorf("%d packets from eu-1 to %s, the gateway is %s", all, id, after)
			}
		}
	})
}

func TestPublisherMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "eu-2", "us-1", "us-2")
		old := n.publish("eu-1", "cam", codec.Video, 2, 1<<40)
		mic := n.publish("eu-1", "mic", codec.Audio, 1, 1000)
		tracks := []Track{camera("cam", "p"), microphone("mic", "p")}
		p := n.update(nil, map[string]string{"p": "eu-1"}, tracks...)
		for _, id := range []string{"us-1", "us-2"} {
			n.nodes[id].media.track("cam").show(1)
			n.nodes[id].media.track("mic").show(0)
		}
		wait(5 * time.Second)
		// It appears at its new home first, then everybody hears of it, then the old one ends.
		n.publish("eu-2", "cam", codec.Video, 2, 70_000)
		n.publish("eu-2", "mic", codec.Audio, 1, 5)
		wait(50 * time.Millisecond)
		n.update(p, map[string]string{"p": "eu-2"}, tracks...)
		wait(500 * time.Millisecond)
		old.end()
		mic.end()
		wait(3 * time.Second)
		for _, id := range []string{"us-1", "us-2"} {
			for track, encodings := range map[string]int{"cam": 2, "mic": 1} {
				for i := range encodings {
					list := n.nodes[id].media.history(track, i)
					var generations [3][]arrived
					longest := time.Duration(0)
					for k, a := range list {
						generations[min(a.generation, 2)] = append(generations[min(a.generation, 2)], a)
						if k > 0 {
							longest = max(longest, a.at-list[k-1].at)
						}
					}
					for g := range 2 {
						if _, err := gaps(generations[g]); err != nil {
							t.Errorf("%s, %s %d, generation %d: %v", id, track, i, g, err)
						}
					}
					t.Logf("%s, %s %d: %v without anything", id, track, i, longest)
					if len(generations[2]) > 0 || longest > 100*time.Millisecond {
						t.Errorf("%s, %s %d: %v without anything, %d packets of a third generation", id, track, i, longest, len(generations[2]))
					}
					if last := list[len(list)-1]; last.generation != 1 || time.Duration(n.nodes[id].media.Now())-last.at > 200*time.Millisecond {
						t.Errorf("%s, %s %d: nothing comes any more", id, track, i)
					}
				}
			}
		}
	})
}

func TestPublishedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2")
		first := n.publish("eu-1", "cam", codec.Video, 1, 1<<40)
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		for _, id := range []string{"us-1", "us-2"} {
			n.nodes[id].media.track("cam").show(0)
		}
		wait(3 * time.Second)
		first.end()
		wait(100 * time.Millisecond)
		n.publish("eu-1", "cam", codec.Video, 1, 1000)
		wait(3 * time.Second)
		for _, id := range []string{"us-1", "us-2"} {
			list := n.nodes[id].media.history("cam", 0)
			if last := list[len(list)-1]; last.generation != 1 || time.Duration(n.nodes[id].media.Now())-last.at > 200*time.Millisecond {
				t.Errorf("%s: the newest packet is of generation %d, %v ago", id, last.generation, time.Duration(n.nodes[id].media.Now())-last.at)
			}
		}
	})
}

func TestSilentParent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2", "us-3")
		n.publish("eu-1", "cam", codec.Video, 2, 1000)
		p := n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		gateway, backup := p.Gateways["us"].Node, p.Gateways["us"].Backup
		for id, x := range n.nodes {
			if x.region == "us" && id != gateway {
				x.media.track("cam").show(1)
			}
		}
		wait(5 * time.Second)
		n.mu.Lock()
		n.deaf[gateway] = true // its trunks stay up
		n.mu.Unlock()
		wait(10 * time.Second)
		for id, x := range n.nodes {
			if x.region != "us" || id == gateway {
				continue
			}
			list := x.media.history("cam", 1)
			longest, _ := gaps(list)
			t.Logf("%s: %v without anything", id, longest)
			if longest > deafAfter+refresh+time.Second {
				t.Errorf("%s: %v without anything", id, longest)
			}
			if last := list[len(list)-1].at; time.Duration(x.media.Now())-last > 200*time.Millisecond {
				t.Errorf("%s: nothing comes any more", id)
			}
		}
		if all, _ := n.sent("eu-1", backup); all == 0 {
			t.Error("nothing comes by the backup")
		}
	})
}

// TestStalePlansMakeNoLoop gives nodes plans that do not fit each other.
func TestStalePlansMakeNoLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2", "us-3")
		n.publish("eu-1", "cam", codec.Video, 1, 1000)
		parents := map[string]string{"us-1": "us-2", "us-2": "us-3", "us-3": "us-1"}
		for id, x := range n.nodes {
			hops := []plan.Hop{{Node: "us-1", Parent: "eu-1", Backup: "eu-1"}, {Node: "us-2", Parent: "eu-1", Backup: "eu-1"}, {Node: "us-3", Parent: "eu-1", Backup: "eu-1"}}
			if parent := parents[id]; parent != "" {
				hops = []plan.Hop{{Node: parent, Parent: "eu-1", Backup: "eu-1"}, {Node: id, Parent: parent, Backup: "eu-1"}}
				for other := range parents {
					if other != id && other != parent {
						hops = append(hops, plan.Hop{Node: other, Parent: id, Backup: id})
					}
				}
			}
			p := &plan.Plan{Trees: []plan.Tree{{Home: "eu-1", Hops: hops}}}
			x.m.Update("room", plan.Encode(p, 1, map[string]string{"p": "eu-1"}), []Track{camera("cam", "p")})
		}
		for id := range parents {
			n.nodes[id].media.track("cam").show(0)
		}
		wait(8 * time.Second)
		total := 0
		for id := range parents {
			list := n.nodes[id].media.history("cam", 0)
			if len(list) == 0 || time.Duration(n.nodes[id].media.Now())-list[len(list)-1].at > 200*time.Millisecond {
				t.Errorf("%s gets nothing: %+v", id, n.nodes[id].m.Stats("room").Parents)
			}
			for other := range n.nodes {
				all, _ := n.sent(other, id)
				total += all
			}
		}
		if most := 3 * 50 * 8 * 2; total > most {
			t.Errorf("%d packets went round", total)
		}
	})
}

func TestKeyframeRequestsAreMerged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2", "us-3", "us-4", "us-5")
		cam := n.publish("eu-1", "cam", codec.Video, 1, 1000)
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		for id, x := range n.nodes {
			if id != "eu-1" {
				x.media.track("cam").show(0)
			}
		}
		wait(2 * time.Second)
		enc := cam.t.encodings[0]
		before := enc.requests
		for range 20 {
			for id, x := range n.nodes {
				if id != "eu-1" {
					x.media.track("cam").encodings[0].RequestKeyframe()
				}
			}
			wait(50 * time.Millisecond)
		}
		if asked := enc.requests - before; asked < 2 || asked > 6 {
			t.Errorf("the publisher was asked for %d keyframes in a second", asked)
		}
	})
}

func TestReportsTravelUnchanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "eu-1", "us-1", "us-2")
		cam := n.publish("eu-1", "cam", codec.Video, 1, 1000)
		n.update(nil, map[string]string{"p": "eu-1"}, camera("cam", "p"))
		n.nodes["us-1"].media.track("cam").show(0)
		n.nodes["us-2"].media.track("cam").show(0)
		wait(time.Second)
		want := packet.SenderReport{NTP: 0x1122334455667788, RTP: 99}
		f := n.nodes["eu-1"].media
		f.mu.Lock()
		for _, s := range cam.t.encodings[0].sinks {
			s.WriteSenderReport(want)
		}
		f.mu.Unlock()
		wait(time.Second)
		for _, id := range []string{"us-1", "us-2"} {
			if got := n.nodes[id].media.track("cam").reports; len(got) == 0 || got[0] != want {
				t.Errorf("%s got %+v", id, got)
			}
		}
	})
}
