package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/amphi-sfu/amphi/cluster/group"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

const (
	// attempt bounds one question to a leader: it may be dead without anybody having noticed.
	attempt = 2 * time.Second
	// pause is for how long a question waits for a leader to appear before it is put again.
	pause = 50 * time.Millisecond
	// maxCall bounds an encoded call.
	maxCall = maxEntry + 1024
)

var errNoLeader = proto.Errorf(proto.Unavailable, "the cluster has no leader now")

// askLeader puts a question to the leader until one answers: with its answer, a refusal with a code inside it, or the
// error that it has none.
func (c *Cluster) askLeader(ctx context.Context, call *pb.RegistryCall) (*pb.RegistryReply, error) {
	for {
		elected := c.nextLeader()
		reply, err := c.askOnce(ctx, elected, call)
		if err == nil && reply.GetError().GetCode() != string(proto.Unavailable) {
			return reply, nil
		}
		select {
		case <-elected:
		case <-time.After(pause):
		case <-ctx.Done():
			if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
				return nil, fmt.Errorf("%w (%w)", errNoLeader, err)
			}
			return nil, errNoLeader
		}
	}
}

// askOnce gives up when another leader is elected meanwhile.
func (c *Cluster) askOnce(ctx context.Context, elected <-chan struct{}, call *pb.RegistryCall) (*pb.RegistryReply, error) {
	if !c.running() {
		return nil, errNoLeader
	}
	to := c.group.Leader()
	if to == "" {
		return nil, errNoLeader
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	if to == c.id {
		return c.handle(ctx, c.id, call), nil
	}
	ctx, stop := withEnd(ctx, elected)
	defer stop()
	return c.call(ctx, to, call)
}

// withEnd is a context that ends with ctx, when end is closed, or by its function, which has to be called.
func withEnd(ctx context.Context, end <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-end:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (c *Cluster) call(ctx context.Context, to string, call *pb.RegistryCall) (*pb.RegistryReply, error) {
	msg, err := gproto.Marshal(call)
	if err != nil {
		return nil, fmt.Errorf("encoding a call: %w", err)
	}
	answer, err := c.deps.Peers.Call(ctx, to, KindRegistry, msg)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", to, err)
	}
	reply := &pb.RegistryReply{}
	if err := gproto.Unmarshal(answer, reply); err != nil {
		return nil, fmt.Errorf("decoding the answer of %s: %w", to, err)
	}
	return reply, nil
}

// answer is what another node's call is answered with.
func (c *Cluster) answer(ctx context.Context, from string, msg []byte) ([]byte, error) {
	if len(msg) > maxCall {
		return nil, fmt.Errorf("a registry call of %d bytes is too long", len(msg))
	}
	call := &pb.RegistryCall{}
	if err := gproto.Unmarshal(msg, call); err != nil {
		return nil, fmt.Errorf("decoding a registry call: %w", err)
	}
	return gproto.Marshal(c.handle(ctx, from, call))
}

func (c *Cluster) handle(ctx context.Context, from string, call *pb.RegistryCall) *pb.RegistryReply {
	reply := &pb.RegistryReply{}
	if !c.running() {
		reply.Error = proto.Wire(errNoLeader)
		return reply
	}
	var err error
	switch b := call.GetBody().(type) {
	case *pb.RegistryCall_Propose:
		reply.Index, err = c.commit(b.Propose)
	case *pb.RegistryCall_Renew:
		err = c.renew(ctx, from, b.Renew)
	case *pb.RegistryCall_Term:
		reply.Term = c.group.Term()
	case *pb.RegistryCall_Index:
		reply.Index, err = c.leader.index(ctx)
	case *pb.RegistryCall_Doubt:
		reply.Agreed = c.doubts.answer(from, b.Doubt)
	case *pb.RegistryCall_Found:
		err = c.agree(from, b.Found.GetVoters())
	default:
		err = proto.Errorf(proto.InvalidMessage, "the call is empty or unknown")
	}
	if err != nil {
		reply.Error = proto.Wire(err)
	}
	reply.Leader = c.group.Leader()
	return reply
}

// commit carries out a command as the leader. A refusal has an index too: where in the log it was refused.
func (c *Cluster) commit(entry []byte) (uint64, error) {
	if len(entry) > maxEntry {
		return 0, proto.Errorf(proto.MessageTooLarge, "a command has at most %d bytes", maxEntry)
	}
	if !c.group.Leading() {
		return 0, errNoLeader
	}
	index, result, err := c.group.Propose(entry, attempt)
	switch {
	case errors.Is(err, group.ErrNotLeader), errors.Is(err, group.ErrUnknown):
		return 0, errNoLeader
	case err != nil:
		return 0, err
	}
	refusal, _ := result.(error)
	return index, refusal
}

// renew answers a renewal: as the leader, or by passing on what came from the node itself.
func (c *Cluster) renew(ctx context.Context, from string, r *pb.RenewLease) error {
	switch {
	case r.GetNode() != from && !r.GetPassedOn():
		return proto.Errorf(proto.PermissionDenied, "the renewal is of another node")
	case c.group.Leading():
		return c.leader.renew(ctx, r)
	case r.GetPassedOn() || c.group.Leader() == "" || c.group.Leader() == c.id:
		return errNoLeader
	}
	r = gproto.Clone(r).(*pb.RenewLease)
	r.PassedOn = true
	reply, err := c.call(ctx, c.group.Leader(), &pb.RegistryCall{Body: &pb.RegistryCall_Renew{Renew: r}})
	if err != nil {
		return errNoLeader
	}
	if reply.GetError() != nil {
		return proto.FromWire(reply.GetError())
	}
	return nil
}

// nextLeader is closed when there may be another leader.
func (c *Cluster) nextLeader() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elected
}

// followLeader wakes those who wait for a leader.
func (c *Cluster) followLeader(ctx context.Context) {
	for ctx.Err() == nil {
		c.group.WaitLeader(ctx)
		c.mu.Lock()
		close(c.elected)
		c.elected = make(chan struct{})
		c.mu.Unlock()
	}
}
