package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// pending is a request whose answer is awaited.
type pending struct {
	id     uint32
	answer chan *amphiv1.ServerMessage
}

// begin numbers msg and sends it.
func (c *Client) begin(msg *amphiv1.ClientMessage) (*pending, error) {
	p := &pending{answer: make(chan *amphiv1.ServerMessage, 1)}
	c.mu.Lock()
	if c.waiting == nil {
		err := c.err
		c.mu.Unlock()
		return nil, err
	}
	c.nextID++
	p.id = c.nextID
	c.waiting[p.id] = p.answer
	c.mu.Unlock()
	msg.Id = p.id
	if err := c.send(msg); err != nil {
		c.forget(p)
		return nil, err
	}
	return p, nil
}

// finish waits for the answer to p. An error in it is returned as a *proto.Error.
func (c *Client) finish(ctx context.Context, p *pending) (*amphiv1.ServerMessage, error) {
	select {
	case msg, ok := <-p.answer:
		if !ok {
			return nil, c.Err()
		}
		if err := proto.FromWire(msg.GetAnswer().GetError()); err != nil {
			return nil, err
		}
		if err := proto.FromWire(msg.GetAnswer().GetResult().GetError()); err != nil {
			return nil, err
		}
		return msg, nil
	case <-ctx.Done():
		c.forget(p)
		return nil, ctx.Err()
	}
}

func (c *Client) forget(p *pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, p.id)
}

func (c *Client) call(ctx context.Context, msg *amphiv1.ClientMessage) (*amphiv1.ServerMessage, error) {
	p, err := c.begin(msg)
	if err != nil {
		return nil, err
	}
	return c.finish(ctx, p)
}

func (c *Client) send(msg *amphiv1.ClientMessage) error {
	marshal := protobuf.Marshal
	kind := websocket.MessageBinary
	if c.json {
		marshal = protojson.Marshal
		kind = websocket.MessageText
	}
	data, err := marshal(msg)
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	return c.WriteFrame(context.Background(), kind, data)
}

// WriteFrame sends data as it is; tests of what the server refuses use it.
func (c *Client) WriteFrame(ctx context.Context, kind websocket.MessageType, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := c.conn.Write(ctx, kind, data); err != nil {
		// The reader may already know why the server closed.
		if known := c.Err(); known != nil {
			return known
		}
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

func joinMessage(j *amphiv1.Join) *amphiv1.ClientMessage {
	return &amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Command{
		Command: &amphiv1.Command{Body: &amphiv1.Command_Join{Join: j}},
	}}
}

func (c *Client) finishJoin(ctx context.Context, p *pending) (*amphiv1.Joined, error) {
	msg, err := c.finish(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("joining: %w", err)
	}
	j := msg.GetJoined()
	if j == nil {
		return nil, errors.New("joining: the answer is no joined")
	}
	return j, nil
}

// Join makes the peer, after a Dial without Config.Join.
func (c *Client) Join(ctx context.Context, j *amphiv1.Join) (*amphiv1.Joined, error) {
	p, err := c.begin(joinMessage(j))
	if err != nil {
		return nil, err
	}
	return c.finishJoin(ctx, p)
}

// Command sends cmd and waits for its result; a refusal is a *proto.Error.
func (c *Client) Command(ctx context.Context, cmd *amphiv1.Command) (*amphiv1.Result, error) {
	msg, err := c.call(ctx, &amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Command{Command: cmd}})
	if err != nil {
		return nil, err
	}
	return msg.GetAnswer().GetResult(), nil
}

// Negotiate sends an offer and returns the answer's SDP.
func (c *Client) Negotiate(ctx context.Context, n *amphiv1.Negotiate) (string, error) {
	msg, err := c.call(ctx, &amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Negotiate{Negotiate: n}})
	if err != nil {
		return "", fmt.Errorf("negotiating: %w", err)
	}
	neg := msg.GetAnswer().GetNegotiated()
	if neg == nil {
		return "", errors.New("negotiating: the answer has no SDP")
	}
	return neg.GetSdp(), nil
}

// SetSubscriptions states the whole of what this peer wants to receive.
func (c *Client) SetSubscriptions(ctx context.Context, s *amphiv1.SetSubscriptions) error {
	_, err := c.call(ctx, &amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_SetSubscriptions{SetSubscriptions: s}})
	return err
}

// Leave ends the peer and closes the connection.
func (c *Client) Leave(ctx context.Context) error {
	_, err := c.Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}})
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}

// Chat sends a chat message to everybody and returns its number.
func (c *Client) Chat(ctx context.Context, text string) (uint64, error) {
	res, err := c.Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_Send{
		Send: &amphiv1.SendMessage{Type: "chat", Text: text},
	}})
	return res.GetSend().GetId(), err
}

// Publish announces a track.
func (c *Client) Publish(ctx context.Context, t *amphiv1.PublishTrack) (*amphiv1.Track, error) {
	res, err := c.Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: t}})
	if err != nil {
		return nil, fmt.Errorf("publishing %s: %w", t.GetSource(), err)
	}
	return res.GetPublish().GetTrack(), nil
}
