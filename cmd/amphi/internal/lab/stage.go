package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/peer"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/record"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

const (
	// Roles of the default template: who publishes, and who only receives.
	publisherRole = "host"
	viewerRole    = "audience"
	// talkEvery is the time between two messages of one peer, answerTimeout how long it waits for the answer.
	talkEvery     = 1500 * time.Millisecond
	answerTimeout = 4 * time.Second
	// writeEvery is the time between two writes to the session store.
	writeEvery = 150 * time.Millisecond
	// flowLimit is the longest silence of a track that counts as normal.
	flowLimit = 250 * time.Millisecond
)

// seat is where a peer of the cast connects first.
type seat struct {
	node    string
	publish bool
	// What it publishes, as in peer.Config.
	simulcast, audioOnly bool
	packets              int
}

// stage is a room full of peers that send, receive, talk and write all the time.
type stage struct {
	lab      *Lab
	room     string
	cast     []*actor
	messages *record.Messages
	store    []*writer
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

// actor is a peer in its region.
type actor struct {
	*peer.Peer
	region string
	home   string // the node where it was first
	// audioOnly: it publishes no video.
	audioOnly bool
}

// raise opens a room, owned by founder if that is not "", and waits until everybody gets everything.
func (l *Lab) raise(ctx context.Context, room, founder string, seats []seat) (*stage, error) {
	cert, err := peer.Certificate()
	if err != nil {
		return nil, err
	}
	s := &stage{lab: l, room: room, messages: record.NewMessages()}
	living, stop := context.WithCancel(ctx)
	s.stop = stop
	if err := s.create(ctx, founder); err != nil {
		stop()
		return nil, err
	}
	for i, seat := range seats {
		if err := s.seat(living, i, seat, cert); err != nil {
			s.close()
			return nil, err
		}
	}
	for _, a := range s.cast {
		s.wg.Go(func() { s.talk(living, a) })
	}
	for _, a := range s.publishers() {
		for _, durable := range []bool{false, true} {
			w := newWriter(a, durable)
			s.store = append(s.store, w)
			s.wg.Go(func() { w.run(living) })
		}
	}
	err = l.await(ctx, startTimeout, func(context.Context) error { return s.normal(time.Now()) })
	if err != nil {
		s.close()
		return nil, fmt.Errorf("room %s did not come to life: %w", room, err)
	}
	return s, nil
}

// create makes the room and its owner: that is the node which is asked for it first.
func (s *stage) create(ctx context.Context, founder string) error {
	p := s.lab.nodes[0]
	if founder != "" {
		p = s.lab.node(founder)
	}
	return s.lab.await(ctx, startTimeout, func(ctx context.Context) error {
		rooms, err := manage(s.lab, p, amphiv1connect.NewRoomServiceClient)
		if err != nil {
			return err
		}
		if _, err := rooms.CreateRoom(ctx, connect.NewRequest(&amphiv1.CreateRoomRequest{Name: s.room})); err != nil {
			return fmt.Errorf("creating room %s at %s: %w", s.room, p.ID, err)
		}
		_, err = s.look(ctx, p)
		return err
	})
}

// look joins at a node and returns the room's state as a newcomer sees it.
func (s *stage) look(ctx context.Context, p *process) (*amphiv1.RoomState, error) {
	token, err := s.lab.token(s.room, publisherRole, "lab-founder")
	if err != nil {
		return nil, err
	}
	c, err := client.Dial(ctx, client.Config{
		URL: p.url, Token: token, Agent: "amphi-lab", HTTPClient: s.lab.https[p.Region], Join: &amphiv1.Join{Name: "founder"},
	})
	if err != nil {
		return nil, err
	}
	state := c.Joined().GetState()
	return state, c.Leave(ctx)
}

func (s *stage) seat(ctx context.Context, i int, seat seat, cert *webrtc.Certificate) error {
	home := s.lab.node(seat.node)
	if home == nil {
		return fmt.Errorf("no node %q", seat.node)
	}
	role, name := viewerRole, fmt.Sprintf("viewer-%d-%s", i, seat.node)
	if seat.publish {
		role, name = publisherRole, fmt.Sprintf("publisher-%d-%s", i, seat.node)
	}
	token, err := s.lab.token(s.room, role, name)
	if err != nil {
		return err
	}
	p, err := peer.New(peer.Config{
		Name: name, Room: s.room, Token: token, Nodes: s.lab.nearest(home), Net: s.lab.nets[home.Region], HTTP: s.lab.https[home.Region],
		Publish: seat.publish, Publisher: uint16(i), Simulcast: seat.simulcast, Packets: seat.packets, AudioOnly: seat.audioOnly, Certificate: cert, Messages: s.messages, Logger: s.lab.cfg.Logger,
	})
	if err != nil {
		return err
	}
	s.cast = append(s.cast, &actor{Peer: p, region: home.Region, home: seat.node, audioOnly: seat.audioOnly})
	s.wg.Go(func() { p.Run(ctx) })
	return nil
}

// nearest are the URLs of all nodes: home, then those of its region, then the others.
func (l *Lab) nearest(home *process) []string {
	order := []string{home.url}
	for _, local := range []bool{true, false} {
		for _, p := range l.nodes {
			if p != home && (p.Region == home.Region) == local {
				order = append(order, p.url)
			}
		}
	}
	return order
}

func (s *stage) publishers() []*actor {
	return slices.DeleteFunc(slices.Clone(s.cast), func(a *actor) bool {
		_, publishes := a.Publisher()
		return !publishes
	})
}

// tracks are those that an actor should get: of all publishers but itself.
func (s *stage) tracks(to *actor) []record.Track {
	var out []record.Track
	for _, p := range s.publishers() {
		n, _ := p.Publisher()
		if p == to {
			continue
		}
		out = append(out, record.Track{Publisher: n, Audio: true})
		if !p.audioOnly {
			out = append(out, record.Track{Publisher: n})
		}
	}
	return out
}

// normal tells what is not as it should be at a time.
func (s *stage) normal(now time.Time) error {
	const lately = 500 * time.Millisecond
	for _, a := range s.cast {
		if a.Node() == "" {
			return fmt.Errorf("%s is not connected", a.Name())
		}
		for _, t := range s.tracks(a) {
			if !a.Media.Flows(t, now.Add(-lately), now, flowLimit) {
				return fmt.Errorf("%s does not get %s", a.Name(), describe(t))
			}
		}
	}
	if !s.messages.AckedSince(now.Add(-2 * time.Second)) {
		return errors.New("no message was acknowledged lately")
	}
	for _, w := range s.store {
		if now.Sub(w.lastAck()) > 2*time.Second {
			return fmt.Errorf("%s waits for a write to the session store", w.actor.Name())
		}
	}
	return nil
}

func describe(t record.Track) string {
	if t.Audio {
		return fmt.Sprintf("audio of publisher %d", t.Publisher)
	}
	return fmt.Sprintf("video of publisher %d", t.Publisher)
}

// talk sends a message now and then, several at a time when answers are slow.
func (s *stage) talk(ctx context.Context, a *actor) {
	const most = 4
	var wg sync.WaitGroup
	defer wg.Wait()
	waiting := make(chan struct{}, most)
	tick := time.NewTicker(talkEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case waiting <- struct{}{}:
		}
		wg.Go(func() {
			defer func() { <-waiting }()
			answering, cancel := context.WithTimeout(ctx, answerTimeout)
			defer cancel()
			_ = a.Say(answering, fmt.Sprintf("%s %d", a.Name(), n)) // what became of it is in the record
		})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// close lets everybody leave.
func (s *stage) close() {
	s.stop()
	s.wg.Wait()
}

// names of all peers, for the judgement of messages.
func (s *stage) names() []string {
	var out []string
	for _, a := range s.cast {
		out = append(out, a.Name())
	}
	return out
}

// writer writes rising numbers to one key of the session store.
type writer struct {
	actor   *actor
	key     string
	durable bool

	mu       sync.Mutex // guards the fields below
	tried    int
	acked    int
	revision uint64 // of the last acknowledged write
	faults   []string
	acks     []time.Time
}

func newWriter(a *actor, durable bool) *writer {
	n, _ := a.Publisher()
	kind := "memory"
	if durable {
		kind = "durable"
	}
	return &writer{actor: a, durable: durable, key: fmt.Sprintf("shared.lab.%s.%d", kind, n)}
}

func (w *writer) run(ctx context.Context) {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.mu.Lock()
		w.tried++
		n := w.tried
		w.mu.Unlock()
		answering, cancel := context.WithTimeout(ctx, answerTimeout)
		value := fmt.Sprint(n)
		res, err := w.actor.Command(answering, &amphiv1.Command{Body: &amphiv1.Command_SetStore{
			SetStore: &amphiv1.SetStore{Key: w.key, Value: &value, Durable: w.durable}}})
		cancel()
		if err != nil {
			continue
		}
		w.ack(n, res.GetStore().GetRevision())
	}
}

// ack notes an acknowledged write; a revision that fell says that an earlier one was undone.
func (w *writer) ack(n int, revision uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const most = 5
	if revision <= w.revision && len(w.faults) < most {
		w.faults = append(w.faults, fmt.Sprintf("%s: write %d got revision %d, write %d had %d", w.key, n, revision, w.acked, w.revision))
	}
	w.acked, w.revision = n, revision
	w.acks = append(w.acks, time.Now())
}

func (w *writer) lastAck() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.acks) == 0 {
		return time.Time{}
	}
	return w.acks[len(w.acks)-1]
}

// stall is the longest time between two acknowledgements that ends after from.
func (w *writer) stall(from time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest := time.Duration(0)
	for i := 1; i < len(w.acks); i++ {
		if w.acks[i].After(from) {
			longest = max(longest, w.acks[i].Sub(w.acks[i-1]))
		}
	}
	return longest
}

// check compares what a newcomer reads with what was acknowledged.
func (w *writer) check(state *amphiv1.RoomState, acked int) error {
	for _, e := range state.GetStore() {
		if e.GetKey() != w.key {
			continue
		}
		var n int
		if _, err := fmt.Sscan(strings.TrimSpace(e.GetValue()), &n); err != nil || n < acked {
			return fmt.Errorf("%s holds %s, but %d was acknowledged", w.key, e.GetValue(), acked)
		}
		return nil
	}
	if acked > 0 {
		return fmt.Errorf("%s is gone, but %d was acknowledged", w.key, acked)
	}
	return nil
}
