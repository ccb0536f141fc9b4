// Package cascade carries the tracks of a room to the nodes that have it open: what is wanted at a node it asks of the node
// that the room's relay plan names, what other nodes ask of this one it sends them. DESIGN.md explains how.
package cascade

import (
	"context"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

// Periods and limits of the protocol.
const (
	// refresh is how often wants are repeated, lease how long one holds.
	refresh = time.Second
	lease   = 3 * time.Second
	// deafAfter is how long a parent may leave wants unanswered before another one is asked, badFor how long it is
	// not turned to then, and returnAfter how long a node stays with another parent than its plan's.
	deafAfter   = 2500 * time.Millisecond
	badFor      = 5 * time.Second
	maxStrike   = 4 // how often badFor doubles
	returnAfter = 5 * time.Second
	// inquireAgain is how often a better parent is asked whether it has the tracks.
	inquireAgain = 250 * time.Millisecond
	// refusedRetry is when what was refused is asked for again, refusedMost how long a parent may refuse.
	refusedRetry = 100 * time.Millisecond
	refusedMost  = time.Second
	// freshFor is how long after its last packet a stream is gone on with, instead of begun anew.
	freshFor = 2500 * time.Millisecond
	// leaveAfter is when what still comes from a former parent is not taken any more.
	leaveAfter   = lease
	tickPeriod   = 50 * time.Millisecond
	expirePeriod = 200 * time.Millisecond
	pacePeriod   = 5 * time.Millisecond
	reportPeriod = 100 * time.Millisecond
	secondPeriod = time.Second

	maxEncodings = media.MaxEncodings
	maxWants     = 200    // in one message
	maxServes    = 20_000 // wants of one node
	maxName      = 256    // bytes of a name on the wire
	maxPath      = 8      // nodes that a track passes
)

// Config of a Manager.
type Config struct {
	// Node is this node's id.
	Node string
	// Logger gets changes of parents and, once a second, what was refused. Default: discards.
	Logger *slog.Logger
}

// Class says how important the packets of a label are to who has to leave some out: the highest are left out first.
type Class uint8

// Classes.
const (
	Audio Class = iota
	Screen
	Base // the lowest encoding
	MiddleLarge
	MiddleSmall
	TopLarge
	TopSmall
)

// Trunks reach other nodes. Methods must not block nor call back, and may be called while locks are held.
type Trunks interface {
	// Message sends msg, which is not kept, in order and reliably while the trunk is up; an error means that it is lost.
	Message(node string, msg []byte) error
	// Send sends one packet, which is not kept, or drops it.
	Send(node string, label uint32, ext uint64, class Class, rtp []byte)
}

// Track is a track of a room, wherever its publisher is.
type Track struct {
	ID, PeerID string
	Kind       codec.Kind
	Source     string
	Muted      bool
}

// Media is what the manager needs of the media engine; Engine makes one of the real one.
type Media interface {
	// Track finds a track of a room on this node, remote ones included. The same track is an equal value.
	Track(room, id string) (MediaTrack, bool)
	AddRemote(room string, cfg media.RemoteConfig, o media.RemoteObserver) (Remote, error)
	// Watch calls f, which must not block, after tracks or encodings of the room came or went. It ends with the room.
	Watch(room string, f func())
	// Now is the clock of arrivals, in nanoseconds.
	Now() int64
	// Flush sends subscribers what was written.
	Flush()
}

// MediaTrack is an UpTrack.
type MediaTrack interface {
	Encodings() []Encoding
	WantLayer(by any, maxSpatial int)
	// Large says that somebody shows it large.
	Large() bool
	// Quiet says that it is a microphone that is not one of the loudest. It may be called by a sink.
	Quiet() bool
}

// Encoding is *media.Encoding. Numbers are those of the wire. Packet, Highest and StartFrom may be called by a sink.
type Encoding interface {
	Attach(s packet.Sink)
	Detach(s packet.Sink)
	RequestKeyframe()
	Packet(ext uint64) *packet.Packet
	Highest() uint64
	StartFrom() (ext uint64, ok bool)
	Spatial() int
	RID() string
	Codec() codec.Codec
	Size() (width, height int)
}

// Remote is *media.Remote.
type Remote interface {
	Write(encoding int, ext uint64, rtp []byte, arrivalNS int64) bool
	WriteReport(encoding int, sr packet.SenderReport)
	Describe([]media.EncodingInfo)
	Restart(home string)
	Close()
}

// Manager carries the tracks of all rooms between this node and others. Its methods are safe for concurrent use; Flush, Shed and
// those whose names begin with Trunk are the trunks' to call.
type Manager struct {
	cfg    Config
	log    *slog.Logger
	media  Media
	trunks Trunks
	start  time.Time
	kick   chan struct{}
	drops  dropCounters
	in     labelTable[*label]
	out    outTable

	nextLabel atomic.Uint32
	pending   pendingReports

	mu         sync.Mutex // guards the fields below; taken before media's locks, a relay's, pending's and the tables'
	rooms      map[string]*room
	nodes      map[string]*node
	catching   map[*relay]struct{}
	paced      time.Duration      // when something was replayed last
	changed    map[*room]struct{} // rooms whose tracks or encodings changed
	number     uint64             // of the last message
	generation uint64             // given last
	reparented uint64             // how often a feed went over to another node
	closed     bool
}

// node is another node, as far as its trunk goes.
type node struct {
	up     bool
	budget int64 // bits per second, 0: unknown
	serves int
}

// New makes a Manager, which works from the call of Run on.
func New(cfg Config, m Media, t Trunks) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	now := time.Now()
	return &Manager{
		cfg: cfg, log: cfg.Logger, media: m, trunks: t, start: now, kick: make(chan struct{}, 1),
		rooms: map[string]*room{}, nodes: map[string]*node{}, catching: map[*relay]struct{}{}, changed: map[*room]struct{}{},
		generation: firstGeneration(cfg.Node, now),
	}
}

// generationStep is above the bits of a generation that stand for the node.
const generationStep = 1 << 12

// firstGeneration is below all that a node gives from now on, above all that it gave before it was restarted, and not
// another node's.
func firstGeneration(node string, now time.Time) uint64 {
	h := fnv.New32a()
	h.Write([]byte(node))
	return uint64(now.UnixMicro())*generationStep + uint64(h.Sum32()%generationStep)
}

// Run keeps leases, replays and re-parents until ctx ends; then everything is let go of.
func (m *Manager) Run(ctx context.Context) error {
	tick, pace := time.NewTicker(tickPeriod), time.NewTimer(time.Hour)
	defer tick.Stop()
	defer pace.Stop()
	var reported, told time.Duration
	for {
		pacing := false
		select {
		case <-ctx.Done():
			m.shut()
			return nil
		case <-m.kick:
		case <-pace.C:
			pacing = true
		case <-tick.C:
			now := m.now()
			m.tick(now)
			if now-reported >= reportPeriod {
				reported = now
				m.sendReports()
			}
			if now-told >= secondPeriod {
				told = now
				m.eachSecond()
			}
		}
		if m.work(pacing) {
			pace.Reset(pacePeriod)
		}
	}
}

// now is the time since the manager began.
func (m *Manager) now() time.Duration { return time.Since(m.start) }

// wake makes Run look at once.
func (m *Manager) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// work serves rooms whose tracks changed, and replays; it says whether there is more to replay.
func (m *Manager) work(pacing bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r := range m.changed {
		delete(m.changed, r)
		r.mediaChangedLocked()
	}
	if now := m.now(); pacing || now-m.paced >= pacePeriod {
		m.paced = now
		m.paceLocked(now)
	}
	return len(m.catching) > 0
}

// tick lets go of what has expired, changes parents that have fallen silent and repeats wants.
func (m *Manager) tick(now time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rooms {
		r.tickLocked(now)
	}
}

// shut ends all rooms.
func (m *Manager) shut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, r := range m.rooms {
		r.closeLocked()
	}
	clear(m.rooms)
	clear(m.catching)
}

func (m *Manager) nodeLocked(id string) *node {
	n := m.nodes[id]
	if n == nil {
		n = &node{}
		m.nodes[id] = n
	}
	return n
}

// TrunkUp says that another node can be reached.
func (m *Manager) TrunkUp(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodeLocked(id).up = true
	now := m.now()
	for _, r := range m.rooms {
		r.nodeUpLocked(id, now)
	}
}

// TrunkDown says that another node cannot be reached any more. Who got tracks from it turns to another one.
func (m *Manager) TrunkDown(id, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodeLocked(id)
	n.up, n.budget = false, 0
	now, before := m.now(), m.reparented
	for _, r := range m.rooms {
		r.nodeDownLocked(id, reason, now)
	}
	if moved := m.reparented - before; moved > 0 {
		m.log.Info("tracks come by other nodes", "lost", id, "why", reason, "feeds", moved)
	}
}

// TrunkBudget says how many bits per second a trunk carries now.
func (m *Manager) TrunkBudget(id string, bps int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodeLocked(id).budget = bps
}

// TrunkMedia takes a packet of a label; false: the label was not assigned to that node. rtp is not kept.
func (m *Manager) TrunkMedia(id string, number uint32, ext uint64, rtp []byte, arrivalNS int64) bool {
	m.in.mu.RLock()
	l := m.in.labels[number]
	if l != nil && l.source.node == id && l.awaited.Load() {
		m.in.mu.RUnlock()
		m.begin(l)
		m.in.mu.RLock()
		l = m.in.labels[number]
	}
	if l == nil || l.source.node != id || l.awaited.Load() {
		m.in.mu.RUnlock()
		if l == nil && number != 0 && number <= m.nextLabel.Load() || l != nil && l.source.node == id {
			m.drops.add(dropRetired)
		} else {
			m.drops.add(dropLabel)
		}
		return false
	}
	// Held while it is written: who takes labels away knows that nothing of them follows.
	l.take(ext, rtp, arrivalNS)
	m.in.mu.RUnlock()
	return true
}

// Flush follows a batch of TrunkMedia.
func (m *Manager) Flush() { m.media.Flush() }

// TrunkPacket appends packet ext of a label to dst, to be sent again; without effect if it is gone.
func (m *Manager) TrunkPacket(id string, number uint32, ext uint64, dst []byte) []byte {
	r := m.out.find(id, number)
	if r == nil {
		return dst
	}
	return r.again(ext, dst)
}

// Shed says that a label's packets are not being sent for want of bandwidth, or are again: then from a keyframe on.
func (m *Manager) Shed(id string, number uint32, shed bool) {
	r := m.out.find(id, number)
	if r == nil {
		return
	}
	r.shed.Store(shed)
	if !shed {
		r.enc.RequestKeyframe()
	}
}
