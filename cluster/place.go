package cluster

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// placing is how many rooms are placed at the same time; they share entries' flushes.
const placing = 16

// placer gives rooms that nobody owns an owner, when somebody asks for them.
type placer struct {
	c     *Cluster
	ready chan struct{} // holds a token when something is wanted

	mu        sync.Mutex // guards the fields below
	wanted    []string
	busy      map[string]bool       // wanted, or being placed
	unsettled []*pb.RegistryCommand // handovers of which it is not known whether they were carried out
}

func newPlacer(c *Cluster) *placer {
	return &placer{c: c, ready: make(chan struct{}, 1), busy: map[string]bool{}}
}

func (p *placer) want(room string) {
	p.mu.Lock()
	if !p.busy[room] {
		p.busy[room] = true
		p.wanted = append(p.wanted, room)
	}
	p.mu.Unlock()
	p.wake()
}

func (p *placer) wake() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// settle repeats a handover until it is known what became of it.
func (p *placer) settle(cmd *pb.RegistryCommand) {
	p.mu.Lock()
	p.unsettled = append(p.unsettled, cmd)
	p.mu.Unlock()
	p.wake()
}

func (p *placer) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, placing)
	for {
		select {
		case <-p.ready:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		rooms, unsettled := p.wanted, p.unsettled
		p.wanted, p.unsettled = nil, nil
		p.mu.Unlock()
		for _, cmd := range unsettled {
			wg.Go(func() {
				for uncertain(p.c.Propose(ctx, cmd)) {
					if ctx.Err() != nil {
						return
					}
				}
				p.c.leave(cmd.GetMoveRooms(), -1)
			})
		}
		for _, room := range rooms {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				p.place(ctx, room)
				<-slots
			})
		}
	}
}

// place proposes once; when it is refused, somebody else was quicker, and who still wants to know asks again.
func (p *placer) place(ctx context.Context, room string) {
	defer func() {
		p.mu.Lock()
		delete(p.busy, room)
		p.mu.Unlock()
	}()
	var epoch uint64
	var region string
	p.c.Read(func(r *pb.Registry) {
		epoch, region = r.GetPlacements()[room].GetEpoch(), r.GetRooms()[room].GetRegion()
	})
	if region == "" {
		region = p.c.cfg.Node.GetRegion()
	}
	node, standby := registry.Choose(p.c.hosts(p.c.alive()), p.c.id, region)
	if node == "" {
		return
	}
	err := p.c.Propose(ctx, &pb.RegistryCommand{Body: &pb.RegistryCommand_PlaceRoom{PlaceRoom: &pb.PlaceRoom{
		Room: room, Node: node, Standby: standby, IfEpoch: epoch,
	}}})
	if err != nil && proto.CodeOf(err) != proto.Conflict && ctx.Err() == nil {
		p.c.log.Warn("a room could not be placed", "room", room, "err", err)
	}
}

// alive are the living nodes by gossip.
func (c *Cluster) alive() map[string]Member {
	all := map[string]Member{}
	for _, m := range c.deps.Members() {
		all[m.ID] = m
	}
	return all
}

// hosts are the registered nodes among the living that terminate clients.
func (c *Cluster) hosts(alive map[string]Member) []registry.Host {
	var hosts []registry.Host
	for _, n := range c.Nodes() {
		m, lives := alive[n.GetId()]
		if !lives || n.GetDown() || !slices.ContainsFunc(n.GetRoles(), terminates) {
			continue
		}
		hosts = append(hosts, registry.Host{
			ID: n.GetId(), Region: n.GetRegion(), Zone: n.GetZone(), Load: m.Load, Draining: n.GetDrainUntilMs() != 0,
		})
	}
	return hosts
}

func terminates(role string) bool { return role == "stage" || role == "audience" }

func byID(a, b *pb.ClusterNode) int { return strings.Compare(a.GetId(), b.GetId()) }

// Handover gives this node's room, or with "" all its rooms, to their standbys or else to others, each at the next
// epoch. From when it is called this node decides for none of them, until it returns: with an error for what could not
// be moved and is still here. When it is not known whether they have moved, it goes on deciding for none until it is.
func (c *Cluster) Handover(ctx context.Context, room string) error {
	var move *pb.MoveRooms
	hosts := c.hosts(c.alive())
	c.Read(func(r *pb.Registry) { move = registry.Handover(r, c.id, room, hosts) })
	if len(move.GetRooms()) == 0 {
		return c.handedOver(room)
	}
	c.leave(move, 1)
	cmd := &pb.RegistryCommand{Id: rand.Text(), Body: &pb.RegistryCommand_MoveRooms{MoveRooms: move}}
	err := c.Propose(ctx, cmd)
	if uncertain(err) {
		c.placer.settle(cmd)
		return err
	}
	c.leave(move, -1)
	if err != nil {
		return err
	}
	return c.handedOver(room)
}

// uncertain tells whether the command may be carried out later.
func uncertain(err error) bool {
	code := proto.CodeOf(err)
	return code == proto.Unavailable || code == proto.Timeout
}

func (c *Cluster) handedOver(room string) error {
	left := 0
	c.Read(func(r *pb.Registry) {
		for key, p := range r.GetPlacements() {
			if p.GetNode() == c.id && (room == "" || key == registry.RoomKey(room)) {
				left++
			}
		}
	})
	if left > 0 {
		return proto.Errorf(proto.Unavailable, "there is no other node for %d rooms", left)
	}
	return nil
}

// leave adds to how often rooms are being handed over, and tells those who watch them.
func (c *Cluster) leave(move *pb.MoveRooms, by int) {
	c.mu.Lock()
	for _, p := range move.GetRooms() {
		if c.leaving[p.GetRoom()] += by; c.leaving[p.GetRoom()] == 0 {
			delete(c.leaving, p.GetRoom())
		}
	}
	c.mu.Unlock()
	for _, p := range move.GetRooms() {
		c.replica.watchers.tell(p.GetRoom())
	}
}

func (c *Cluster) isLeaving(room string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving[room] > 0
}
