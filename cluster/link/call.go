package link

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// maxServing bounds the calls of one node that are answered at once.
	maxServing = 256
	// maxPatience is how long a caller may wait.
	maxPatience = time.Minute
)

// calls are those of one connection, both ways.
type calls struct {
	mu      sync.Mutex // guards the fields below
	last    uint64
	waiting map[uint64]chan reply
	serving int
	err     error // set when the connection has ended
}

type reply struct {
	msg []byte
	err error
}

// Call sends msg to node and returns its answer. The error is a proto.Error where node's handler refused, ErrLost when
// the connection ended meanwhile, that of ctx, or one of Send's. After ErrLost and ctx's the call may have been carried
// out. A ctx without a deadline waits one minute.
func (l *Link) Call(ctx context.Context, node string, kind byte, msg []byte) ([]byte, error) {
	if len(msg) > MaxMessage {
		return nil, ErrTooLarge
	}
	c := l.conn(node)
	if c == nil {
		return nil, ErrNotConnected
	}
	ctx, cancel := context.WithTimeout(ctx, maxPatience)
	defer cancel()
	deadline, _ := ctx.Deadline()
	body := make([]byte, callPrefix, callPrefix+len(msg))
	binary.BigEndian.PutUint32(body, uint32(max(1, time.Until(deadline).Milliseconds())))
	id, replied, err := c.calls.begin()
	if err != nil {
		return nil, err
	}
	defer c.calls.forget(id)
	if err := c.send(frame{typ: call, kind: kind, id: id, body: append(body, msg...)}); err != nil {
		return nil, err
	}
	select {
	case r := <-replied:
		return r.msg, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("calling %s: %w", node, ctx.Err())
	}
}

func (c *calls) begin() (uint64, chan reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, ErrNotConnected
	}
	if c.waiting == nil {
		c.waiting = map[uint64]chan reply{}
	}
	c.last++
	replied := make(chan reply, 1)
	c.waiting[c.last] = replied
	return c.last, replied, nil
}

func (c *calls) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// end hands an answer to its caller; one that nobody waits for any more is dropped.
func (c *calls) end(f frame) {
	r := reply{msg: f.body}
	if f.typ == failure {
		var e amphiv1.Error
		if err := protobuf.Unmarshal(f.body, &e); err != nil || e.GetCode() == "" {
			r = reply{err: proto.Errorf(proto.Internal, "the node's refusal cannot be read")}
		} else {
			r = reply{err: proto.FromWire(&e)}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if replied := c.waiting[f.id]; replied != nil {
		delete(c.waiting, f.id)
		replied <- r
	}
}

// fail ends all calls that wait, and those that come.
func (c *calls) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for id, replied := range c.waiting {
		delete(c.waiting, id)
		replied <- reply{err: err}
	}
}

func (c *calls) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serving >= maxServing {
		return false
	}
	c.serving++
	return true
}

func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving--
}

// startCall has a handler answer f on a goroutine of its own; ctx is the connection's.
func (c *conn) startCall(ctx context.Context, f frame) {
	handler := c.link.onCall[f.kind]
	if handler == nil {
		c.link.refused.Add(refusedKind, c.peer.id, nil)
		c.reply(f.id, nil, proto.Errorf(proto.Unavailable, "this node answers no such call"))
		return
	}
	if !c.calls.enter() {
		c.link.refused.Add(refusedManyCalls, c.peer.id, nil)
		c.reply(f.id, nil, proto.Errorf(proto.RateLimited, "too many calls at once"))
		return
	}
	patience := min(time.Duration(binary.BigEndian.Uint32(f.body))*time.Millisecond, maxPatience)
	c.link.wg.Go(func() {
		defer c.calls.leave()
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		msg, err := handler(ctx, c.peer.id, f.body[callPrefix:])
		if err != nil && ctx.Err() != nil && proto.CodeOf(err) == proto.Internal {
			err = proto.Errorf(proto.Timeout, "the node did not answer in time")
		}
		c.reply(f.id, msg, err)
	})
}

// reply sends an answer; the caller of one that finds no room in the queue waits until its deadline.
func (c *conn) reply(id uint64, msg []byte, err error) {
	f := frame{typ: answer, id: id, body: msg}
	if err == nil && len(msg) > MaxMessage {
		err = proto.Errorf(proto.MessageTooLarge, "the answer is too large")
	}
	if err != nil {
		body, merr := protobuf.Marshal(proto.Wire(err))
		if merr != nil || len(body) > maxFailure {
			body = nil // "internal", where it is read
		}
		f = frame{typ: failure, id: id, body: body}
	}
	_ = c.send(f)
}
