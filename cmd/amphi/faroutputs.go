package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
)

const (
	// kindOutput is the call that orders an output from the node that makes its stream, kindOutputNews the message with
	// which that node tells the owner how it does, and gets cues.
	kindOutput     byte = 21
	kindOutputNews byte = 22
	// outputTimeout bounds an order: a recording may have to wait for a disk.
	outputTimeout = 10 * time.Second
)

// farOutputs has the outputs of this node's rooms made by the node that makes their stream, this one or another.
type farOutputs struct {
	node  string
	log   *slog.Logger
	local *outputs
	// origin is the node that makes a stream, empty where none is known; call orders from another node, send tells one
	// something; report tells a room of this node how an output does.
	origin func(room, stream string) string
	call   func(ctx context.Context, node string, o *amphiv1.OutputOrder) error
	send   func(node string, o *amphiv1.OutputOrder)
	report func(room string, o *amphiv1.Output)
	cue    func(room, stream string, c *amphiv1.StreamCue)

	mu sync.Mutex // guards the field below
	at map[string]*farOutput
}

// farOutput is an output of a room that this node owns.
type farOutput struct {
	start  signal.OutputStart
	node   string
	paused bool
}

// CheckURL implements signal.Outputs.
func (f *farOutputs) CheckURL(url string) (string, error) { return f.local.CheckURL(url) }

// Start implements signal.Outputs.
func (f *farOutputs) Start(s signal.OutputStart) error {
	id, node := s.Output.GetId(), f.node
	if stream := s.Output.GetStream(); stream != "" {
		if at := f.origin(s.Room, stream); at != "" {
			node = at
		}
	}
	f.mu.Lock()
	f.at[id] = &farOutput{start: s, node: node}
	f.mu.Unlock()
	err := f.begin(node, s)
	if err != nil {
		f.mu.Lock()
		delete(f.at, id)
		f.mu.Unlock()
	}
	return err
}

func (f *farOutputs) begin(node string, s signal.OutputStart) error {
	if node == f.node {
		return f.local.Start(s)
	}
	return f.order(node, &amphiv1.OutputOrder{Action: amphiv1.OutputOrder_ACTION_START, Room: s.Room, Session: s.Session, Output: s.Output, Url: s.URL})
}

func (f *farOutputs) order(node string, o *amphiv1.OutputOrder) error {
	ctx, cancel := context.WithTimeout(context.Background(), outputTimeout)
	defer cancel()
	return f.call(ctx, node, o)
}

// Pause implements signal.Outputs.
func (f *farOutputs) Pause(room, id string) {
	f.change(room, id, amphiv1.OutputOrder_ACTION_PAUSE, f.local.Pause, func(x *farOutput) { x.paused = true })
}

// Resume implements signal.Outputs.
func (f *farOutputs) Resume(room, id string) {
	f.change(room, id, amphiv1.OutputOrder_ACTION_RESUME, f.local.Resume, func(x *farOutput) { x.paused = false })
}

// Stop implements signal.Outputs.
func (f *farOutputs) Stop(room, id string) {
	f.change(room, id, amphiv1.OutputOrder_ACTION_STOP, f.local.Stop, func(*farOutput) { delete(f.at, id) })
}

// change does something to an output where it is made; note is called under the lock.
func (f *farOutputs) change(room, id string, action amphiv1.OutputOrder_Action, local func(room, id string), note func(*farOutput)) {
	f.mu.Lock()
	x := f.at[id]
	node := f.node
	if x != nil {
		node = x.node
		note(x)
	}
	f.mu.Unlock()
	if node == f.node {
		local(room, id)
		return
	}
	if err := f.order(node, &amphiv1.OutputOrder{Action: action, Room: room, Output: &amphiv1.Output{Id: id}}); err != nil {
		f.log.Warn("an output of another node was not changed", "room", room, "output", id, "node", node, "action", action, "err", err)
	}
}

// moved has the outputs of a stream made where it is made now.
func (f *farOutputs) moved(room, stream, node string) {
	type move struct {
		start  signal.OutputStart
		old    string
		paused bool
	}
	var moves []move
	f.mu.Lock()
	for _, x := range f.at {
		if x.start.Room == room && x.start.Output.GetStream() == stream && x.node != node {
			moves = append(moves, move{x.start, x.node, x.paused})
			x.node = node // from now on the old one is not believed
		}
	}
	f.mu.Unlock()
	for _, m := range moves {
		id := m.start.Output.GetId()
		if m.old == f.node {
			f.local.retire("", id)
		} else {
			f.send(m.old, &amphiv1.OutputOrder{Action: amphiv1.OutputOrder_ACTION_STOP, Room: room, Output: &amphiv1.Output{Id: id}})
		}
		if err := f.begin(node, m.start); err != nil {
			f.log.Warn("an output does not go on at the stream's new origin", "room", room, "output", id, "node", node, "err", err)
			f.report(room, &amphiv1.Output{Id: id, State: amphiv1.OutputState_OUTPUT_STATE_FAILED, Failure: proto.Wire(err).GetMessage()})
			continue
		}
		if m.paused {
			f.Pause(room, id)
		}
	}
}

// chat notes a message in the recordings of a room of this node, wherever they are made. It does not block.
func (f *farOutputs) chat(room string, m *amphiv1.Message) {
	f.local.chat(room, m)
	others := map[string]bool{}
	f.mu.Lock()
	for _, x := range f.at {
		if x.start.Room == room && x.node != f.node && x.start.Output.GetKind() == amphiv1.OutputKind_OUTPUT_KIND_RECORDING {
			others[x.node] = true
		}
	}
	f.mu.Unlock()
	for node := range others {
		f.send(node, &amphiv1.OutputOrder{Action: amphiv1.OutputOrder_ACTION_NOTE, Room: room, Message: m})
	}
}

// answer carries out another node's order.
func (f *farOutputs) answer(_ context.Context, from string, question []byte) ([]byte, error) {
	o := &amphiv1.OutputOrder{}
	if err := protobuf.Unmarshal(question, o); err != nil || o.GetOutput().GetId() == "" {
		return nil, proto.Errorf(proto.InvalidMessage, "the order makes no sense")
	}
	switch o.GetAction() {
	case amphiv1.OutputOrder_ACTION_START:
		return nil, f.local.startFor(from, signal.OutputStart{Room: o.GetRoom(), Session: o.GetSession(), Output: o.GetOutput(), URL: o.GetUrl()})
	case amphiv1.OutputOrder_ACTION_PAUSE:
		f.local.Pause(o.GetRoom(), o.GetOutput().GetId())
	case amphiv1.OutputOrder_ACTION_RESUME:
		f.local.Resume(o.GetRoom(), o.GetOutput().GetId())
	case amphiv1.OutputOrder_ACTION_STOP:
		f.local.stopFor(from, o.GetRoom(), o.GetOutput().GetId())
	default:
		return nil, proto.Errorf(proto.InvalidMessage, "the order is not known")
	}
	return nil, nil
}

// hear takes what another node tells: how an output of a room of this node does, a cue or a message of its room, or that an output is to
// end of which it wants to hear no more.
// It does not block.
func (f *farOutputs) hear(from string, message []byte) {
	o := &amphiv1.OutputOrder{}
	if err := protobuf.Unmarshal(message, o); err != nil {
		return
	}
	id := o.GetOutput().GetId()
	switch o.GetAction() {
	case amphiv1.OutputOrder_ACTION_REPORT:
		f.mu.Lock()
		x := f.at[id]
		believed := x != nil && x.node == from && x.start.Room == o.GetRoom()
		f.mu.Unlock()
		if believed {
			f.report(o.GetRoom(), o.GetOutput())
		}
	case amphiv1.OutputOrder_ACTION_CUE:
		f.cue(o.GetRoom(), o.GetStream(), o.GetCue())
	case amphiv1.OutputOrder_ACTION_NOTE:
		f.local.chat(o.GetRoom(), o.GetMessage())
	case amphiv1.OutputOrder_ACTION_STOP:
		f.local.retire(from, id)
	}
}

// told tells the node that ordered an output how it does.
func (f *farOutputs) told(node, room string, o *amphiv1.Output) {
	f.send(node, &amphiv1.OutputOrder{Action: amphiv1.OutputOrder_ACTION_REPORT, Room: room, Output: o})
}
