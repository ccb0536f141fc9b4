// Package ws is one client's WebSocket: subprotocols, limits, heartbeat, one reader and one writer, and how it
// ends. What the messages mean is the business of its Handler (PROTOCOL.md section 2).
package ws

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/outbox"
)

// Config of a Server. The zero value has the limits of PROTOCOL.md.
type Config struct {
	Logger *slog.Logger
	// Origins are host patterns (path.Match) of the pages that browsers may connect from. Empty allows every
	// page: nothing ambient, such as a cookie, authenticates a client, only the token in its first message.
	Origins []string
	// FirstMessage is the time for hello or resume; default 10 s.
	FirstMessage time.Duration
	// Silence is the time after which a client that says nothing is given up; default 15 s.
	Silence time.Duration
	// Linger bounds how long a connection that is to be closed may take over its last messages; default 10 s.
	Linger time.Duration
	// Rate and Burst are messages per second; defaults 50 and 200.
	Rate  float64
	Burst int
}

// Handler gets the messages of one client, one after the other, from the connection's own goroutine.
type Handler interface {
	// Message handles one message; an error ends the connection with its code. Pings do not come here.
	Message(m *amphiv1.ClientMessage) error
	// Closed is called once, after the last Message, when the connection is gone.
	Closed()
}

// Server accepts WebSockets.
type Server struct {
	cfg   Config
	stats counters
}

type counters struct {
	accepted, refused, open            atomic.Uint64
	messages, delivered, ended, slow   atomic.Uint64
	malformed, tooLarge, tooMany, mute atomic.Uint64
}

// Stats are counts since the start, but for Open.
type Stats struct {
	Accepted, Refused, Open uint64
	// Messages in and out.
	In, Out uint64
	// Closed counts connections that the server ended, by code.
	Closed map[proto.Code]uint64
}

// New makes a Server.
func New(cfg Config) *Server {
	cfg.FirstMessage = cmp.Or(cfg.FirstMessage, 10*time.Second)
	cfg.Silence = cmp.Or(cfg.Silence, 15*time.Second)
	cfg.Linger = cmp.Or(cfg.Linger, 10*time.Second)
	cfg.Rate = cmp.Or(cfg.Rate, 50)
	cfg.Burst = cmp.Or(cfg.Burst, 200)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg}
}

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	return Stats{
		Accepted: s.stats.accepted.Load(), Refused: s.stats.refused.Load(), Open: s.stats.open.Load(),
		In: s.stats.messages.Load(), Out: s.stats.delivered.Load(),
		Closed: map[proto.Code]uint64{
			proto.SlowClient: s.stats.slow.Load(), proto.InvalidMessage: s.stats.malformed.Load(),
			proto.MessageTooLarge: s.stats.tooLarge.Load(), proto.RateLimited: s.stats.tooMany.Load(),
			proto.ClientTimeout: s.stats.mute.Load(), "other": s.stats.ended.Load(),
		},
	}
}

func (s *Server) count(c proto.Code) {
	switch c {
	case proto.SlowClient:
		s.stats.slow.Add(1)
	case proto.InvalidMessage:
		s.stats.malformed.Add(1)
	case proto.MessageTooLarge:
		s.stats.tooLarge.Add(1)
	case proto.RateLimited:
		s.stats.tooMany.Add(1)
	case proto.ClientTimeout:
		s.stats.mute.Add(1)
	default:
		s.stats.ended.Add(1)
	}
}

// Serve upgrades the request and serves the connection on the caller's goroutine until it is over and its
// writer has returned. open makes the handler.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, open func(*Conn) Handler) {
	cork := &corkable{}
	sock, err := websocket.Accept(hijacker{w, cork}, r, &websocket.AcceptOptions{
		Subprotocols:       []string{outbox.Binary.Subprotocol(), outbox.JSON.Subprotocol()},
		OriginPatterns:     s.cfg.Origins,
		InsecureSkipVerify: len(s.cfg.Origins) == 0,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		s.stats.refused.Add(1)
		return
	}
	// The limit is ours, so that the client is told before it is closed.
	sock.SetReadLimit(-1)
	enc := outbox.JSON
	if sock.Subprotocol() == outbox.Binary.Subprotocol() {
		enc = outbox.Binary
	}
	c := &Conn{server: s, sock: sock, cork: cork, out: outbox.New(enc), closing: make(chan struct{}), remote: r.RemoteAddr}
	s.stats.accepted.Add(1)
	s.stats.open.Add(1)
	defer s.stats.open.Add(^uint64(0))
	c.run(open(c))
}

// Conn is one client's connection.
type Conn struct {
	server *Server
	sock   *websocket.Conn
	cork   *corkable
	out    *outbox.Queue
	remote string
	heard  atomic.Int64 // milliseconds since 1970
	silent atomic.Bool  // given up because nothing was heard

	// writing is held by who writes, until the writer has ended.
	writing sync.Mutex

	once    sync.Once
	closing chan struct{} // closed when the connection is to end
	linger  *time.Timer   // set by once
}

// Remote is the client's address as HTTP saw it.
func (c *Conn) Remote() string { return c.remote }

// Gone is since when the client has not been heard, in milliseconds since 1970, of one that fell silent; of one whose
// connection ended otherwise it is now: browsers slow the pings of hidden pages, so that the last one says little.
func (c *Conn) Gone() int64 {
	if c.silent.Load() {
		return c.heard.Load()
	}
	return time.Now().UnixMilli()
}

// Push queues a message. It never blocks; false means that the connection is ending, perhaps because of this
// very message, which overflowed its queue. Safe for concurrent use.
func (c *Conn) Push(f *outbox.Frame) bool {
	if c.out.Push(f) {
		return true
	}
	c.shut()
	return false
}

// Send queues a message for this client alone.
func (c *Conn) Send(m *amphiv1.ServerMessage) bool { return c.Push(outbox.NewFrame(m)) }

// Close ends the connection after what is queued: with goodbye and the reason's close code, or 1000 without a
// reason. It does not wait. Safe for concurrent use; the first reason counts.
func (c *Conn) Close(reason *proto.Error) {
	c.out.Close(outbox.End{Reason: reason})
	c.shut()
}

// goodbye says whether coming back makes sense: not after the peer's end, and not with what was refused.
func goodbye(reason *proto.Error) *amphiv1.Goodbye {
	resume := reason.Code.Retryable()
	switch reason.Code {
	case proto.InvalidMessage, proto.MessageTooLarge:
		resume = true
	}
	return &amphiv1.Goodbye{Reason: proto.Wire(reason), Resume: resume}
}

// shut tells the reader to stop and bounds what the writer may still take.
func (c *Conn) shut() {
	c.once.Do(func() {
		c.linger = time.AfterFunc(c.server.cfg.Linger, func() { _ = c.sock.CloseNow() })
		close(c.closing)
	})
}

func (c *Conn) run(h Handler) {
	var wg sync.WaitGroup
	wg.Go(c.write)
	err := c.read(h)
	var reason *proto.Error
	if err != nil && !errors.As(err, &reason) {
		// The socket failed or the client closed it: nobody is left to tell.
		_ = c.sock.CloseNow()
	}
	c.Close(reason)
	wg.Wait()
	c.linger.Stop()
	h.Closed()
}

// read hands messages to the handler until the connection ends; a *proto.Error is for the client.
func (c *Conn) read(h Handler) error {
	cfg := &c.server.cfg
	watchdog := time.AfterFunc(cfg.FirstMessage, func() {
		c.silent.Store(true)
		c.Close(proto.Errorf(proto.ClientTimeout, "nothing heard for too long"))
	})
	defer watchdog.Stop()
	c.heard.Store(time.Now().UnixMilli())
	limit := rate.NewLimiter(rate.Limit(cfg.Rate), cfg.Burst)
	var buf []byte
	for {
		b, err := c.readMessage(buf[:0])
		if err != nil {
			return err
		}
		select {
		case <-c.closing:
			return nil
		default:
		}
		watchdog.Reset(cfg.Silence)
		c.heard.Store(time.Now().UnixMilli())
		c.server.stats.messages.Add(1)
		if !limit.Allow() {
			return proto.Errorf(proto.RateLimited, "more than %v messages per second", cfg.Rate)
		}
		m, err := c.out.Encoding().Decode(b)
		if err != nil {
			return proto.Errorf(proto.InvalidMessage, "not a message in %s", c.out.Encoding().Subprotocol())
		}
		if ping, ok := m.GetBody().(*amphiv1.ClientMessage_Ping); ok {
			err = c.pong(ping.Ping)
		} else {
			err = h.Message(m)
		}
		if err != nil {
			return err
		}
		if buf = b; cap(buf) > 4096 {
			buf = nil
		}
	}
}

// pong answers at once, on the reader's goroutine, if the writer has nothing to do: to wake that costs more than all
// else that there is to a ping, and pings are most of what idle clients cost.
func (c *Conn) pong(p *amphiv1.Ping) error {
	m := &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Pong{Pong: &amphiv1.Pong{
		TimeMs: p.GetTimeMs(), ServerMs: time.Now().UnixMilli()}}}
	if !c.writing.TryLock() {
		c.Send(m)
		return nil
	}
	defer c.writing.Unlock()
	c.server.stats.delivered.Add(1)
	return c.sock.Write(context.Background(), c.messageType(), outbox.NewFrame(m).Bytes(c.out.Encoding()))
}

func (c *Conn) readMessage(buf []byte) ([]byte, error) {
	typ, r, err := c.sock.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	if want := c.messageType(); typ != want {
		return nil, proto.Errorf(proto.InvalidMessage, "%s takes %v frames", c.out.Encoding().Subprotocol(), want)
	}
	for {
		if len(buf) > proto.MaxClientMessage {
			return nil, proto.Errorf(proto.MessageTooLarge, "a message has at most %d bytes", proto.MaxClientMessage)
		}
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, max(512, len(buf)))...)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			if len(buf) > proto.MaxClientMessage {
				continue
			}
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (c *Conn) messageType() websocket.MessageType {
	if c.out.Encoding() == outbox.Binary {
		return websocket.MessageBinary
	}
	return websocket.MessageText
}

// write delivers what is queued, several messages to a system call where they wait together, until the end.
func (c *Conn) write() {
	var batch [][]byte
	typ := c.messageType()
	for {
		<-c.out.Ready()
		var end *outbox.End
		c.writing.Lock()
		batch, end = c.out.Take(batch[:0])
		if err := c.writeBatch(typ, batch); err != nil {
			_ = c.sock.CloseNow()
			if end == nil {
				end = c.waitForEnd(batch)
			}
			c.finish(end, false)
			return
		}
		c.server.stats.delivered.Add(uint64(len(batch)))
		if end != nil {
			c.finish(end, true)
			return
		}
		c.writing.Unlock()
		if clear(batch); cap(batch) > 64 {
			batch = nil
		}
	}
}

// waitForEnd throws away what is queued for a dead connection until its reader has noticed.
func (c *Conn) waitForEnd(batch [][]byte) *outbox.End {
	for {
		<-c.out.Ready()
		if _, end := c.out.Take(batch[:0]); end != nil {
			return end
		}
	}
}

func (c *Conn) writeBatch(typ websocket.MessageType, batch [][]byte) error {
	if len(batch) > 1 {
		c.cork.hold()
		defer func() { _ = c.cork.release() }()
	}
	for _, b := range batch {
		// Cancelling is left to CloseNow: a context with a deadline costs a timer per message.
		if err := c.sock.Write(context.Background(), typ, b); err != nil {
			return err
		}
	}
	return nil
}

// finish tells an alive client why, and closes the socket with the reason's code.
func (c *Conn) finish(end *outbox.End, alive bool) {
	code, word := websocket.StatusNormalClosure, ""
	if end.Reason != nil {
		code, word = websocket.StatusCode(end.Reason.Code.CloseCode()), string(end.Reason.Code)
		c.server.count(end.Reason.Code)
	}
	if !alive {
		return
	}
	if end.Reason != nil {
		last := outbox.NewFrame(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Goodbye{Goodbye: goodbye(end.Reason)}})
		_ = c.sock.Write(context.Background(), c.messageType(), last.Bytes(c.out.Encoding()))
	}
	if end.Reason != nil && end.Reason.Code == proto.ClientTimeout {
		// A client that is silent will hardly shake hands: others shall not wait for it.
		cut := time.AfterFunc(time.Second, func() { _ = c.cork.Conn.Close() })
		defer cut.Stop()
	}
	_ = c.sock.Close(code, word)
}
