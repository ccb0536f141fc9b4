package cascade

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
)

// TestGatewayBackEmpty: a gateway that was killed is back as a node that does not know the room yet, or knows it and has
// nothing to give: nobody turns to it before it has, and nobody notices when they do.
func TestGatewayBackEmpty(t *testing.T) {
	t.Parallel()
	for _, knows := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, "eu-1", "us-1", "us-2", "us-3")
			n.publish("eu-1", "cam", codec.Video, 2, 1000)
			n.publish("eu-1", "mic", codec.Audio, 1, 1<<33)
			tracks := []Track{camera("cam", "p"), microphone("mic", "p")}
			homes := map[string]string{"p": "eu-1"}
			p := n.update(nil, homes, tracks...)
			gateway := p.Gateways["us"].Node
			var viewers []string
			for id, x := range n.nodes {
				if x.region == "us" && id != gateway {
					viewers = append(viewers, id)
					x.media.track("cam").show(1)
					x.media.track("mic").show(0)
				}
			}
			wait(5 * time.Second)
			n.kill(gateway)
			wait(2 * time.Second)
			n.nodes[gateway].m.Close("room")
			n.heal(gateway)
			if knows { // but cannot get anything
				n.mu.Lock()
				n.cut = map[[2]string]bool{{"eu-1", gateway}: true}
				n.mu.Unlock()
				n.spreadTo(gateway, p, homes, tracks...)
			}
			before := map[string]uint64{}
			for _, id := range viewers {
				before[id] = n.nodes[id].m.Stats("").Reparented
			}
			wait(20 * time.Second)
			for _, id := range viewers {
				if turned := n.nodes[id].m.Stats("").Reparented - before[id]; turned > 0 {
					t.Errorf("%s turned %d times to a node with nothing to give, or from it", id, turned)
				}
			}
			n.mu.Lock()
			n.cut = nil
			n.mu.Unlock()
			n.spreadTo(gateway, p, homes, tracks...)
			wait(10 * time.Second)
			for _, id := range viewers {
				for track, encodings := range map[string]int{"cam": 2, "mic": 1} {
					for i := range encodings {
						longest, err := gaps(n.nodes[id].media.history(track, i))
						if err != nil || longest > 600*time.Millisecond {
							t.Errorf("knows %v: %s, %s %d: %v without anything, %v", knows, id, track, i, longest, err)
						}
					}
				}
			}
			n.mu.Lock()
			n.copies = map[[2]string]map[sentPacket]int{}
			n.mu.Unlock()
			wait(2 * time.Second)
			for _, id := range viewers {
				if all, _ := n.sent(gateway, id); all == 0 {
					t.Errorf("knows %v: nothing comes to %s by the gateway again", knows, id)
				}
			}
		})
	}
}
