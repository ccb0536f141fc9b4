// Package livekit translates the client protocol to LiveKit's signalling, so that the load generator puts on a LiveKit
// server what it puts on a node. Media are not touched.
package livekit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protowire"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// maxMessage bounds one message from the server.
	maxMessage   = 16 << 20
	leaveTimeout = 2 * time.Second
)

// Token lets user join room; it lives for life.
func Token(key, secret, room, user string, publish bool, life time.Duration) (string, error) {
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": key, "sub": user, "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(life).Unix(),
		"video": map[string]any{"roomJoin": true, "room": room, "canPublish": publish, "canSubscribe": !publish},
	})
	if err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil)), nil
}

// conn is a participant at a LiveKit server, towards its client a connection to a node.
type conn struct {
	ws     *websocket.Conn
	joined *amphiv1.Joined
	out    chan []byte // frames for the client
	stop   context.CancelFunc
	wg     sync.WaitGroup
	ended  chan struct{} // closed when the reader has ended
	err    error         // why; not changed after that

	mu         sync.Mutex // guards the fields below
	publishing map[string]uint32
	offered    uint32 // the request whose answer is awaited
	answer     string
	candidates string // of the server, as lines of an SDP
	gathered   bool
	audio      uint32 // sections of the last offer
	video      uint32
}

// Open joins with cfg.Token at cfg.URL, by one PeerConnection for both directions, as LiveKit's clients do by now. It is a client.Config.Open.
func Open(ctx context.Context, cfg client.Config) (client.Conn, error) {
	target, err := joinURL(cfg.URL, cfg.Token)
	if err != nil {
		return nil, err
	}
	ws, resp, err := websocket.Dial(ctx, target, &websocket.DialOptions{HTTPClient: cfg.HTTPClient, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		if resp != nil {
			err = fmt.Errorf("answered %s: %w", resp.Status, err)
		}
		return nil, fmt.Errorf("connecting to LiveKit at %s: %w", cfg.URL, err)
	}
	ws.SetReadLimit(maxMessage)
	c := &conn{ws: ws, out: make(chan []byte, 64), ended: make(chan struct{}), publishing: make(map[string]uint32)}
	if err := c.join(ctx); err != nil {
		_ = ws.CloseNow()
		return nil, err
	}
	life, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.wg.Go(func() { c.pump(life) })
	return c, nil
}

// joinURL asks to join and to be sent whatever is published.
func joinURL(base, token string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("parsing LiveKit's URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("LiveKit's URL %q: want http:// or https://", base)
	}
	join := message(nil).part(joinClient, message(nil).number(clientProtocol, protocolVersion)).
		part(joinConnection, message(nil).number(autoSubscribe, 1))
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u.Path = "/rtc/v1"
	u.RawQuery = url.Values{
		"access_token": {token}, "join_request": {base64.URLEncoding.EncodeToString(message(nil).part(wrappedJoin, join))},
	}.Encode()
	return u.String(), nil
}

// join reads the first message, which says who is there.
func (c *conn) join(ctx context.Context) error {
	_, data, err := c.ws.Read(ctx)
	if err != nil {
		return fmt.Errorf("joining at LiveKit: %w", err)
	}
	response, err := parse(data)
	if err != nil {
		return err
	}
	if !response.has(responseJoin) {
		return errors.New("joining at LiveKit: the first message is no join response")
	}
	join := response.part(responseJoin)
	state := &amphiv1.RoomState{}
	for _, p := range join.parts(joinOthers) {
		peer := &amphiv1.Peer{Id: p.text(participantSID)}
		for _, t := range p.parts(participantTracks) {
			peer.Tracks = append(peer.Tracks, track(t))
		}
		state.Peers = append(state.Peers, peer)
	}
	c.joined = &amphiv1.Joined{PeerId: join.part(joinParticipant).text(participantSID), State: state, Server: server()}
	return nil
}

// server has clients ping as LiveKit's do.
func server() *amphiv1.ServerInfo {
	return &amphiv1.ServerInfo{PingIntervalMs: 5_000, PingTimeoutMs: 15_000}
}

func track(f fields) *amphiv1.Track {
	kind := amphiv1.Kind_KIND_AUDIO
	if f.numbers[trackType] == typeVideo {
		kind = amphiv1.Kind_KIND_VIDEO
	}
	return &amphiv1.Track{Id: f.text(trackSID), Kind: kind}
}

// pump translates what the server says until the connection ends.
func (c *conn) pump(ctx context.Context) {
	defer close(c.ended)
	for {
		_, data, err := c.ws.Read(ctx)
		var said []*amphiv1.ServerMessage
		if err == nil {
			said, err = c.translate(data)
		}
		for _, msg := range said {
			if err == nil {
				err = c.say(ctx, msg)
			}
		}
		if err != nil {
			c.err = err
			return
		}
	}
}

// translate is what the client is told when the server has sent data.
func (c *conn) translate(data []byte) ([]*amphiv1.ServerMessage, error) {
	response, err := parse(data)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case response.has(responseTrackPublished):
		published := response.part(responseTrackPublished)
		return []*amphiv1.ServerMessage{result(c.publishing[published.text(publishedCID)], &amphiv1.Result{Body: &amphiv1.Result_Publish{
			Publish: &amphiv1.PublishResult{Track: track(published.part(publishedTrack))},
		}})}, nil
	case response.has(responseAnswer):
		answer := response.part(responseAnswer)
		c.answer = answer.text(sdpText)
		return append([]*amphiv1.ServerMessage{slots(answer)}, c.answeredLocked()...), nil
	case response.has(responseTrickle):
		if err := c.trickledLocked(response.part(responseTrickle)); err != nil {
			return nil, err
		}
		return c.answeredLocked(), nil
	case response.has(responseSections):
		more := response.part(responseSections)
		return []*amphiv1.ServerMessage{{Body: &amphiv1.ServerMessage_SlotsNeeded{SlotsNeeded: &amphiv1.SlotsNeeded{
			Audio: c.audio + uint32(more.numbers[sectionsAudio]), Video: c.video + uint32(more.numbers[sectionsVideo]),
		}}}}, nil
	case response.has(responsePong):
		return []*amphiv1.ServerMessage{{Body: &amphiv1.ServerMessage_Pong{Pong: &amphiv1.Pong{}}}}, nil
	case response.has(responseLeave):
		return nil, fmt.Errorf("LiveKit ended the session, for reason %d", response.part(responseLeave).numbers[leaveReason])
	case response.has(responseRefusal):
		if refusal := response.part(responseRefusal); refusal.numbers[refusalReason] != 0 {
			return nil, fmt.Errorf("LiveKit refused a request, for reason %d: %s", refusal.numbers[refusalReason], refusal.text(refusalMessage))
		}
	}
	return nil, nil
}

// slots says which track comes in which section.
func slots(answer fields) *amphiv1.ServerMessage {
	s := &amphiv1.Slots{}
	for _, entry := range answer.parts(sdpTracks) {
		s.Slots = append(s.Slots, &amphiv1.Slot{Mid: entry.text(entryKey), TrackId: entry.text(entryValue)})
	}
	return &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Slots{Slots: s}}
}

// trickledLocked keeps a candidate for the answer: nodes send theirs with it.
func (c *conn) trickledLocked(trickle fields) error {
	var candidate struct{ Candidate string }
	if err := json.Unmarshal([]byte(trickle.text(trickleCandidate)), &candidate); err != nil {
		return fmt.Errorf("reading a candidate: %w", err)
	}
	if candidate.Candidate != "" {
		c.candidates += "a=candidate:" + strings.TrimPrefix(candidate.Candidate, "candidate:") + "\r\n"
	}
	c.gathered = c.gathered || trickle.numbers[trickleFinal] != 0
	return nil
}

// answeredLocked answers the client's offer once the server's answer and candidates are there.
func (c *conn) answeredLocked() []*amphiv1.ServerMessage {
	if c.answer == "" || !c.gathered || c.offered == 0 {
		return nil
	}
	sdp, id := withCandidates(c.answer, c.candidates), c.offered
	c.answer, c.offered = "", 0
	return []*amphiv1.ServerMessage{{Body: &amphiv1.ServerMessage_Answer{
		Answer: &amphiv1.Answer{RequestId: id, Body: &amphiv1.Answer_Negotiated{Negotiated: &amphiv1.Negotiated{Sdp: sdp}}},
	}}}
}

// withCandidates adds lines to the first section of an SDP, which carries the others.
func withCandidates(sdp, lines string) string {
	const section = "\r\nm="
	first := strings.Index(sdp, section)
	if first < 0 {
		return sdp
	}
	if next := strings.Index(sdp[first+len(section):], section); next >= 0 {
		at := first + len(section) + next + len("\r\n")
		return sdp[:at] + lines + sdp[at:]
	}
	return sdp + lines
}

// say sends the client a message.
func (c *conn) say(ctx context.Context, msg *amphiv1.ServerMessage) error {
	data, err := protobuf.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	select {
	case c.out <- data:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func result(id uint32, r *amphiv1.Result) *amphiv1.ServerMessage {
	return &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Answer{
		Answer: &amphiv1.Answer{RequestId: id, Body: &amphiv1.Answer_Result{Result: r}},
	}}
}

// Read is the next message for the client.
func (c *conn) Read(ctx context.Context) (websocket.MessageType, []byte, error) {
	select {
	case data := <-c.out:
		return websocket.MessageBinary, data, nil
	case <-c.ended:
		select {
		case data := <-c.out: // said before the end
			return websocket.MessageBinary, data, nil
		default:
			return 0, nil, c.err
		}
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

// Write translates a message of the client.
func (c *conn) Write(ctx context.Context, _ websocket.MessageType, data []byte) error {
	msg := &amphiv1.ClientMessage{}
	if err := protobuf.Unmarshal(data, msg); err != nil {
		return fmt.Errorf("reading the client's message: %w", err)
	}
	switch b := msg.GetBody().(type) {
	case *amphiv1.ClientMessage_Hello:
		return c.say(ctx, &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Welcome{Welcome: &amphiv1.Welcome{RequestId: msg.GetId(), Server: server()}}})
	case *amphiv1.ClientMessage_Command:
		return c.command(ctx, msg.GetId(), b.Command)
	case *amphiv1.ClientMessage_Negotiate:
		return c.offer(ctx, msg.GetId(), b.Negotiate.GetSdp())
	case *amphiv1.ClientMessage_SetSubscriptions: // asked for when joining
		return c.say(ctx, result(msg.GetId(), &amphiv1.Result{}))
	case *amphiv1.ClientMessage_Ping:
		return c.request(ctx, requestPing, message(nil).number(pingTime, uint64(b.Ping.GetTimeMs())))
	}
	return c.refuse(ctx, msg.GetId())
}

func (c *conn) command(ctx context.Context, id uint32, cmd *amphiv1.Command) error {
	switch b := cmd.GetBody().(type) {
	case *amphiv1.Command_Join:
		joined := protobuf.CloneOf(c.joined)
		joined.RequestId = id
		return c.say(ctx, &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Joined{Joined: joined}})
	case *amphiv1.Command_Publish:
		if len(b.Publish.GetLayers()) > 0 {
			return c.refuse(ctx, id)
		}
		return c.publish(ctx, id, b.Publish)
	case *amphiv1.Command_Leave: // by Close, which the answer brings about
		return c.say(ctx, result(id, &amphiv1.Result{}))
	}
	return c.refuse(ctx, id)
}

// publish announces a track. The server matches it with the offer's section of the same kind: a publisher has one of each.
func (c *conn) publish(ctx context.Context, id uint32, p *amphiv1.PublishTrack) error {
	add := message(nil).text(addCID, p.GetSource()).number(addDisableRED, 1)
	if p.GetKind() == amphiv1.Kind_KIND_VIDEO {
		add = add.number(addType, typeVideo).number(addSource, sourceCamera).
			number(addWidth, uint64(p.GetWidth())).number(addHeight, uint64(p.GetHeight()))
	} else {
		add = add.number(addSource, sourceMic)
	}
	c.mu.Lock()
	c.publishing[p.GetSource()] = id
	c.mu.Unlock()
	return c.request(ctx, requestAddTrack, add)
}

func (c *conn) offer(ctx context.Context, id uint32, sdp string) error {
	c.mu.Lock()
	c.offered = id
	c.audio, c.video = uint32(strings.Count(sdp, "\r\nm=audio")), uint32(strings.Count(sdp, "\r\nm=video"))
	c.mu.Unlock()
	return c.request(ctx, requestOffer, message(nil).text(sdpType, "offer").text(sdpText, sdp).number(sdpID, uint64(id)))
}

func (c *conn) refuse(ctx context.Context, id uint32) error {
	return c.say(ctx, &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Answer{Answer: &amphiv1.Answer{
		RequestId: id, Body: &amphiv1.Answer_Error{Error: proto.Wire(proto.Errorf(proto.InvalidArgument, "not translated for LiveKit"))},
	}}})
}

func (c *conn) request(ctx context.Context, field protowire.Number, body message) error {
	return c.ws.Write(ctx, websocket.MessageBinary, message(nil).part(field, body))
}

// Close leaves the room.
func (c *conn) Close(code websocket.StatusCode, reason string) error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_ = c.request(ctx, requestLeave, nil)
	err := c.ws.Close(code, reason)
	c.stop()
	c.wg.Wait()
	return err
}

// CloseNow cuts the connection.
func (c *conn) CloseNow() error {
	c.stop()
	err := c.ws.CloseNow()
	c.wg.Wait()
	return err
}
