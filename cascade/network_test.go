package cascade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cascade/plan"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// detection is how long trunks take to notice that a node is gone: 300 ms of silence and a probe.
const detection = 400 * time.Millisecond

// network joins nodes by trunks in memory, in virtual time.
type network struct {
	t     testing.TB
	ctx   context.Context
	wg    sync.WaitGroup
	nodes map[string]*testNode
	rtt   func(a, b string) time.Duration
	loss  float64

	mu     sync.Mutex // guards the fields below
	rand   *rand.Rand
	down   map[string]bool         // nodes
	cut    map[[2]string]bool      // ways by which nothing comes, though trunks are up
	deaf   map[string]bool         // nodes that neither answer nor send, though their trunks are up
	queues map[[2]string]chan item // messages, by pair
	copies map[[2]string]map[sentPacket]int
	bytes  map[[2]string]int
}

type item struct {
	due time.Time
	msg []byte
}

// sentPacket is a packet, whatever its label.
type sentPacket struct {
	track    string
	encoding int
	ext      uint64
}

type testNode struct {
	id, region string
	m          *Manager
	media      *fakeMedia
	stop       context.CancelFunc
}

// newNetwork makes nodes called region-number, all trunks up, 80 ms between regions and 2 ms within.
func newNetwork(t testing.TB, ids ...string) *network {
	ctx, cancel := context.WithCancel(context.Background())
	n := &network{
		t: t, ctx: ctx, nodes: map[string]*testNode{}, rand: rand.New(rand.NewPCG(1, 2)), down: map[string]bool{}, deaf: map[string]bool{},
		queues: map[[2]string]chan item{}, copies: map[[2]string]map[sentPacket]int{}, bytes: map[[2]string]int{},
	}
	n.rtt = func(a, b string) time.Duration {
		if region(a) == region(b) {
			return 2 * time.Millisecond
		}
		return 80 * time.Millisecond
	}
	t.Cleanup(func() {
		cancel()
		n.wg.Wait()
		for _, x := range n.nodes {
			x.media.release()
			if live := x.media.pool.Live(); live != 0 {
				t.Errorf("%s keeps %d packets", x.id, live)
			}
		}
	})
	for _, id := range ids {
		x := &testNode{id: id, region: region(id), media: newFakeMedia()}
		x.m = New(Config{Node: id}, x.media, &fakeTrunks{n, id})
		n.nodes[id] = x
		ctx, stop := context.WithCancel(ctx)
		x.stop = stop
		n.wg.Go(func() {
			if err := x.m.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		n.wg.Go(func() { x.media.run(n.ctx.Done()) })
	}
	for _, a := range ids {
		for _, b := range ids {
			if a != b {
				q := make(chan item, 10_000)
				n.queues[[2]string{a, b}] = q
				n.wg.Go(func() { n.deliver(a, b, q) })
				n.nodes[a].m.TrunkUp(b)
			}
		}
	}
	return n
}

func region(id string) string { return id[:2] }

// deliver hands messages over in order, each when it is due.
func (n *network) deliver(from, to string, q chan item) {
	for {
		select {
		case <-n.ctx.Done():
			return
		case it := <-q:
			if !n.pause(time.Until(it.due)) {
				return
			}
			if n.reaches(from, to) {
				n.nodes[to].m.TrunkMessage(from, it.msg)
			}
		}
	}
}

// pause waits; false at the end of the test.
func (n *network) pause(d time.Duration) bool {
	select {
	case <-n.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (n *network) reaches(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.down[from] && !n.down[to] && !n.deaf[from] && !n.cut[[2]string{from, to}]
}

// kill makes a node vanish; its neighbours notice a while later.
func (n *network) kill(id string) {
	n.mu.Lock()
	n.down[id] = true
	n.mu.Unlock()
	n.wg.Go(func() {
		if n.pause(detection) {
			n.mu.Lock()
			back := !n.down[id]
			n.mu.Unlock()
			for _, x := range n.nodes {
				if x.id != id && !back {
					x.m.TrunkDown(id, "no answer to probes")
				}
			}
		}
	})
}

// heal brings it back.
func (n *network) heal(id string) {
	n.mu.Lock()
	n.down[id] = false
	n.mu.Unlock()
	for _, x := range n.nodes {
		if x.id != id {
			n.nodes[id].m.TrunkDown(x.id, "it was away")
			n.nodes[id].m.TrunkUp(x.id)
			x.m.TrunkDown(id, "it was away")
			x.m.TrunkUp(id)
		}
	}
}

// fakeTrunks are those of one node.
type fakeTrunks struct {
	n  *network
	id string
}

func (f *fakeTrunks) Message(to string, msg []byte) error {
	q, ok := f.n.queues[[2]string{f.id, to}]
	if !ok || !f.n.reaches(f.id, to) {
		return errors.New("no trunk")
	}
	select {
	case q <- item{time.Now().Add(f.n.rtt(f.id, to) / 2), slices.Clone(msg)}:
		return nil
	default:
		return errors.New("queue is full")
	}
}

func (f *fakeTrunks) Send(to string, number uint32, ext uint64, _ Class, rtp []byte) {
	n := f.n
	if !n.reaches(f.id, to) {
		return
	}
	b := slices.Clone(rtp)
	half := n.rtt(f.id, to) / 2
	n.mu.Lock()
	lost := n.rand.Float64() < n.loss
	n.mu.Unlock()
	hand := func(b []byte) {
		if n.ctx.Err() == nil && n.reaches(f.id, to) {
			n.nodes[to].m.TrunkMedia(f.id, number, ext, b, n.nodes[to].media.Now())
		}
	}
	n.count(f.id, to, number, ext, len(b))
	if !lost {
		time.AfterFunc(half, func() { hand(b) })
		return
	}
	// The trunk asks for it again.
	time.AfterFunc(3*half, func() {
		if again := n.nodes[f.id].m.TrunkPacket(to, number, ext, nil); len(again) > 0 {
			hand(again)
		}
	})
}

// count notes a packet on the way from one node to another.
func (n *network) count(from, to string, number uint32, ext uint64, size int) {
	r := n.nodes[from].m.out.find(to, number)
	n.mu.Lock()
	defer n.mu.Unlock()
	key := [2]string{from, to}
	n.bytes[key] += size
	if r == nil {
		return
	}
	if n.copies[key] == nil {
		n.copies[key] = map[sentPacket]int{}
	}
	n.copies[key][sentPacket{r.track, r.encoding, ext}]++
}

// sent is how many packets went from one node to another, and how many different ones.
func (n *network) sent(from, to string) (all, different int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range n.copies[[2]string{from, to}] {
		all += k
		different++
	}
	return all, different
}

// update gives all nodes a plan with these homes by peer, and tracks of peers by their ids.
func (n *network) update(before *plan.Plan, homes map[string]string, tracks ...Track) *plan.Plan {
	return n.updateWith(before, homes, nil, tracks...)
}

// updateWith does so with loads of nodes.
func (n *network) updateWith(before *plan.Plan, homes map[string]string, load map[string]uint8, tracks ...Track) *plan.Plan {
	in := plan.Input{RTT: n.rtt, Before: before, Now: time.Hour * 24}
	if before != nil {
		in.Now += time.Hour
	}
	for _, x := range n.nodes {
		n.mu.Lock()
		down := n.down[x.id]
		n.mu.Unlock()
		if !down {
			in.Nodes = append(in.Nodes, plan.Node{ID: x.id, Region: x.region, Relay: true, Load: load[x.id]})
		}
	}
	for _, h := range homes {
		in.Homes = append(in.Homes, h)
	}
	p := plan.Make(in)
	n.spread(plan.Encode(p, 1, homes), tracks...)
	return p
}

func (n *network) spread(p *amphiv1.RelayPlan, tracks ...Track) {
	for _, x := range n.nodes {
		x.m.Update("room", p, tracks)
	}
}

// spreadTo gives one node a plan, as it hears of a room.
func (n *network) spreadTo(node string, p *plan.Plan, homes map[string]string, tracks ...Track) {
	n.nodes[node].m.Update("room", plan.Encode(p, 1, homes), tracks)
}

// publisher sends what is wanted of a track, 50 frames per second.
type publisher struct {
	t    *fakeTrack
	ext  []uint64
	stop chan struct{}
	once sync.Once
}

// perFrame is how many packets a frame of an encoding has.
func perFrame(kind codec.Kind, encoding int) int {
	if kind == codec.Audio {
		return 1
	}
	return encoding + 1
}

// publish sends a track from a node, with numbers that begin at first.
func (n *network) publish(node, id string, kind codec.Kind, encodings int, first uint64) *publisher {
	p := &publisher{t: n.nodes[node].media.publish(id, kind, encodings), stop: make(chan struct{})}
	for range encodings {
		p.ext = append(p.ext, first)
	}
	n.wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for frame := uint32(0); ; frame++ {
			select {
			case <-n.ctx.Done():
				return
			case <-p.stop:
				return
			case <-tick.C:
				p.frame(frame)
			}
		}
	})
	return p
}

func (p *publisher) end() { p.once.Do(func() { close(p.stop) }) }

func (p *publisher) frame(number uint32) {
	f := p.t.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tracks[p.t.id] != p.t {
		return // it was published again, or elsewhere
	}
	for i, e := range p.t.encodings {
		if i > p.t.told {
			e.wanted = true // it begins with a keyframe
			continue
		}
		key := e.wanted || number%150 == 0
		e.wanted = false
		count := perFrame(p.t.kind, i)
		for k := range count {
			q := f.pool.Get()
			b := q.Buffer()[:200]
			b[0] = 'd'
			if p.t.kind == codec.Audio || key && k == 0 {
				b[0] = 'K'
			}
			binary.BigEndian.PutUint64(b[1:], p.ext[i])
			binary.BigEndian.PutUint64(b[9:], uint64(time.Since(f.start)))
			q.Payload, q.ExtSeq, q.Timestamp, q.ArrivalNS = b, p.ext[i], number*1800, int64(time.Since(f.start))
			q.PayloadType, q.Marker, q.Keyframe = 96, k == count-1, b[0] == 'K'
			if p.t.kind == codec.Audio {
				q.PayloadType, q.AudioLevel = 111, 30
			}
			e.writeLocked(q)
			q.Release()
			p.ext[i]++
		}
	}
}

// gaps checks that nothing is missing between the first and the last packet, and returns the longest time without any.
func gaps(list []arrived) (longest time.Duration, err error) {
	if len(list) == 0 {
		return 0, errors.New("nothing arrived")
	}
	seen := map[uint64]bool{}
	low, high := list[0].ext, uint64(0)
	for i, a := range list {
		if seen[a.ext] {
			return 0, fmt.Errorf("packet %d twice", a.ext)
		}
		seen[a.ext] = true
		low, high = min(low, a.ext), max(high, a.ext)
		if i > 0 {
			longest = max(longest, a.at-list[i-1].at)
		}
	}
	for ext := low; ext <= high; ext++ {
		if !seen[ext] {
			err = errors.Join(err, fmt.Errorf("packet %d is missing", ext))
		}
	}
	return longest, err
}

func camera(id, peer string) Track {
	return Track{ID: id, PeerID: peer, Kind: codec.Video, Source: "camera"}
}
func microphone(id, peer string) Track {
	return Track{ID: id, PeerID: peer, Kind: codec.Audio, Source: "mic"}
}

var _ packet.Sink = (*relay)(nil)
var _ packet.RelaySink = (*relay)(nil)
