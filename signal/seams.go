package signal

import (
	"context"
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Registry is the durable records: templates, rooms, codes, keys, sessions. Safe for concurrent use.
type Registry interface {
	// Read runs f with the records as they are now; f must be quick and neither change nor keep them.
	// Messages inside never change and may be kept.
	Read(f func(*amphiv1.Registry))
	// Propose changes the records and returns when the change is durable, or its refusal with a code.
	Propose(ctx context.Context, cmd *amphiv1.RegistryCommand) error
}

// Streams composes and serves a room's streams. One that also is an owner.Admitter is asked before a stream is accepted.
// Its methods are called one at a time for each stream, of several streams at once, and may take some seconds.
type Streams interface {
	// Start begins a stream with settings from the room's template; an error with a code fails it. The stream's
	// further states come back through Server.ReportStream.
	Start(room string, settings *amphiv1.StreamSettings, stream *amphiv1.Stream) error
	// SetLayout gives a running stream the layout, kind and options, that stream has.
	SetLayout(room string, stream *amphiv1.Stream)
	// Stop ends a stream; one that does not run is ignored.
	Stop(room, stream string)
	// Cue puts something into a stream beside picture and sound, if the stream runs here. It must not block.
	Cue(room, stream string, cue *amphiv1.StreamCue)
}

// Outputs makes recordings and pushes. Its methods are called one at a time for what is made of one stream, or of none, at once
// for several, and may take some seconds.
type Outputs interface {
	// CheckURL tells whether a push may go there, and answers the URL without its secrets. An error has a code, and none of the
	// secrets in its message.
	CheckURL(url string) (redacted string, err error)
	// Start begins an output, whose stream this node had started; an error with a code fails it. Further states come back through
	// Server.ReportOutput.
	Start(OutputStart) error
	// Pause and Resume are of recordings.
	Pause(room, id string)
	Resume(room, id string)
	// Stop ends an output, and does not wait for what is left to be done about its files. One that is not made here is ignored.
	Stop(room, id string)
}

// OutputStart says what to make.
type OutputStart struct {
	Room, Session string
	Output        *amphiv1.Output
	// URL is a push's, with its secrets.
	URL string
}

// Assets reaches the files that outputs left.
type Assets interface {
	// URL is an address at which whoever has it can fetch the file, for so long.
	URL(ctx context.Context, a *amphiv1.Asset, ttl time.Duration) (string, error)
	// Delete takes the file away; one that is not there is no error.
	Delete(ctx context.Context, a *amphiv1.Asset) error
}

// Nodes answers what the management API tells about nodes.
type Nodes interface {
	Nodes() []*amphiv1.NodeInfo
	// Status is this node's; nil for another node's id.
	Status(id string) *amphiv1.NodeStatus
	// Drain moves everything away from a node, which ends when it is empty or after within; 0 is its default.
	Drain(ctx context.Context, id string, within time.Duration) (*amphiv1.NodeInfo, error)
	// Undrain takes a drain back that has not ended.
	Undrain(ctx context.Context, id string) (*amphiv1.NodeInfo, error)
	// Revoke makes the node's certificates that were issued before a time count no more. Unless forced, it refuses what would shut this
	// node out, or leave too few voters.
	Revoke(ctx context.Context, id string, before time.Time, force bool) (*amphiv1.NodeInfo, error)
}

// Planner says over which nodes a room's tracks travel. Its calls come from the rooms that this node owns, several at once.
type Planner interface {
	// Plan is asked when nodes or publishers came or went, and every 5 s. The members are the nodes that follow the room;
	// homes tells the node of each peer that publishes. Nil: before stays as it is, which is nil at first. The plan is the
	// room's afterwards, its version included. It must be quick: tens of milliseconds for the largest room.
	Plan(room string, before *amphiv1.RelayPlan, members []string, homes map[string]string) *amphiv1.RelayPlan
}

// Relays brings the tracks of other nodes here, and those of this node to others. Calls for one room come one at a time and
// in order; they must not block.
type Relays interface {
	// Update states the whole: the room's plan, nil before there is one, and its tracks on whatever nodes.
	Update(room string, plan *amphiv1.RelayPlan, tracks []RelayTrack)
	// Close says that the room has closed on this node.
	Close(room string)
}

// RelayTrack is a track of a room, wherever its publisher is.
type RelayTrack struct {
	ID, PeerID string
	// Kind is "audio" or "video".
	Kind, Source string
	Muted        bool
}

// Media is what signalling needs of the media engine; Engine makes one of the real one.
type Media interface {
	// Router is the room's, made on first use.
	Router(room string) MediaRouter
	// Sections reads an offer whose sections are not known beforehand; an error has a code.
	Sections(offer string) ([]Section, error)
}

// Section is one audio or video section of a client's offer, as the client sees it.
type Section struct {
	Mid             string
	Kind            amphiv1.Kind
	Sends, Receives bool
}

// MediaRouter is one room's media on this node. Safe for concurrent use.
type MediaRouter interface {
	NewEndpoint(peerID string, to EndpointObserver) (Endpoint, error)
	// Mute drops what arrives on the tracks for which muted is true, on every track that is here.
	Mute(muted func(trackID string) bool)
	// Watch sets what to call, without blocking, when tracks came or went and when other people speak.
	Watch(tracks func(), speakers func([]Speaking))
	// Loudest bounds how many microphones are forwarded at the same time; 0 is all.
	Loudest(n int)
	// Close closes the endpoints and tracks of the room, and waits.
	Close() error
}

// Endpoint is one client's PeerConnection. Safe for concurrent use.
type Endpoint interface {
	// Negotiate answers a complete offer; an error has a code.
	Negotiate(offer string, publish []Publishing) (answer string, err error)
	// Subscribe states the whole of what the client is to receive.
	Subscribe(subs []Subscribing)
	// Close ends it and waits.
	Close() error
}

// EndpointObserver hears what happens to an endpoint. Calls come one at a time and must not block.
type EndpointObserver interface {
	// Slots gives what each sending slot carries now.
	Slots(slots []*amphiv1.Slot)
	SlotsNeeded(audio, video int)
	Quality(q *amphiv1.Quality)
	// Interest tells of one published track what somebody wants of it.
	Interest(in *amphiv1.Interest)
	// Gone says that the connection has failed or ended.
	Gone()
}

// Publishing is a sending section of the client and the track that it carries.
type Publishing struct {
	Mid     string
	TrackID string
	Kind    amphiv1.Kind
	Source  string
	// MaxKbps is what the role's layers come to; 0 when they say nothing.
	MaxKbps int
}

// Subscribing is one track that a client is to receive.
type Subscribing struct {
	TrackID string
	// Width and Height in pixels bound the layer; 0 x 0 sends nothing.
	Width, Height int
	// Priority is 1 (first) to 5.
	Priority int
	// MaxSpatial is the highest simulcast layer, 0 lowest; -1 is no bound.
	MaxSpatial int
}

// Speaking is one track on which somebody speaks; loudest first in lists.
type Speaking struct {
	TrackID string
	// Level in dBov, -127 to 0.
	Level int32
}
