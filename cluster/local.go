// Package cluster answers what a whole cluster knows: its durable records, its nodes, and which of them decides for
// which room. Cluster is a node's part in one of many nodes, Local the cluster of a single node.
package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// Config is how a Local keeps its records.
type Config struct {
	Logger *slog.Logger
	// Node is this node, who owns every room; nil: nobody asks.
	Node *pb.ClusterNode
	// Dir is where they are kept; it is made when missing. Empty keeps them in memory only.
	Dir string
	// CompactBytes is how large the log may grow before a snapshot takes its place; default 4 MiB.
	CompactBytes int64
}

// Local holds the registry of a single node. It may be used from many goroutines.
type Local struct {
	log  *slog.Logger
	node *pb.ClusterNode
	own  *pb.Placement
	disk *journal // nil in memory

	mu      sync.RWMutex // guards the fields below
	machine *registry.Machine

	queueMu sync.Mutex // guards the fields below; never held together with mu
	queue   []*proposal
	writing bool
	closed  bool
	idle    *sync.Cond // signals that writing has become false
}

type proposal struct {
	cmd  *pb.RegistryCommand
	data []byte
	done chan error // has room for the one answer
}

// NewLocal reads back what the directory holds. A torn last entry, of a command that was never answered, is set aside.
func NewLocal(cfg Config) (*Local, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.CompactBytes == 0 {
		cfg.CompactBytes = 4 << 20
	}
	l := &Local{log: cfg.Logger, machine: registry.New(), node: cfg.Node, own: &pb.Placement{Node: cfg.Node.GetId(), Epoch: 1}}
	l.idle = sync.NewCond(&l.queueMu)
	if cfg.Dir == "" {
		return l, nil
	}
	disk, loaded, err := openJournal(cfg.Dir, cfg.CompactBytes)
	if err != nil {
		return nil, fmt.Errorf("opening the registry in %s: %w", cfg.Dir, err)
	}
	l.machine = registry.Restore(loaded.snapshot)
	for _, cmd := range loaded.commands {
		// A refusal was the answer to it before; it is again.
		_ = l.machine.Apply(cmd)
	}
	if loaded.setAside != "" {
		l.log.Warn("the registry's log ended in a torn entry, which was set aside", "file", loaded.setAside)
	}
	l.disk = disk
	return l, nil
}

// Read runs f with the registry as it is now. f must be quick, and neither change nor keep it; messages inside never
// change and may be kept.
func (l *Local) Read(f func(*pb.Registry)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	f(l.machine.View())
}

// Propose carries out a command and returns when it is on disk, or its refusal with a code. When ctx ends first the
// command may still be carried out: give it an id and repeat it.
func (l *Local) Propose(ctx context.Context, cmd *pb.RegistryCommand) error {
	var err error
	l.Read(func(r *pb.Registry) { cmd, err = registry.Ruled(r, cmd) })
	if err != nil {
		return err
	}
	data, err := gproto.Marshal(cmd)
	if err != nil {
		return proto.Errorf(proto.InvalidArgument, "the command cannot be encoded")
	}
	if len(data) > maxEntry {
		return proto.Errorf(proto.MessageTooLarge, "a command has at most %d bytes", maxEntry)
	}
	p := &proposal{cmd: cmd, data: data, done: make(chan error, 1)}
	l.queueMu.Lock()
	if l.closed {
		l.queueMu.Unlock()
		return proto.Errorf(proto.Shutdown, "the registry is closed")
	}
	l.queue = append(l.queue, p)
	lead := !l.writing
	l.writing = true
	l.queueMu.Unlock()
	if lead {
		l.write()
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return proto.Errorf(proto.Timeout, "the registry was too slow")
	}
}

// write carries out what is queued, batch by batch, each with one flush to disk. Whoever proposes while nobody writes
// does this for all who come in the meantime.
func (l *Local) write() {
	for {
		l.queueMu.Lock()
		batch := l.queue
		l.queue = nil
		if len(batch) == 0 {
			l.writing = false
			l.idle.Broadcast()
			l.queueMu.Unlock()
			return
		}
		l.queueMu.Unlock()
		l.commit(batch)
	}
}

func (l *Local) commit(batch []*proposal) {
	if l.disk != nil {
		if err := l.disk.append(batch); err != nil {
			l.log.Error("the registry cannot be written", "err", err)
			for _, p := range batch {
				p.done <- proto.Errorf(proto.Unavailable, "the registry cannot be written")
			}
			return
		}
	}
	results := make([]error, len(batch))
	l.mu.Lock()
	for i, p := range batch {
		results[i] = l.machine.Apply(p.cmd)
	}
	var snapshot *pb.Registry
	if l.disk != nil && l.disk.wantsSnapshot() {
		snapshot = l.machine.Snapshot()
	}
	l.mu.Unlock()
	for i, p := range batch {
		p.done <- results[i]
	}
	if snapshot != nil {
		if err := l.disk.compact(snapshot); err != nil {
			l.log.Error("the registry's snapshot cannot be written; its log goes on", "err", err)
		}
	}
}

// Owner is this node, at epoch 1, for every room.
func (l *Local) Owner(string) (*pb.Placement, error) { return l.own, nil }

// Leased is always true: there is nobody else.
func (l *Local) Leased() bool { return true }

// Watch is never called: no placement ever changes.
func (l *Local) Watch(func(room string)) {}

// Nodes is this node.
func (l *Local) Nodes() []*pb.ClusterNode {
	if l.node == nil {
		return nil
	}
	return []*pb.ClusterNode{l.node}
}

// Send fails: there is no other node.
func (l *Local) Send(node, _ string, _ []byte) error {
	return fmt.Errorf("sending to %s: there is no other node", node)
}

// Close ends the registry after what is being written. Idempotent.
func (l *Local) Close() error {
	l.queueMu.Lock()
	defer l.queueMu.Unlock()
	for l.writing {
		l.idle.Wait()
	}
	if l.closed {
		return nil
	}
	l.closed = true
	if l.disk == nil {
		return nil
	}
	if err := l.disk.close(); err != nil {
		return fmt.Errorf("closing the registry: %w", err)
	}
	return nil
}
