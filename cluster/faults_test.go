package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// at waits until the room is at node, as asked sees it, and returns its placement.
func (w *world) at(asked, room, node string) *pb.Placement {
	w.t.Helper()
	var p *pb.Placement
	until(w.t, w.wait, room+" is at "+node, func() bool {
		got, err := w.node(asked).Owner(room)
		p = got
		return err == nil && got.GetNode() == node
	})
	return p
}

// follower is one that does not lead.
func (w *world) follower() string {
	leader := w.leader()
	ids := w.ids()
	return ids[(slices.Index(ids, leader)+1)%len(ids)]
}

// TestCutOffOwner: an owner that is cut off ceases to decide before anybody else begins; healed, it is registered anew
// and has lost the room.
func TestCutOffOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(cfg *cluster.NodeConfig) { cfg.ProposeTimeout = 2 * time.Second })
	ids := w.three()
	w.propose(ids[0], putRoom("r", ""))
	owner := w.follower()
	w.owned(owner, "r")
	w.at(owner, "r", owner)
	life := w.node(owner).Status().Incarnation
	var mu sync.Mutex
	told := 0
	w.node(owner).Watch(func(room string) {
		mu.Lock()
		defer mu.Unlock()
		if room == "" {
			told++
		}
	})
	w.net.isolate(owner, ids)

	until(t, w.wait, "the room has moved", func() bool {
		for _, id := range ids {
			p, err := w.node(id).Owner("r")
			if id != owner && err == nil && p.GetNode() != owner {

				return true
			}
		}
		return false
	})
	if w.node(owner).Leased() {
		t.Error("the node that is cut off still has a lease")
	}
	if p, err := w.node(owner).Owner("r"); err != nil || p.GetEpoch() != 1 {
		t.Errorf("it cannot know yet: %v, %v", p, err)
	}
	if code := proto.CodeOf(w.node(owner).Propose(context.Background(), putRoom("x", ""))); !code.Retryable() {
		t.Errorf("a command there: %q", code)
	}
	w.net.heal()
	healed := time.Now()
	w.leased(owner)
	t.Logf("it has a lease again %v after the cut was healed", time.Since(healed))
	if got := w.node(owner).Status().Incarnation; got <= life {
		t.Errorf("incarnation %d after %d", got, life)
	}
	if p := w.owned(owner, "r"); p.GetNode() == owner || p.GetEpoch() != 2 {
		t.Errorf("it has the room again: %v", p)
	}
	until(t, w.wait, "the watchers are told that the lease has ended and begun", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told >= 2
	})
}

// TestTheWayToTheLeaderIsCut: a node that only the leader does not hear renews its lease through another.
func TestTheWayToTheLeaderIsCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.three()
	x := w.start("eux.1", 0, "stage")
	w.leased("eux.1")
	life := x.Status().Incarnation
	leader := w.leader()
	w.net.set(true, way{"eux.1", leader}, way{leader, "eux.1"})
	for range 40 { // for some leases
		if got := x.Status().Incarnation; got != life {
			t.Fatalf("it was taken for dead: incarnation %d after %d", got, life)
		}
		pause(context.Background(), ttl/10)
	}
	w.leased("eux.1")
}

// TestHandover moves one room, then all, while the node lives: at no moment do two decide.
func TestHandover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ids := w.three()
	for i := range 5 {
		w.propose(ids[0], putRoom(fmt.Sprint("r", i), ""))
		w.owned(ids[0], fmt.Sprint("r", i))
	}
	m := w.node(ids[0])
	if err := m.Handover(context.Background(), "R3"); err != nil {
		t.Fatal(err)
	}
	if p, err := m.Owner("r3"); err != nil || p.GetNode() == ids[0] || p.GetEpoch() != 2 {
		t.Errorf("r3 is at %v, %v", p, err)
	}
	if p, err := m.Owner("r2"); err != nil || p.GetNode() != ids[0] {
		t.Errorf("r2 is at %v, %v", p, err)
	}
	if err := m.Drain(context.Background(), 1<<50); err != nil {
		t.Fatal(err)
	}
	if err := m.Handover(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	w.propose(ids[0], putRoom("new", ""))
	if p := w.owned(ids[0], "new"); p.GetNode() == ids[0] || p.GetStandby() == ids[0] {
		t.Errorf("a draining node has got a room or a copy: %v", p)
	}
	for i := range 5 {
		until(t, w.wait, "all rooms have moved, with a standby that stays", func() bool {
			p, err := m.Owner(fmt.Sprint("r", i))
			return err == nil && p.GetNode() != ids[0] && p.GetStandby() != "" && p.GetStandby() != ids[0]
		})
	}
	if err := m.Drain(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	w.propose(ids[0], putRoom("back", ""))
	if p := w.owned(ids[0], "back"); p.GetNode() != ids[0] {
		t.Errorf("after undrain the room is at %v", p)
	}
}

// TestStopping: a node that ends in peace gives away what it has at once, whether it leads or not.
func TestStopping(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ids := w.three()
	leader := w.leader()
	w.propose(leader, putRoom("r", ""))
	w.owned(leader, "r")
	w.at(leader, "r", leader)
	others := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == leader })
	began := time.Now()
	w.stop(leader)
	for _, id := range others {
		until(t, w.wait, "the room has moved", func() bool {
			p, err := w.node(id).Owner("r")
			return err == nil && p.GetNode() != leader && p.GetEpoch() == 2
		})
	}
	w.propose(others[0], putRoom("after", ""))
	t.Logf("room and leadership are elsewhere after %v", time.Since(began))
}

// TestNoQuorum: with two of three gone nobody decides and commands wait, what is known can be read; when one is back
// everything goes on, also what had to wait.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(cfg *cluster.NodeConfig) { cfg.ProposeTimeout = time.Minute })
	w.dir = t.TempDir()
	ids := w.three()
	w.propose(ids[0], putRoom("r", "before"))
	w.kill(ids[1])
	w.kill(ids[2])
	m := w.node(ids[0])
	until(t, w.wait, "the lease has run out", func() bool { return !m.Leased() })
	m.Read(func(r *pb.Registry) {
		if r.GetRooms()["r"].GetMetadata() != "before" {
			t.Error("the registry cannot be read")
		}
	})
	waits := make(chan error, 1)
	go func() { waits <- m.Propose(context.Background(), putRoom("r", "after")) }()
	pause(context.Background(), 3*ttl)
	select {
	case err := <-waits:
		t.Errorf("a command came back without a quorum: %v", err)
	default:
	}
	back := time.Now()
	w.start(ids[1], 3)
	if err := <-waits; err != nil {
		t.Error(err)
	}
	w.leased(ids[0], ids[1])
	t.Logf("normal %v after the second came back", time.Since(back))
}

// TestRestartOfAll: what was acknowledged is there when all nodes were killed at once and come back.
func TestRestartOfAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(cfg *cluster.NodeConfig) { cfg.SnapshotEntries = 20 })
	w.dir = t.TempDir()
	ids := w.three()
	for i := range 60 {
		w.propose(ids[i%3], putRoom(fmt.Sprint("r", i), "kept"))
	}
	epoch := w.owned(ids[0], "r7").GetEpoch()
	for _, id := range ids {
		w.kill(id)
	}
	for _, id := range ids {
		w.start(id, 3)
	}
	w.leased(ids...)
	w.node(ids[0]).Read(func(r *pb.Registry) {
		for i := range 60 {
			if r.GetRooms()[fmt.Sprint("r", i)].GetMetadata() != "kept" {
				t.Errorf("r%d is not there", i)
			}
		}
	})
	if p := w.owned(ids[0], "r7"); p.GetEpoch() <= epoch {
		t.Errorf("the owner remembers nothing, but goes on in epoch %d: %v", epoch, p)
	}
}

// TestNodesComeAndGo: a node without role voter gets the registry but no vote; a voter that comes late gets one, and
// takes the place of one that has died for good, without which the cluster would not survive another death.
func TestNodesComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(cfg *cluster.NodeConfig) { cfg.MaxVoters = 3 })
	ids := w.three()
	w.propose(ids[0], putRoom("r", ""))
	x := w.start("eux.1", 0, "stage")
	spare := w.start("eu4.1", 3)
	w.leased("eux.1", "eu4.1")
	x.Read(func(r *pb.Registry) {
		if r.GetRooms()["r"] == nil {
			t.Error("the new node has not got the registry")
		}
	})
	if got := voters(spare.Status()); !slices.Equal(got, ids) {
		t.Errorf("voters %v before anybody died", got)
	}
	dies := w.follower()
	for !slices.Contains(ids, dies) {
		dies = ids[0]
	}
	w.kill(dies)
	want := slices.Sorted(slices.Values(append(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == dies }), "eu4.1")))
	until(t, w.wait, "the spare has taken the vote of the dead one", func() bool { return slices.Equal(voters(w.node("eu4.1").Status()), want) })
	w.kill(w.leader())
	w.propose("eux.1", putRoom("after", ""))
}

// TestFounding: fewer than expected do not found a cluster, and one that comes with nothing joins the one that there is.
func TestFounding(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	// eu1.1 and eu2.1 see each other only; of three expected, so nothing happens until eu3.1 is there.
	w.start("eu1.1", 3)
	w.start("eu2.1", 3)
	pause(context.Background(), ttl)
	if s := w.node("eu1.1").Status(); s.Leader != "" || len(s.Servers) != 0 {
		t.Errorf("two of three have founded a cluster: %+v", s)
	}
	w.start("eu3.1", 3)
	w.leased("eu1.1", "eu2.1", "eu3.1")
	w.propose("eu1.1", putRoom("r", ""))
	again := w.follower()
	w.kill(again)
	m := w.start(again, 3) // its registry was in memory
	w.leased(again)
	m.Read(func(r *pb.Registry) {
		if r.GetRooms()["r"] == nil {
			t.Error("it is in another cluster")
		}
	})
}

// TestGarbage: what is no call of the registry, or another node's renewal, is refused and changes nothing.
func TestGarbage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ids := w.three()
	leader := w.leader()
	from := w.net.port(ids[(slices.Index(ids, leader)+1)%3])
	for name, msg := range map[string][]byte{
		"junk": []byte("\xff\xff\xff"), "nothing": nil,
		"another's renewal": encoded(t, &pb.RegistryCall{Body: &pb.RegistryCall_Renew{Renew: &pb.RenewLease{Node: leader, Incarnation: 1}}}),
		"a stale life":      encoded(t, &pb.RegistryCall{Body: &pb.RegistryCall_Renew{Renew: &pb.RenewLease{Node: from.id}}}),
		"a new cluster":     encoded(t, &pb.RegistryCall{Body: &pb.RegistryCall_Found{Found: &pb.Founding{Voters: []string{from.id, leader}}}}),
		"an empty command":  encoded(t, &pb.RegistryCall{Body: &pb.RegistryCall_Propose{}}),
	} {
		ctx, cancel := context.WithTimeout(context.Background(), w.wait)
		answer, err := from.Call(ctx, leader, cluster.KindRegistry, msg)
		cancel()
		if err != nil {
			continue
		}
		reply := decoded(t, answer)
		if reply.GetError() == nil {
			t.Errorf("%s was taken: %v", name, reply)
		}
	}
	w.leased(ids...)
}
