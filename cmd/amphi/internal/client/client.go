// Package client speaks the client protocol of proto/PROTOCOL.md from Go: signalling over a
// WebSocket and, where wanted, media through a PeerConnection. The load generator and tests use it.
package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	subprotocolPB   = "amphi.v1.pb"
	subprotocolJSON = "amphi.v1.json"

	// maxServerMessage bounds one message from the server; the state of a large room is the longest.
	maxServerMessage = 16 << 20
	writeTimeout     = 10 * time.Second
)

// Config says where to connect and as whom. Token or ResumeToken is required.
type Config struct {
	// URL of the node, such as http://127.0.0.1:7880.
	URL string
	// Token is an app token; the first message is then hello.
	Token string
	// Join, if set, is sent right behind hello, and Dial returns when the peer has joined.
	Join *amphiv1.Join
	// ResumeToken makes the first message resume, from LastSeq on.
	ResumeToken string
	LastSeq     uint64
	// Redirected says that another node has named this one: it serves the client whatever its role.
	Redirected bool
	// Agent is the client's name for the server's logs; empty is "amphi-go".
	Agent string
	// JSON uses the subprotocol amphi.v1.json instead of amphi.v1.pb.
	JSON bool
	// OnMessage gets every message that answers no request, in order, on the reading goroutine: it must
	// not block, nor wait for an answer. May be nil.
	OnMessage func(*amphiv1.ServerMessage)
	// HTTPClient dials; nil is http.DefaultClient.
	HTTPClient *http.Client
	// Open makes the connection instead of dialling URL; with it another server is spoken to by a translation. May be nil.
	Open func(ctx context.Context, cfg Config) (Conn, error)
}

// Conn carries the frames of one client, as a *websocket.Conn does. Read is called by one goroutine; Close and CloseNow end it.
type Conn interface {
	Read(ctx context.Context) (websocket.MessageType, []byte, error)
	Write(ctx context.Context, kind websocket.MessageType, data []byte) error
	Close(code websocket.StatusCode, reason string) error
	CloseNow() error
}

// Client is one signalling connection. Its methods may be called from any goroutine.
type Client struct {
	cfg     Config
	conn    Conn
	json    bool
	welcome *amphiv1.Welcome
	joined  atomic.Pointer[amphiv1.Joined]
	lastSeq atomic.Uint64
	heard   atomic.Int64 // when the last message came, Unix nanoseconds

	stop context.CancelFunc
	wg   sync.WaitGroup
	done chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards the fields below
	nextID  uint32
	waiting map[uint32]chan *amphiv1.ServerMessage
	goodbye *amphiv1.Goodbye
	err     error
}

// URL is the node that serves the client: another than Config.URL when that has sent it on.
func (c *Client) URL() string { return c.cfg.URL }

// Dial connects and says hello or resume, at another node when the first one sends it there. It returns when the server has said welcome (or joined, with
// Config.Join or ResumeToken); a refusal is a *proto.Error. The connection outlives ctx: end it with Close.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Token == "" && cfg.ResumeToken == "" {
		return nil, errors.New("dialling: no token")
	}
	if cfg.Agent == "" {
		cfg.Agent = "amphi-go"
	}
	c, err := dial(ctx, cfg)
	var refusal *proto.Error
	if errors.As(err, &refusal) && refusal.Code == proto.Redirected && !cfg.Redirected {
		cfg.URL, cfg.Redirected = refusal.Details["url"], true
		return dial(ctx, cfg)
	}
	return c, err
}

func dial(ctx context.Context, cfg Config) (*Client, error) {
	open := cfg.Open
	if open == nil {
		open = openWebSocket
	}
	conn, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.Background())
	c := &Client{
		cfg: cfg, conn: conn, json: cfg.JSON, stop: stop,
		done: make(chan struct{}), waiting: make(map[uint32]chan *amphiv1.ServerMessage),
	}
	c.heard.Store(time.Now().UnixNano())
	c.lastSeq.Store(cfg.LastSeq)
	c.wg.Go(func() { c.read(life) })
	if err := c.open(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	c.wg.Go(func() { c.heartbeat(life) })
	return c, nil
}

func openWebSocket(ctx context.Context, cfg Config) (Conn, error) {
	target, err := signalURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	sub := subprotocolPB
	if cfg.JSON {
		sub = subprotocolJSON
	}
	conn, resp, err := websocket.Dial(ctx, target, &websocket.DialOptions{
		HTTPClient: cfg.HTTPClient, Subprotocols: []string{sub}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, dialError(target, resp, err)
	}
	conn.SetReadLimit(maxServerMessage)
	return conn, nil
}

func dialError(target string, resp *http.Response, err error) error {
	if resp == nil {
		return fmt.Errorf("connecting to %s: %w", target, err)
	}
	if resp.StatusCode == http.StatusServiceUnavailable {
		return proto.Errorf(proto.Unavailable, "%s answers %s", target, resp.Status)
	}
	return fmt.Errorf("connecting to %s: answered %s: %w", target, resp.Status, err)
}

// signalURL is the WebSocket's address on the node at base.
func signalURL(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("parsing the node's URL: %w", err)
	}
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "ws"
	case "https", "wss":
		u.Scheme = "wss"
	default:
		return "", fmt.Errorf("node URL %q: want http:// or https://", base)
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + "/v1/signal"
	u.RawQuery, u.Fragment = "", ""
	return u.String(), nil
}

// open does the first exchange.
func (c *Client) open(ctx context.Context) error {
	if c.cfg.ResumeToken != "" {
		return c.resume(ctx)
	}
	hello, err := c.begin(&amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Hello{
		Hello: &amphiv1.Hello{Token: c.cfg.Token, Client: c.cfg.Agent, Redirected: c.cfg.Redirected},
	}})
	if err != nil {
		return err
	}
	var join *pending
	if c.cfg.Join != nil {
		if join, err = c.begin(joinMessage(c.cfg.Join)); err != nil {
			return err
		}
	}
	msg, err := c.finish(ctx, hello)
	if err != nil {
		return fmt.Errorf("saying hello: %w", err)
	}
	if c.welcome = msg.GetWelcome(); c.welcome == nil {
		return errors.New("saying hello: the answer is no welcome")
	}
	if join == nil {
		return nil
	}
	_, err = c.finishJoin(ctx, join)
	return err
}

func (c *Client) resume(ctx context.Context) error {
	p, err := c.begin(&amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{
		ResumeToken: c.cfg.ResumeToken, LastSeq: c.cfg.LastSeq, Client: c.cfg.Agent, Redirected: c.cfg.Redirected,
	}}})
	if err != nil {
		return err
	}
	if _, err := c.finishJoin(ctx, p); err != nil {
		return fmt.Errorf("resuming: %w", err)
	}
	return nil
}

// Welcome is the server's answer to hello; nil after a resume.
func (c *Client) Welcome() *amphiv1.Welcome { return c.welcome }

// Joined is what the server answered to join or resume; nil before.
func (c *Client) Joined() *amphiv1.Joined { return c.joined.Load() }

// PeerID is the peer's id, "" before it has joined.
func (c *Client) PeerID() string { return c.joined.Load().GetPeerId() }

// LastSeq is the number of the last event that was received.
func (c *Client) LastSeq() uint64 { return c.lastSeq.Load() }

// Heard is when the last message came.
func (c *Client) Heard() time.Time { return time.Unix(0, c.heard.Load()) }

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection ended: the server's goodbye as a *proto.Error where there was one. Nil before.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Goodbye is the server's last message, nil without one.
func (c *Client) Goodbye() *amphiv1.Goodbye {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.goodbye
}

// Close ends the connection without leaving the room, waits for its goroutines, and may be repeated.
func (c *Client) Close() error {
	select {
	case <-c.done:
	default:
		_ = c.conn.Close(websocket.StatusNormalClosure, "")
	}
	c.stop()
	c.wg.Wait()
	return nil
}

// Drop cuts the connection without a word, as a lost network does.
func (c *Client) Drop() {
	_ = c.conn.CloseNow()
	c.stop()
	c.wg.Wait()
}

func (c *Client) read(ctx context.Context) {
	defer close(c.done)
	var err error
	for err == nil {
		var data []byte
		if _, data, err = c.conn.Read(ctx); err != nil {
			break
		}
		c.heard.Store(time.Now().UnixNano())
		msg := &amphiv1.ServerMessage{}
		if err = c.decode(data, msg); err == nil {
			c.dispatch(msg)
		}
	}
	_ = c.conn.CloseNow()
	c.mu.Lock()
	if c.goodbye.GetReason() != nil {
		err = proto.FromWire(c.goodbye.GetReason())
	}
	c.err = fmt.Errorf("signalling connection ended: %w", err)
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, ch := range waiting {
		close(ch)
	}
}

func (c *Client) decode(data []byte, msg *amphiv1.ServerMessage) error {
	if c.json {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, msg)
	}
	return protobuf.Unmarshal(data, msg)
}

// dispatch hands an answer to who waits for it, and everything else to OnMessage.
func (c *Client) dispatch(msg *amphiv1.ServerMessage) {
	if e := msg.GetEvent(); e != nil {
		c.lastSeq.Store(e.GetSeq())
	}
	if g := msg.GetGoodbye(); g != nil {
		c.mu.Lock()
		c.goodbye = g
		c.mu.Unlock()
	}
	if j := msg.GetJoined(); j != nil {
		c.joined.Store(j)
		if s := j.GetState(); s != nil {
			c.lastSeq.Store(s.GetSeq())
		}
	}
	if id := answers(msg); id != 0 {
		c.mu.Lock()
		ch := c.waiting[id]
		delete(c.waiting, id)
		c.mu.Unlock()
		if ch != nil {
			ch <- msg
		}
		return
	}
	if c.cfg.OnMessage != nil {
		c.cfg.OnMessage(msg)
	}
}

func answers(msg *amphiv1.ServerMessage) uint32 {
	switch b := msg.GetBody().(type) {
	case *amphiv1.ServerMessage_Welcome:
		return b.Welcome.GetRequestId()
	case *amphiv1.ServerMessage_Joined:
		return b.Joined.GetRequestId()
	case *amphiv1.ServerMessage_Answer:
		return b.Answer.GetRequestId()
	}
	return 0
}

// heartbeat pings and gives up a connection on which nothing is heard.
func (c *Client) heartbeat(ctx context.Context) {
	server := c.welcome.GetServer()
	if server == nil {
		server = c.Joined().GetServer()
	}
	interval := orDefault(server.GetPingIntervalMs(), 5*time.Second)
	timeout := orDefault(server.GetPingTimeoutMs(), 15*time.Second)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.done:
			return
		case now := <-tick.C:
			if now.Sub(time.Unix(0, c.heard.Load())) > timeout {
				_ = c.conn.CloseNow()
				return
			}
			_ = c.send(&amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Ping{
				Ping: &amphiv1.Ping{TimeMs: now.UnixMilli(), LastSeq: c.LastSeq()},
			}})
		}
	}
}

func orDefault(ms uint32, d time.Duration) time.Duration {
	if ms == 0 {
		return d
	}
	return time.Duration(ms) * time.Millisecond
}
