package standby_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seeds is how many histories are tried: 60 make over 100,000 operations.
var seeds = flag.Int("seeds", 3, "how many histories of faults to try")

// op is one command of a client: a message, or a value of a key.
type op struct {
	text, key   string
	sent, acked time.Time // acked is zero while nobody knows
	id          uint64    // of the message, or the revision of the value
}

// history is what all clients did.
type history struct {
	mu  sync.Mutex // guards the field below
	ops []*op
}

func (h *history) add(o *op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// chat has a client on a node do one thing after the other until the sim's clients are told to stop. Where its node dies it
// comes back when there is one.
func (n *simNode) chat(h *history, over <-chan struct{}) {
	peer, at := "", (*witness)(nil)
	for i := 0; ; i++ {
		select {
		case <-over:
			return
		case <-time.After(n.delay(60)):
		}
		n.mu.Lock()
		r, w, alive := n.room, n.follower, n.alive
		n.mu.Unlock()
		if !alive {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
		if peer == "" || at != w {
			res, err := r.Call(ctx, "", &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Role: "one", Name: n.id}}})
			if err == nil {
				peer, at = res.GetJoin().GetPeer().GetId(), w
				w.add(peer)
			}
			cancel()
			continue
		}
		o := &op{text: fmt.Sprint(n.id, " ", i), sent: time.Now()}
		cmd := &amphiv1.Command{Body: &amphiv1.Command_Send{Send: &amphiv1.SendMessage{Text: o.text}}}
		if i%4 == 0 {
			value := fmt.Sprintf("%q", o.text)
			o.key = fmt.Sprint("k", i%3)
			cmd = &amphiv1.Command{Body: &amphiv1.Command_SetStore{SetStore: &amphiv1.SetStore{Key: o.key, Value: &value, Durable: i%8 == 0}}}
		}
		h.add(o)
		res, err := r.Call(ctx, peer, cmd)
		cancel()
		switch code := proto.CodeOf(err); {
		case err == nil:
			h.mu.Lock()
			o.acked, o.id = time.Now(), res.GetSend().GetId()+res.GetStore().GetRevision()
			h.mu.Unlock()
		case code == proto.NotJoined:
			peer = ""
		case !code.Retryable():
			n.t.Errorf("%s: %v", o.text, err)
		}
	}
}

// fault breaks something for a while.
func (s *sim) fault(kind int) string {
	s.mu.Lock()
	victim := s.nodes[s.rand.IntN(len(s.nodes))]
	if s.rand.IntN(2) == 0 {
		for _, n := range s.nodes {
			if n.id == s.placed.GetNode() {
				victim = n
			}
		}
	}
	other := s.nodes[s.rand.IntN(len(s.nodes))]
	lasting := time.Duration(200+s.rand.IntN(6000)) * time.Millisecond
	s.mu.Unlock()
	set := func(m map[string]bool, on bool, keys ...string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, k := range keys {
			m[k] = on
		}
	}
	var lines []string
	for _, n := range s.nodes {
		lines = append(lines, victim.id+">"+n.id, n.id+">"+victim.id)
	}
	name := ""
	switch kind % 6 {
	case 0:
		name = "kill " + victim.id
		victim.kill()
		<-time.After(lasting)
		// A node that starts anew knows nothing: it gets no lease before the registry has seen its new life, and has given the room
		// away or another epoch. That takes a quorum.
		for s.owns(victim) {
			<-time.After(50 * time.Millisecond)
		}
		victim.start()
	case 1:
		name = "isolate " + victim.id
		set(s.cut, true, lines...)
		set(s.unreachable, true, victim.id)
		<-time.After(lasting)
		set(s.cut, false, lines...)
		set(s.unreachable, false, victim.id)
	case 2:
		name = "cut " + victim.id + " and " + other.id
		pair := []string{victim.id + ">" + other.id, other.id + ">" + victim.id}
		set(s.cut, true, pair...)
		<-time.After(lasting)
		set(s.cut, false, pair...)
	case 3:
		name = "one way " + victim.id + " to " + other.id
		set(s.cut, true, victim.id+">"+other.id)
		<-time.After(lasting)
		set(s.cut, false, victim.id+">"+other.id)
	case 4:
		name = "pause " + victim.id
		set(s.paused, true, victim.id)
		set(s.unreachable, true, victim.id)
		<-time.After(lasting)
		set(s.paused, false, victim.id)
		set(s.unreachable, false, victim.id)
	case 5:
		name = "no quorum"
		var all []string
		for _, n := range s.nodes {
			all = append(all, n.id)
		}
		set(s.unreachable, true, append(all, "registry")...)
		<-time.After(lasting)
		set(s.unreachable, false, append(all, "registry")...)
	}
	return name
}

// owns tells whether the registry has a dead node as the room's owner, and takes it for dead.
func (s *sim) owns(n *simNode) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.placed.GetNode() != n.id {
		return false
	}
	s.renewed[n.id] = time.Time{}
	return true
}

// heal waits until the room has had an owner and a standby with the copy for a while: what the last fault set off is over.
func (s *sim) heal() {
	before, since := (*amphiv1.Placement)(nil), time.Now()
	for range 1200 {
		<-time.After(50 * time.Millisecond)
		s.mu.Lock()
		p := s.placed
		s.mu.Unlock()
		if p != before || p.GetStandby() == "" || !s.node(p.GetStandby()).keeper.Holds(theRoom, p.GetEpoch()+1) {
			before, since = p, time.Now()
		}
		if time.Since(since) > 2500*time.Millisecond {
			return
		}
	}
	s.t.Error("the room does not come to rest")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Logf("placed %v", s.placed)
	for _, n := range s.nodes {
		s.t.Logf("%s: alive %v, sees %v, lease for %v; owner %+v; replica %+v; standby %+v", n.id, n.alive, n.view, time.Until(n.lease),
			n.owner.Stats(), n.set.Stats(), n.keeper.Stats())
	}
}

// final is what every node knows in the end.
func (s *sim) final() *amphiv1.RoomState {
	var first *amphiv1.RoomState
	for _, n := range s.nodes {
		var st *amphiv1.RoomState
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := n.room.View(ctx, func(rep *room.Replica) { st = rep.Snapshot() }); err != nil {
			s.t.Errorf("%s: %v", n.id, err)
		}
		cancel()
		if first == nil {
			first = st
		} else if d := gocmp.Diff(first, st, protocmp.Transform()); d != "" {
			s.t.Errorf("%s and %s end with different rooms: %s", s.nodes[0].id, n.id, d)
		}
	}
	return first
}

// check compares what clients were told with what is there in the end.
func (h *history) check(t *testing.T, st *amphiv1.RoomState) (acked int) {
	t.Helper()
	ids := map[string]uint64{}
	for _, m := range st.GetMessages() {
		if ids[m.GetText()] != 0 {
			t.Errorf("%q is there twice", m.GetText())
		}
		ids[m.GetText()] = m.GetId()
	}
	store := map[string]*amphiv1.StoreEntry{}
	for _, e := range st.GetStore() {
		store[e.GetKey()] = e
	}
	var told []*op
	for _, o := range h.ops {
		switch {
		case o.acked.IsZero():
		case o.key == "" && ids[o.text] != o.id:
			t.Errorf("%q was acknowledged as %d at %v and is now %d", o.text, o.id, o.acked.Format("05.000"), ids[o.text])
		case o.key != "" && store[o.key].GetRevision() < o.id:
			t.Errorf("value %q of %s was acknowledged at revision %d, now it is %v", o.text, o.key, o.id, store[o.key])
		case o.key != "" && store[o.key].GetRevision() == o.id && store[o.key].GetValue() != fmt.Sprintf("%q", o.text):
			t.Errorf("revision %d of %s was %q, now it is %v", o.id, o.key, o.text, store[o.key])
		default:
			told = append(told, o)
		}
	}
	// What was acknowledged before something else was asked comes before it: messages by number, values by revision.
	slices.SortFunc(told, func(a, b *op) int { return a.sent.Compare(b.sent) })
	byAck := slices.Clone(told)
	slices.SortFunc(byAck, func(a, b *op) int { return a.acked.Compare(b.acked) })
	highest := map[string]*op{}
	n := 0
	for _, o := range told {
		for ; n < len(byAck) && byAck[n].acked.Before(o.sent); n++ {
			highest[byAck[n].key] = cmpMax(highest[byAck[n].key], byAck[n])
		}
		if before := highest[o.key]; before != nil && before.id >= o.id {
			t.Errorf("%q (%d) was acknowledged before %q (%d) was sent", before.text, before.id, o.text, o.id)
		}
	}
	return len(told)
}

func cmpMax(a, b *op) *op {
	if a == nil || cmp.Compare(a.id, b.id) < 0 {
		return b
	}
	return a
}

// TestNothingAcknowledgedIsLost has clients speak and write on four nodes while one thing after the other breaks: each time
// the room comes to rest before the next.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, uint64(seed), 4)
				h := &history{}
				over := make(chan struct{})
				var clients sync.WaitGroup
				for _, n := range s.nodes {
					clients.Go(func() { n.chat(h, over) })
				}
				s.heal()
				s.mu.Lock()
				s.loss = 0.01
				s.mu.Unlock()
				var faults []string
				for i := range 10 {
					faults = append(faults, s.fault(seed+i))
					s.heal()
				}
				close(over)
				clients.Wait()
				s.mu.Lock()
				s.loss = 0
				s.mu.Unlock()
				<-time.After(10 * time.Second)
				acked := h.check(t, s.final())
				if acked < 500 {
					t.Errorf("only %d of %d commands were acknowledged", acked, len(h.ops))
				}
				t.Logf("%d of %d acknowledged, %d epochs, %v", acked, len(h.ops), s.placed.GetEpoch(), faults)
				s.end()
			})
		})
	}
}

// TestRoomHealsFromAnything breaks several things at the same time, more than a standby makes up for: then what was
// acknowledged last may be lost, but nothing is done twice, nobody acts beside the owner, and all nodes end with one room.
func TestRoomHealsFromAnything(t *testing.T) {
	t.Parallel()
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 1000+uint64(seed), 5)
				h := &history{}
				over := make(chan struct{})
				var clients, faults sync.WaitGroup
				for _, n := range s.nodes {
					clients.Go(func() { n.chat(h, over) })
				}
				s.mu.Lock()
				s.loss = 0.05
				s.mu.Unlock()
				// Only one of them kills.
				for i := range 3 {
					faults.Go(func() {
						for k := range 12 {
							kind := 1 + (k+i+seed)%5
							if i == 0 && k%3 == 0 {
								kind = 0
							}
							s.fault(kind)
							<-time.After(s.delay(2000))
						}
					})
				}
				faults.Wait()
				s.mu.Lock()
				s.loss = 0
				clear(s.cut)
				clear(s.unreachable)
				clear(s.paused)
				s.mu.Unlock()
				s.heal()
				close(over)
				clients.Wait()
				<-time.After(10 * time.Second)
				st := s.final()
				texts := map[string]bool{}
				for _, m := range st.GetMessages() {
					if texts[m.GetText()] {
						t.Errorf("%q is there twice", m.GetText())
					}
					texts[m.GetText()] = true
				}
				t.Logf("%d commands, %d epochs, %d messages in the end", len(h.ops), s.placed.GetEpoch(), len(st.GetMessages()))
				s.end()
			})
		})
	}
}
