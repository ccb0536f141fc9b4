package cluster_test

import (
	"context"
	"slices"
	"testing"
	"time"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestThreeNodesFoundAClusterAndServe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ids := w.three()
	for _, id := range ids {
		w.propose(id, putRoom("room-"+id, "m"))
		w.node(id).Read(func(r *pb.Registry) {
			if r.GetRooms()["room-"+id] == nil {
				t.Errorf("%s cannot read what it was told", id)
			}
		})
	}
	p := w.owned("eu2.1", "room-eu1.1")
	if p.GetNode() != "eu2.1" || p.GetEpoch() != 1 || p.GetStandby() == "" {
		t.Errorf("placed at %v", p)
	}
	if got := voters(w.node("eu3.1").Status()); !slices.Equal(got, ids) {
		t.Errorf("voters %v", got)
	}
	if _, err := w.node("eu1.1").Owner("nowhere"); err == nil {
		t.Error("a room that is not there has an owner")
	}
}

func TestADeadOwnersRoomsGoToTheStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ids := w.three()
	w.propose("eu1.1", putRoom("r", ""))
	leader := w.leader()
	owner := ids[(slices.Index(ids, leader)+1)%3]
	p := w.owned(owner, "r")
	if p.GetNode() != owner {
		t.Fatalf("placed at %v", p)
	}
	w.kill(owner)
	until(t, w.wait, "the standby has the room", func() bool {
		got, err := w.node(leader).Owner("r")
		return err == nil && got.GetNode() == p.GetStandby() && got.GetEpoch() == 2
	})
	w.start(owner, 3)
	w.leased(owner)
	until(t, w.wait, "the room has a standby again", func() bool {
		got, err := w.node(owner).Owner("r")
		return err == nil && got.GetNode() == p.GetStandby() && got.GetStandby() != ""
	})
}

func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.three()
	leader := w.leader()
	w.kill(leader)
	begin := time.Now()
	if err := w.node(w.ids()[0]).Propose(context.Background(), putRoom("after", "")); err != nil {
		t.Fatal(err)
	}
	t.Logf("next commit after %v", time.Since(begin))
}
