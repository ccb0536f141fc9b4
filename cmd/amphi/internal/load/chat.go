package load

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/tally"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// chatMark begins the text of the generator's own messages; the sending time in nanoseconds follows.
const chatMark = "amphi-load "

// chat sends messages and measures how long they take to everybody.
type chat struct {
	measuring atomic.Bool
	sent      atomic.Uint64
	received  atomic.Uint64
	refused   atomic.Uint64

	mu      sync.Mutex // guards the fields below
	clients []*client.Client
	latency tally.Histogram
}

// add makes a client one of the senders; it also receives.
func (c *chat) add(cl *client.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clients = append(c.clients, cl)
}

func (c *chat) senders() []*client.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*client.Client(nil), c.clients...)
}

func (c *chat) begin() { c.measuring.Store(true) }
func (c *chat) end()   { c.measuring.Store(false) }

// receive runs on the reader of every client.
func (c *chat) receive(msg *amphiv1.ServerMessage) {
	m := msg.GetEvent().GetMessage()
	if m == nil || !c.measuring.Load() {
		return
	}
	stamp, ok := strings.CutPrefix(m.GetText(), chatMark)
	if !ok {
		return
	}
	ns, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return
	}
	c.received.Add(1)
	d := time.Since(time.Unix(0, ns))
	c.mu.Lock()
	c.latency.Add(d)
	c.mu.Unlock()
}

// talk sends at the configured rate, the clients in turn, until ctx ends.
func (r *run) talk(ctx context.Context) {
	senders := r.chat.senders()
	if len(senders) == 0 {
		return
	}
	if r.cfg.Publishers > 0 {
		senders = senders[:min(len(senders), r.cfg.Publishers)]
	}
	began := time.Now()
	interval := time.Duration(float64(time.Second) / r.cfg.ChatRate)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := 0; sleep(ctx, time.Until(began.Add(time.Duration(i)*interval))); i++ {
		c := senders[i%len(senders)]
		wg.Go(func() {
			r.chat.sent.Add(1)
			text := chatMark + strconv.FormatInt(time.Now().UnixNano(), 10)
			if _, err := c.Chat(ctx, text); err != nil && ctx.Err() == nil {
				if r.chat.refused.Add(1) == 1 {
					r.fail("chat", err)
				}
			}
		})
	}
}
