package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/clip"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/tally"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// subscriber is one peer that receives everything over WebRTC.
type subscriber struct {
	run      *run
	client   *client.Client
	media    atomic.Pointer[client.Media]
	stamps   *stamps
	began    time.Time
	received atomic.Uint64
	need     chan *amphiv1.SlotsNeeded
	first    chan struct{} // closed when the first packet that can be decoded is there

	mu     sync.Mutex // guards the fields below
	joined time.Duration
	packet time.Duration // from the start to the first video packet
	decode time.Duration // from the start to the first packet of a keyframe
	tracks []*received
}

// received is what comes in one receiving section.
type received struct {
	mu     sync.Mutex // guards the fields below
	stream tally.Stream
	delay  tally.Histogram
	bytes  uint64
	base   tally.Counts
	from   uint64
	// The measurement's result.
	window tally.Counts
	result tally.Histogram
	size   uint64
}

// subscribe joins and receives until ctx ends; ready is called when media came, or nothing is to come.
func (r *run) subscribe(ctx context.Context, i int, ready func()) {
	s := &subscriber{
		run: r, stamps: newStamps(), began: time.Now(), need: make(chan *amphiv1.SlotsNeeded, 1), first: make(chan struct{}),
	}
	err := s.connect(ctx, i)
	defer s.close()
	if err == nil {
		r.mu.Lock()
		r.subscribers = append(r.subscribers, s)
		r.mu.Unlock()
		r.chat.add(s.client)
		err = s.awaitMedia(ctx)
	}
	ready()
	if err == nil {
		err = s.serve(ctx)
	}
	if err != nil && ctx.Err() == nil {
		r.fail(fmt.Sprintf("subscriber %d", i), err)
	}
}

func (s *subscriber) close() {
	if m := s.media.Load(); m != nil {
		_ = m.Close()
	}
	if s.client != nil {
		leave(s.client)
	}
}

func (s *subscriber) connect(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	r := s.run
	token, err := r.cfg.Token(r.cfg.Roles.Subscribe, fmt.Sprintf("load-subscriber-%d", i))
	if err != nil {
		return err
	}
	api, err := client.NewAPI(client.TransportConfig{
		Loopback: r.loopback, NACK: true, Feedback: true, Net: &stampedNet{Net: r.net, stamps: s.stamps},
	})
	if err != nil {
		return err
	}
	s.began = time.Now()
	s.client, err = client.Dial(ctx, client.Config{
		URL: r.cfg.URL, Open: r.cfg.Open, Token: token, Agent: "amphi-load", OnMessage: s.message,
		Join: &amphiv1.Join{Name: fmt.Sprintf("Subscriber %d", i)},
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.joined = time.Since(s.began)
	s.mu.Unlock()
	media, err := client.NewMedia(s.client, client.MediaConfig{API: api, Certificate: r.cert, OnTrack: s.receive})
	if err != nil {
		return err
	}
	s.media.Store(media)
	audio, video := slotsFor(s.client.Joined().GetState(), s.client.PeerID())
	if err := media.AddSlots(audio, video); err != nil {
		return err
	}
	// One flight for both: the answer to the first isn't needed for the second.
	wanted := make(chan error, 1)
	go func() { wanted <- s.client.SetSubscriptions(ctx, &amphiv1.SetSubscriptions{Auto: true}) }()
	err = media.Negotiate(ctx)
	if werr := <-wanted; err == nil {
		err = werr
	}
	return err
}

// slotsFor is how many tracks of each kind there are to receive, at least one of each.
func slotsFor(state *amphiv1.RoomState, self string) (audio, video int) {
	for _, p := range state.GetPeers() {
		if p.GetId() == self {
			continue
		}
		for _, t := range p.GetTracks() {
			if t.GetKind() == amphiv1.Kind_KIND_AUDIO {
				audio++
			} else {
				video++
			}
		}
	}
	return max(1, audio), max(1, video)
}

// message runs on the client's reader.
func (s *subscriber) message(msg *amphiv1.ServerMessage) {
	s.run.chat.receive(msg)
	if m := s.media.Load(); m != nil {
		m.Handle(msg)
	}
	if need := msg.GetSlotsNeeded(); need != nil {
		select {
		case <-s.need: // a newer wish replaces the older
		default:
		}
		s.need <- need
	}
}

func (s *subscriber) awaitMedia(ctx context.Context) error {
	timer := time.NewTimer(joinTimeout)
	defer timer.Stop()
	connected := s.media.Load().Connected()
	for {
		select {
		case <-connected:
			if s.run.cfg.Publishers == 0 || s.run.cfg.Traffic == Audio {
				return nil
			}
			connected = nil
		case <-s.first:
			return nil
		case need := <-s.need:
			if err := s.grow(ctx, need); err != nil {
				return err
			}
		case <-s.client.Done():
			return s.client.Err()
		case <-timer.C:
			return fmt.Errorf("no video that can be decoded came within %v", joinTimeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *subscriber) serve(ctx context.Context) error {
	for {
		select {
		case need := <-s.need:
			if err := s.grow(ctx, need); err != nil {
				return err
			}
		case <-s.client.Done():
			return s.client.Err()
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *subscriber) grow(ctx context.Context, need *amphiv1.SlotsNeeded) error {
	media := s.media.Load()
	if err := media.AddSlots(int(need.GetAudio()), int(need.GetVideo())); err != nil {
		return err
	}
	return media.Negotiate(ctx)
}

// receive reads one section until the connection is closed.
func (s *subscriber) receive(mid string, remote *webrtc.TrackRemote) {
	video := remote.Kind() == webrtc.RTPCodecTypeVideo
	in := &received{stream: tally.Stream{Video: video}}
	s.mu.Lock()
	s.tracks = append(s.tracks, in)
	s.mu.Unlock()
	buf := make([]byte, 1600)
	var h rtp.Header
	started := false
	for {
		n, _, err := remote.Read(buf)
		if err != nil {
			return
		}
		skip, err := h.Unmarshal(buf[:n])
		if err != nil || skip == n {
			continue
		}
		now := s.stamps.take(h.SSRC, h.SequenceNumber)
		s.received.Add(1)
		if video && !started {
			started = s.start(buf[skip:n], now)
		}
		sent := time.Time{}
		if video {
			sent = s.sentAt(mid, buf[skip:n])
		}
		in.add(&h, n-skip, now, sent)
	}
}

// start notes the first video packets; true when the first that can be decoded has come.
func (s *subscriber) start(payload []byte, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.packet == 0 {
		s.packet = now.Sub(s.began)
	}
	if s.decode != 0 {
		return true
	}
	if !clip.StartsKeyframe(payload) {
		return false
	}
	s.decode = now.Sub(s.began)
	close(s.first)
	return true
}

// sentAt is when the publisher wrote a payload, the zero time if that can't be told.
func (s *subscriber) sentAt(mid string, payload []byte) time.Time {
	p, ok := s.run.clip.Find(payload)
	if !ok {
		return time.Time{}
	}
	pub := s.run.publishers[s.media.Load().TrackOf(mid)]
	if pub == nil {
		return time.Time{}
	}
	return time.Unix(0, pub.sent[p.Index].Load())
}

func (in *received) add(h *rtp.Header, size int, now, sent time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bytes += uint64(size)
	fresh := in.stream.Add(tally.Packet{Seq: h.SequenceNumber, Marker: h.Marker, At: now})
	// Beyond that the loop has come round, or the section has just changed its track.
	const limit = 3 * time.Second
	if d := now.Sub(sent); fresh && d >= 0 && d < limit {
		in.delay.Add(d)
	}
}

// begin starts the measurement of everything that is received.
func (s *subscriber) begin() {
	for _, in := range s.everyTrack() {
		in.mu.Lock()
		in.base, in.from = in.stream.Counts(), in.bytes
		in.delay.Reset()
		in.mu.Unlock()
	}
}

// end freezes what was measured since begin.
func (s *subscriber) end() {
	for _, in := range s.everyTrack() {
		in.mu.Lock()
		in.window, in.size = in.stream.Counts().Since(in.base), in.bytes-in.from
		in.result = in.delay
		in.mu.Unlock()
	}
}

func (s *subscriber) everyTrack() []*received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*received(nil), s.tracks...)
}
