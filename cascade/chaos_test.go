package cascade

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/cascade/plan"
	"github.com/amphi-sfu/amphi/media/codec"
)

// chaos is a room to which things happen.
type chaos struct {
	*network
	rand       *rand.Rand
	homes      map[string]string // by peer
	publishers map[string]*publisher
	shown      map[[2]string]int // by node and track
	plan       *plan.Plan
	ids        []string
	next       uint64
}

func (c *chaos) tracks() (list []Track) {
	for peer := range c.homes {
		list = append(list, camera("cam-"+peer, peer))
	}
	return list
}

func (c *chaos) replan() { c.plan = c.update(c.plan, c.homes, c.tracks()...) }

// move publishes a peer's track at a node, where it may have been before.
func (c *chaos) move(peer, node string) {
	old := c.publishers[peer]
	c.next += 1_000_003
	c.publishers[peer] = c.publish(node, "cam-"+peer, codec.Video, 2, c.next)
	c.homes[peer] = node
	c.wg.Go(func() {
		if c.pause(300*time.Millisecond) && old != nil {
			old.end()
			f := old.t.f
			f.mu.Lock()
			if f.tracks[old.t.id] == old.t {
				delete(f.tracks, old.t.id)
				for _, e := range old.t.encodings {
					e.rest()
				}
				f.changedLocked()
			}
			f.mu.Unlock()
		}
	})
}

func (c *chaos) show(node, track string, layer int) {
	c.shown[[2]string{node, track}] = layer
	if t := c.nodes[node].media.track(track); t != nil {
		t.show(layer)
	}
}

func (c *chaos) isHome(id string) bool {
	return slices.Contains(slices.Collect(maps.Values(c.homes)), id)
}

// step makes something happen.
func (c *chaos) step() string {
	id := c.ids[c.rand.IntN(len(c.ids))]
	peer := []string{"p", "q", "r"}[c.rand.IntN(3)]
	c.mu.Lock()
	down := c.down[id]
	c.mu.Unlock()
	switch k := c.rand.IntN(10); {
	case down:
		c.heal(id)
		c.replan()
		return id + " is back"
	case k < 2 && !c.isHome(id) && len(c.down) < 2:
		c.kill(id)
		c.wg.Go(func() { c.pause(time.Second) })
		return id + " dies"
	case k < 3:
		c.replan()
		return "a plan"
	case k < 4:
		c.move(peer, id)
		wait(20 * time.Millisecond)
		c.replan()
		return peer + " moves to " + id
	}
	layer := c.rand.IntN(3) - 1
	c.show(id, "cam-"+peer, layer)
	return fmt.Sprintf("%s shows %d of %s", id, layer, peer)
}

// state is what all nodes know of a track.
func (c *chaos) state(track string) (s string) {
	for _, id := range c.ids {
		m := c.nodes[id].m
		m.mu.Lock()
		r := m.rooms["room"]
		if in := r.intakes[track]; in != nil {
			s += fmt.Sprintf("\n%s: wants %d, generation %d, remote %v", id, in.interest, in.generation, in.remote != nil)
			if in.current != nil {
				s += fmt.Sprintf(", of %s generation %d, asked %d, first label %+v", in.current.node, in.current.generation, in.current.asked, in.current.labels[0])
			}
			s += fmt.Sprintf(", feed %s link %+v path %v", in.feed.home, in.feed.link, in.feed.path)
		} else {
			s += fmt.Sprintf("\n%s: published %+v", id, r.published[track])
		}
		for node, x := range r.serves[track] {
			s += fmt.Sprintf("; %s wants %d of generation %d, relay %v", node, x.max, x.generation, x.relays[0] != nil)
		}
		m.mu.Unlock()
	}
	return s
}

// settled checks that what is wanted comes, and nothing else.
func (c *chaos) settled(t *testing.T) {
	for peer, home := range c.homes {
		track := "cam-" + peer
		most := -1
		for _, id := range c.ids {
			layer, ok := c.shown[[2]string{id, track}]
			if !ok || id == home {
				continue
			}
			most = max(most, layer)
			f := c.nodes[id].media
			for i := range layer + 1 {
				list := f.history(track, i)
				if len(list) == 0 || time.Duration(f.Now())-list[len(list)-1].at > 300*time.Millisecond {
					t.Errorf("%s gets nothing of layer %d of %s from %s: %s", id, i, track, home, c.state(track))
				}
			}
		}
		if got := c.publishers[peer].t.interest(); got != max(most, c.shown[[2]string{home, track}]) && got != most {
			t.Errorf("%d of %s is sent, %d is wanted", got, track, most)
		}
	}
	for id, x := range c.nodes {
		x.m.mu.Lock()
		labels := 0
		for _, r := range x.m.rooms {
			for _, in := range r.intakes {
				if len(in.leaving) > 0 {
					t.Errorf("%s still has a former parent of %s", id, in.track.ID)
				}
				if in.current != nil {
					for _, l := range in.current.labels {
						if l != nil {
							labels++
						}
					}
				}
			}
		}
		relays := 0
		x.m.eachRelayLocked(func(*relay) { relays++ })
		if labels != len(x.m.in.labels) || relays != len(x.m.out.relays) {
			t.Errorf("%s has %d of %d labels in use, and %d of %d relays", id, labels, len(x.m.in.labels), relays, len(x.m.out.relays))
		}
		x.m.mu.Unlock()
	}
}

func TestChaos(t *testing.T) {
	t.Parallel()
	seeds := 4
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { runChaos(t, uint64(seed)) })
		})
	}
}

func runChaos(t *testing.T, seed uint64) {
	ids := []string{"eu-1", "eu-2", "eu-3", "us-1", "us-2", "us-3"}
	c := &chaos{
		network: newNetwork(t, ids...), rand: rand.New(rand.NewPCG(seed, 7)), ids: ids, homes: map[string]string{},
		publishers: map[string]*publisher{}, shown: map[[2]string]int{}, next: 1000,
	}
	c.loss = float64(seed%3) / 100
	for i, peer := range []string{"p", "q", "r"} {
		c.move(peer, ids[2*i])
	}
	c.replan()
	var log []string
	for range 60 {
		log = append(log, fmt.Sprintf("%v %s", time.Duration(c.nodes["eu-1"].media.Now()), c.step()))
		wait(time.Duration(50+c.rand.IntN(1500)) * time.Millisecond)
	}
	for _, id := range ids {
		c.mu.Lock()
		down := c.down[id]
		c.mu.Unlock()
		if down {
			c.heal(id)
		}
	}
	c.replan()
	wait(time.Second)
	for key, layer := range c.shown {
		c.show(key[0], key[1], layer)
	}
	wait(15 * time.Second)
	c.settled(t)
	if t.Failed() {
		for _, line := range log[max(0, len(log)-25):] {
			t.Log(line)
		}
	}
}
