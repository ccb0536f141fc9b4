package cluster_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster/registry"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/anishathalye/porcupine"
)

// Inputs of the two kinds of history: a decision of a room's owner, and an access to a durable value.
type (
	decision struct {
		room, node string
		epoch      uint64
	}
	access struct {
		key   string
		write string // empty: a read
	}
)

// ownersModel: a room's decisions happen in the order of its epochs, and those of an epoch are one node's.
func ownersModel() porcupine.Model {
	return porcupine.Model{
		Partition: partition(func(o porcupine.Operation) string { return o.Input.(decision).room }),
		Init:      func() any { return decision{} },
		Step: func(state, input, _ any) (bool, any) {
			last, now := state.(decision), input.(decision)
			return now.epoch > last.epoch || now.epoch == last.epoch && now.node == last.node, now
		},
		DescribeOperation: func(input, _ any) string { return fmt.Sprint(input) },
	}
}

// valuesModel: every durable value is a register.
func valuesModel() porcupine.Model {
	return porcupine.Model{
		Partition: partition(func(o porcupine.Operation) string { return o.Input.(access).key }),
		Init:      func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			if w := input.(access).write; w != "" {
				return true, w
			}
			return output == state, state
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprint(input, output) },
	}
}

func partition(key func(porcupine.Operation) string) func([]porcupine.Operation) [][]porcupine.Operation {
	return func(all []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range all {
			byKey[key(o)] = append(byKey[key(o)], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	}
}

// history is what clients saw, in the time of the test.
type history struct {
	begin time.Time

	mu        sync.Mutex // guards the fields below
	decisions []porcupine.Operation
	accesses  []porcupine.Operation
	unknown   int // accesses without an answer
}

func (h *history) now() int64 { return int64(time.Since(h.begin)) }

func (h *history) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.decisions) + len(h.accesses)
}

// decide is one decision of node for the room, if it may: asked in the order that every owner has to ask.
func (h *history) decide(m *member, node, room string) {
	call := h.now()
	if !m.Leased() {
		return
	}
	p, err := m.Owner(room)
	if err != nil || p.GetNode() != node || !m.Leased() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.decisions = append(h.decisions, porcupine.Operation{Input: decision{room, node, p.GetEpoch()}, Call: call, Return: h.now()})
}

// put writes a durable value; without an answer it may happen at any time from then on.
func (h *history) put(ctx context.Context, m *member, key, value string) {
	call := h.now()
	err := m.Propose(ctx, &pb.RegistryCommand{Body: &pb.RegistryCommand_PutStore{PutStore: &pb.PutStore{
		Room: "store", Entry: &pb.StoreEntry{Key: key, Value: value},
	}}})
	h.mu.Lock()
	defer h.mu.Unlock()
	o := porcupine.Operation{Input: access{key, value}, Call: call, Return: h.now()}
	if err != nil {
		h.unknown++
		o.Return = math.MaxInt64
	}
	h.accesses = append(h.accesses, o)
}

// get reads a durable value with all that was answered before; without an answer it never happened.
func (h *history) get(ctx context.Context, m *member, key string) {
	call := h.now()
	if m.Sync(ctx) != nil {
		return
	}
	value := ""
	m.Read(func(r *pb.Registry) {
		for _, e := range r.GetStore()["store"].GetEntries() {
			if e.GetKey() == key {
				value = e.GetValue()
			}
		}
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accesses = append(h.accesses, porcupine.Operation{Input: access{key: key}, Output: value, Call: call, Return: h.now()})
}

// claim begins a stream of the room r0 that has no record, as the node id, or has the record of one forgotten. A beginning that was answered is a
// decision of its own: what comes later is at a higher epoch, whatever was forgotten in between.
func (h *history) claim(ctx context.Context, m *member, id, stream, who string) {
	call := h.now()
	var o *pb.StreamOrigin
	var epoch uint64
	m.Read(func(r *pb.Registry) {
		o, epoch = r.GetOrigins()[registry.OriginKey("r0", stream)], r.GetOriginFloor()+1
	})
	if o != nil {
		_ = m.Propose(ctx, &pb.RegistryCommand{Body: &pb.RegistryCommand_ForgetOrigin{
			ForgetOrigin: &pb.ForgetOrigin{Room: "r0", Stream: stream, Epoch: o.GetEpoch()}}})
		return
	}
	err := m.Propose(ctx, &pb.RegistryCommand{OnlyNew: true, Body: &pb.RegistryCommand_PutOrigin{
		PutOrigin: &pb.StreamOrigin{Room: "r0", Stream: stream, Node: id, Epoch: epoch}}})
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.decisions = append(h.decisions, porcupine.Operation{Input: decision{"the stream " + stream, who, epoch}, Call: call, Return: h.now()})
}

// check looks for violations.
func (h *history) check(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	acting, epochs := map[string]string{}, map[string]uint64{}
	for _, o := range h.decisions {
		d := o.Input.(decision)
		at := fmt.Sprintf("%s at epoch %d", d.room, d.epoch)
		if other, ok := acting[at]; ok && other != d.node {
			t.Errorf("%s and %s both acted as owners of %s", other, d.node, at)
		}
		acting[at] = d.node
		epochs[d.room] = max(epochs[d.room], d.epoch)
	}
	for what, c := range map[string]struct {
		model porcupine.Model
		ops   []porcupine.Operation
	}{"owners": {ownersModel(), h.decisions}, "values": {valuesModel(), h.accesses}} {
		switch porcupine.CheckOperationsTimeout(c.model, slices.Clone(c.ops), 2*time.Minute) {
		case porcupine.Illegal:
			t.Errorf("%s: %d operations are not linearizable:%s", what, len(c.ops), violation(c.model, c.ops))
		case porcupine.Unknown:
			t.Errorf("%s: %d operations could not be checked in time", what, len(c.ops))
		case porcupine.Ok:
		}
	}
	t.Logf("%d decisions of owners over %v epochs, %d accesses to values, %d of them without an answer", len(h.decisions), epochs, len(h.accesses), h.unknown)
}

// violation is the end of the shortest history of one key that is illegal.
func violation(model porcupine.Model, ops []porcupine.Operation) string {
	for _, part := range model.Partition(ops) {
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		legal := func(n int) bool {
			// Of what began before, only that has an end that came before, too.
			begun := slices.Clone(part[:n])
			for i := range begun {
				begun[i].Return = min(begun[i].Return, math.MaxInt64-int64(len(begun)))
			}
			return porcupine.CheckOperations(model, begun)
		}
		if legal(len(part)) {
			continue
		}
		n := sort.Search(len(part), func(n int) bool { return !legal(n) })
		var text strings.Builder
		for _, o := range part[max(0, n-12):n] {
			fmt.Fprintf(&text, "\n%11.6f to %11.6f: %s", time.Duration(o.Call).Seconds(), time.Duration(o.Return).Seconds(), model.DescribeOperation(o.Input, o.Output))
		}
		return text.String()
	}
	return ""
}

// TestModelsSeeViolations: the checks can fail.
func TestModelsSeeViolations(t *testing.T) {
	t.Parallel()
	act := func(node string, epoch uint64, call, back int64) porcupine.Operation {
		return porcupine.Operation{Input: decision{"r", node, epoch}, Call: call, Return: back}
	}
	for name, c := range map[string]struct {
		ops  []porcupine.Operation
		want bool
	}{
		"one after the other":  {[]porcupine.Operation{act("a", 1, 0, 1), act("b", 2, 2, 3), act("b", 2, 4, 5)}, true},
		"overlapping":          {[]porcupine.Operation{act("a", 1, 0, 4), act("b", 2, 2, 3)}, true},
		"two in one epoch":     {[]porcupine.Operation{act("a", 1, 0, 1), act("b", 1, 2, 3)}, false},
		"the earlier goes on":  {[]porcupine.Operation{act("a", 1, 0, 1), act("b", 2, 2, 3), act("a", 1, 4, 5)}, false},
		"and in the same time": {[]porcupine.Operation{act("a", 1, 0, 1), act("b", 2, 2, 9), act("a", 1, 4, 5)}, true},
	} {
		if got := porcupine.CheckOperations(ownersModel(), c.ops); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	stale := []porcupine.Operation{
		{Input: access{"k", "1"}, Call: 0, Return: 1}, {Input: access{"k", "2"}, Call: 2, Return: 3},
		{Input: access{key: "k"}, Output: "1", Call: 4, Return: 5},
	}
	if porcupine.CheckOperations(valuesModel(), stale) {
		t.Error("a stale read passes")
	}
}
