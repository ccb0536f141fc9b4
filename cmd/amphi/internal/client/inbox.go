package client

import (
	"context"
	"fmt"
	"sync"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Inbox keeps what was received until somebody asks for it; its Add fits Config.OnMessage. The zero
// value is ready, keeps the newest 10,000 messages, and may be used from several goroutines.
type Inbox struct {
	mu   sync.Mutex // guards the fields below
	msgs []*amphiv1.ServerMessage
	wake chan struct{} // closed, and replaced, when a message comes
}

const maxInbox = 10_000

// Add appends msg.
func (in *Inbox) Add(msg *amphiv1.ServerMessage) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.msgs) == maxInbox {
		in.msgs = append(in.msgs[:0], in.msgs[1:]...)
	}
	in.msgs = append(in.msgs, msg)
	if in.wake != nil {
		close(in.wake)
		in.wake = nil
	}
}

// Take waits for the first message that match accepts, takes it out, and leaves the others.
func (in *Inbox) Take(ctx context.Context, match func(*amphiv1.ServerMessage) bool) (*amphiv1.ServerMessage, error) {
	for {
		msg, wake, kept := in.scan(match)
		if msg != nil {
			return msg, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a message (%d others came): %w", kept, ctx.Err())
		}
	}
}

func (in *Inbox) scan(match func(*amphiv1.ServerMessage) bool) (*amphiv1.ServerMessage, <-chan struct{}, int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, msg := range in.msgs {
		if match(msg) {
			in.msgs = append(in.msgs[:i], in.msgs[i+1:]...)
			return msg, nil, 0
		}
	}
	if in.wake == nil {
		in.wake = make(chan struct{})
	}
	return nil, in.wake, len(in.msgs)
}

// TakeEvent waits for the first event that match accepts.
func (in *Inbox) TakeEvent(ctx context.Context, match func(*amphiv1.Event) bool) (*amphiv1.Event, error) {
	msg, err := in.Take(ctx, func(m *amphiv1.ServerMessage) bool {
		e := m.GetEvent()
		return e != nil && match(e)
	})
	return msg.GetEvent(), err
}

// Messages are all that are there now, oldest first.
func (in *Inbox) Messages() []*amphiv1.ServerMessage {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]*amphiv1.ServerMessage(nil), in.msgs...)
}
