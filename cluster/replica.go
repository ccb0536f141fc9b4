package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// replica is this node's copy of the registry, as the group's log drives it (group.Machine).
type replica struct {
	mu      sync.RWMutex // guards the fields below
	machine *registry.Machine
	applied uint64        // index of the last entry
	more    chan struct{} // closed, and made anew, when applied rises

	watchers watchers
}

func newReplica() *replica {
	return &replica{machine: registry.New(), more: make(chan struct{})}
}

func (r *replica) read(f func(*pb.Registry)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.machine.View())
}

func (r *replica) node(id string) *pb.ClusterNode {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.machine.View().GetNodes()[id]
}

func (r *replica) index() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.applied
}

// Apply implements group.Machine; the result is nil or a refusal (error).
func (r *replica) Apply(index uint64, entry []byte) any {
	cmd := &pb.RegistryCommand{}
	r.mu.Lock()
	err := gproto.Unmarshal(entry, cmd)
	if err != nil {
		err = proto.Errorf(proto.InvalidMessage, "the command cannot be decoded")
	} else {
		err = r.machine.Apply(cmd)
	}
	changed := r.machine.Changed()
	r.advanceLocked(index)
	r.mu.Unlock()
	for _, room := range changed {
		r.watchers.tell(room)
	}
	return err
}

func (r *replica) advanceLocked(index uint64) {
	r.applied = index
	close(r.more)
	r.more = make(chan struct{})
}

// Snapshot implements group.Machine: the index of the last entry (8 bytes, big-endian) and the encoded Registry.
func (r *replica) Snapshot() func(io.Writer) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	state, index := r.machine.Snapshot(), r.applied
	return func(w io.Writer) error {
		body, err := gproto.Marshal(state)
		if err != nil {
			return fmt.Errorf("encoding the registry: %w", err)
		}
		_, err = w.Write(append(binary.BigEndian.AppendUint64(nil, index), body...))
		return err
	}
}

// Restore implements group.Machine.
func (r *replica) Restore(from io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(from, maxSnapshot+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading a snapshot: %w", err)
	case len(data) < 8 || len(data) > maxSnapshot:
		return errors.New("a snapshot of the registry is too short or too long")
	}
	reg := &pb.Registry{}
	if err := gproto.Unmarshal(data[8:], reg); err != nil {
		return fmt.Errorf("decoding a snapshot: %w", err)
	}
	r.mu.Lock()
	r.machine = registry.Restore(reg)
	r.advanceLocked(binary.BigEndian.Uint64(data))
	r.mu.Unlock()
	r.watchers.tell("")
	return nil
}

// wait returns when the entry at index has been applied here.
func (r *replica) wait(ctx context.Context, index uint64) error {
	for {
		r.mu.RLock()
		applied, more := r.applied, r.more
		r.mu.RUnlock()
		if applied >= index {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return proto.Errorf(proto.Timeout, "this node's registry is behind")
		}
	}
}

// watchers are called when a room's placement has changed; with "" when everything may have.
type watchers struct {
	mu  sync.Mutex // guards the field below
	all []func(room string)
}

func (w *watchers) add(f func(room string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all[:len(w.all):len(w.all)], f)
}

func (w *watchers) tell(room string) {
	w.mu.Lock()
	all := w.all
	w.mu.Unlock()
	for _, f := range all {
		f(room)
	}
}
