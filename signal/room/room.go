// Package room decides what happens in one room. State is the owner's side: commands go in, numbered events
// and results come out. Replica is every node's side: events go in, and what clients may know comes out.
// Both fold the same events into the same view. Pure: no I/O, clock, goroutine or log; not safe for concurrent use.
package room

import (
	"time"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// How long the owner waits before it gives something up.
const (
	// PingEvery is how often a client says something at least.
	PingEvery = 5 * time.Second
	// LostAfter is how long a client may be missing before others see its peer leave.
	LostAfter = 15 * time.Second
	// HoldFor is how long a peer whose client is missing keeps its place and id.
	HoldFor = 60 * time.Second
	// RequestFor is how long a role change may wait for the peer's answer.
	RequestFor = 60 * time.Second
)

// Config is what a session starts with.
type Config struct {
	// Room is the room's name.
	Room string
	// SessionID names this life of the room.
	SessionID string
	// Template holds roles, streams and limits; it must have passed validation and is not changed afterwards.
	Template *pb.Template
	// Locked and Metadata are the room's own, from its durable record.
	Locked   bool
	Metadata string
	// Durable are store entries that outlived earlier sessions.
	Durable []*pb.StoreEntry
	// Now is when the owner made the state.
	Now time.Time
	// Homes tells the node of each peer's client, as far as it is known, and Record is the session's earlier one, nil if
	// there is none; both are of Restore.
	Homes  map[string]string
	Record *pb.Session
	// IDs makes identifiers; the default is proto.NewID. Tests count instead.
	IDs func(prefix string) string
}

// Actor is who sends a command. The edge and the owner's node fill it in; a client has no say in it.
type Actor struct {
	// PeerID is the peer that asks; empty for a join, the management API and nodes.
	PeerID string
	// Management: the management API asks, with every permission.
	Management bool
	// Node is the node that the command came through.
	Node string
	// NoRoom is why the stream that the command starts could not be composed; nil when it could.
	NoRoom error
}

// State is the owner's side of one session of a room.
type State struct {
	view
	cfg Config
	// home is the node of each peer's client.
	home map[string]string
	// gone is since when each disconnected peer's client is missing, in milliseconds.
	gone map[string]int64
	// held are the tracks that a lost peer gets back when it returns.
	held     map[string][]*pb.Track
	timers   timers
	session  record
	out      []*pb.Event
	now      time.Time
	lastHand int64
}

// New makes the state of a session that nobody has joined yet; it begins with the first join.
func New(cfg Config) *State {
	if cfg.IDs == nil {
		cfg.IDs = proto.NewID
	}
	if cfg.Template == nil {
		cfg.Template = &pb.Template{}
	}
	s := &State{view: newView(&pb.RoomState{
		Room:      cfg.Room,
		SessionId: cfg.SessionID,
		Template:  cfg.Template,
		Locked:    cfg.Locked,
		Metadata:  cfg.Metadata,
		Store:     cfg.Durable,
	})}
	s.start(cfg)
	return s
}

// Restore goes on from a snapshot, as a standby does that takes over. Peers count as connected until their
// nodes say otherwise; of Config only ids, time, homes and record count.
func Restore(cfg Config, snapshot *pb.RoomState) *State {
	if cfg.IDs == nil {
		cfg.IDs = proto.NewID
	}
	cfg.Room, cfg.SessionID, cfg.Template = snapshot.GetRoom(), snapshot.GetSessionId(), snapshot.GetTemplate()
	s := &State{view: newView(snapshot)}
	s.start(cfg)
	for _, p := range s.peers {
		s.lastHand = max(s.lastHand, p.GetHandRaisedMs())
	}
	for id, node := range cfg.Homes {
		if s.peers[id] != nil {
			s.home[id] = node
		}
	}
	s.session.resume(cfg.Record, &s.view, cfg.Now.UnixMilli())
	s.restoreTimers()
	return s
}

// Publishers tells the node of each peer that publishes.
func (s *State) Publishers() map[string]string {
	homes := map[string]string{}
	for _, id := range s.publisher {
		if home := s.home[id]; home != "" {
			homes[id] = home
		}
	}
	return homes
}

func (s *State) start(cfg Config) {
	s.cfg, s.now = cfg, cfg.Now
	s.home = map[string]string{}
	s.gone = map[string]int64{}
	s.held = map[string][]*pb.Track{}
	s.session = newRecord(&s.view)
}

// Apply decides one command. The events are the command's effects, in order; a refused command has none.
// The result is never nil: an error with a code of package proto, a body, or empty where there is nothing to say.
// Events and everything in them are shared and must not be changed.
func (s *State) Apply(now time.Time, from Actor, cmd *pb.Command) (*pb.Result, []*pb.Event) {
	s.advance(now)
	c := call{State: s, from: from}
	res, err := c.dispatch(cmd)
	if err != nil {
		return &pb.Result{Body: &pb.Result_Error{Error: proto.Wire(err)}}, s.flush()
	}
	if res == nil {
		res = &pb.Result{}
	}
	return res, s.flush()
}

// Ended tells whether the session is over: ended, or its last peer left. No command does anything any more.
func (s *State) Ended() bool { return s.ended }

// Idle tells whether nobody has joined yet.
func (s *State) Idle() bool { return s.started == 0 }

// Snapshot is the whole state at the present event number. It is the caller's; what it points to is shared.
func (s *State) Snapshot() *pb.RoomState { return s.snapshot() }

// Session is the session's record with its attendance, up to now or to its end.
func (s *State) Session() *pb.Session { return s.session.snapshot(&s.view) }

// Attendance is how long a peer was here, also one that has left; nil: it was not, or too many were.
func (s *State) Attendance(peerID string) *pb.Attendance { return s.session.of(peerID) }

// emit numbers an event, folds it into the view and keeps it for flush.
func (s *State) emit(ev *pb.Event) uint64 {
	ev.Seq = s.seq + 1
	ev.TimeMs = s.now.UnixMilli()
	s.session.note(&s.view, ev)
	s.apply(ev)
	s.out = append(s.out, ev)
	return ev.Seq
}

func (s *State) flush() []*pb.Event {
	out := s.out
	s.out = nil
	return out
}

// advance moves the state's clock, never back.
func (s *State) advance(now time.Time) {
	if now.After(s.now) {
		s.now = now
	}
}

// call is one command being decided.
type call struct {
	*State
	from Actor
	// peer is the peer that asks, nil for the management API and nodes.
	peer *pb.Peer
	// may is what the asker's role permits; the management API may everything.
	may *pb.Permissions
}

func (c *call) dispatch(cmd *pb.Command) (*pb.Result, error) {
	if c.ended {
		return nil, proto.Errorf(proto.RoomEnded, "the session has ended")
	}
	switch b := cmd.GetBody().(type) {
	case *pb.Command_Join:
		return c.join(b.Join)
	case *pb.Command_PeerConnection:
		return c.peerConnection(b.PeerConnection)
	case *pb.Command_StreamReport:
		return c.streamReport(b.StreamReport)
	case *pb.Command_OutputReport:
		return c.outputReport(b.OutputReport)
	case nil:
		return nil, proto.Errorf(proto.InvalidMessage, "the command is empty or unknown")
	}
	if err := c.identify(); err != nil {
		return nil, err
	}
	if c.peer != nil {
		if res, done, err := ownCommand(c, cmd); done {
			return res, err
		}
	}
	return roomCommand(c, cmd)
}

// ownCommand decides what only a peer can ask, for itself.
func ownCommand(c *call, cmd *pb.Command) (res *pb.Result, done bool, err error) {
	switch b := cmd.GetBody().(type) {
	case *pb.Command_Leave:
		c.leave()
	case *pb.Command_Publish:
		res, err = c.publish(b.Publish)
	case *pb.Command_Unpublish:
		err = c.unpublish(b.Unpublish)
	case *pb.Command_UpdateTrack:
		err = c.updateTrack(b.UpdateTrack)
	case *pb.Command_AnswerRoleChange:
		err = c.answerRoleChange(b.AnswerRoleChange)
	default:
		return nil, false, nil
	}
	return res, true, err
}

// roomCommand decides what peers with the permission and the management API can ask.
func roomCommand(c *call, cmd *pb.Command) (*pb.Result, error) {
	switch b := cmd.GetBody().(type) {
	case *pb.Command_MutePeers:
		return nil, c.mutePeers(b.MutePeers)
	case *pb.Command_Send:
		return c.send(b.Send)
	case *pb.Command_Moderate:
		return nil, c.moderate(b.Moderate)
	case *pb.Command_RaiseHand:
		return nil, c.raiseHand(b.RaiseHand)
	case *pb.Command_SetStore:
		return c.setStore(b.SetStore)
	case *pb.Command_ChangeRole:
		return c.changeRole(b.ChangeRole)
	case *pb.Command_UpdatePeer:
		return nil, c.updatePeer(b.UpdatePeer)
	case *pb.Command_RemovePeers:
		return nil, c.removePeers(b.RemovePeers)
	case *pb.Command_UpdateRoom:
		return nil, c.updateRoom(b.UpdateRoom)
	case *pb.Command_EndRoom:
		return nil, c.endRoom(b.EndRoom)
	case *pb.Command_ControlStream:
		return nil, c.controlStream(b.ControlStream)
	case *pb.Command_ControlOutput:
		return c.controlOutput(b.ControlOutput)
	case *pb.Command_StreamCue:
		return c.streamCue(b.StreamCue)
	case *pb.Command_ListPeers:
		return &pb.Result{Body: &pb.Result_ListPeers{ListPeers: list(&c.view, b.ListPeers)}}, nil
	}
	return nil, proto.Errorf(proto.InvalidMessage, "this command needs a peer")
}

// identify finds out who asks and what it may do.
func (c *call) identify() error {
	if c.from.Management {
		c.may = everything()
		if c.started == 0 {
			return proto.Errorf(proto.NotFound, "no session runs in this room")
		}
		return nil
	}
	p := c.peers[c.from.PeerID]
	if p == nil || p.GetLost() {
		return proto.Errorf(proto.NotJoined, "the peer is not in the room")
	}
	c.peer = p
	c.may = c.role(p.GetRole()).GetPermissions()
	return nil
}

// by names who acts in events: the peer, or nobody for the management API.
func (c *call) by() string { return c.peer.GetId() }

func denied(what string) error {
	return proto.Errorf(proto.PermissionDenied, "your role may not %s", what)
}

func everything() *pb.Permissions {
	return &pb.Permissions{
		EndRoom: true, RemoveOthers: true, MuteOthers: true, AskUnmute: true, ChangeRole: true,
		SendBroadcast: true, SendToRoles: true, SendDirect: true, React: true, SendEvents: true, RaiseHand: true,
		WriteStore: []string{""}, ManagePolls: true, AnswerPolls: true,
		ControlStream: true, ControlRecording: true, ControlPush: true,
		ModerateChat: true, PreviewRoomState: true, ManageRoom: true, AnnotateStream: true,
	}
}
