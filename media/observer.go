package media

import "sync"

// State is that of an endpoint's connection.
type State uint8

// States.
const (
	Connecting State = iota
	Connected
	Disconnected // silent for a while; it may come back
	Failed
	Closed
)

// String returns the state in lower case.
func (s State) String() string {
	return [...]string{"connecting", "connected", "disconnected", "failed", "closed"}[s]
}

// Slot says what a sending slot carries now; TrackID is empty when it is free.
type Slot struct {
	Mid     string
	TrackID string
}

// Observer hears what happens to one endpoint. Calls come one at a time, from a
// goroutine of the engine, and must not block.
type Observer interface {
	EndpointState(State)
	// SlotsChanged gives the whole list.
	SlotsChanged([]Slot)
	// SlotsNeeded asks for a new offer with at least so many receiving sections.
	SlotsNeeded(audio, video int)
	// TracksQuality comes at most once per second, when something changed.
	TracksQuality([]DownTrackStats)
	// PublisherInterest says up to which of its encodings, low to high, a track of the
	// endpoint should be sent; -1: nobody wants any. It may exceed the highest one.
	PublisherInterest(trackID string, maxSpatial int)
}

// NoObserver ignores everything; embed it to implement a part of Observer.
type NoObserver struct{}

// EndpointState implements Observer.
func (NoObserver) EndpointState(State) {}

// SlotsChanged implements Observer.
func (NoObserver) SlotsChanged([]Slot) {}

// SlotsNeeded implements Observer.
func (NoObserver) SlotsNeeded(int, int) {}

// TracksQuality implements Observer.
func (NoObserver) TracksQuality([]DownTrackStats) {}

// PublisherInterest implements Observer.
func (NoObserver) PublisherInterest(string, int) {}

// notifier runs calls to observers, in order, on one goroutine, so that nobody
// calls out while holding a lock.
type notifier struct {
	mu      sync.Mutex // guards the fields below
	pending []func()
	kick    chan struct{}
}

func newNotifier() *notifier { return &notifier{kick: make(chan struct{}, 1)} }

func (n *notifier) post(f func()) {
	n.mu.Lock()
	n.pending = append(n.pending, f)
	n.mu.Unlock()
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// run calls what was posted until stop is closed, and then what is left.
func (n *notifier) run(stop <-chan struct{}) {
	for {
		n.drain()
		select {
		case <-n.kick:
		case <-stop:
			n.drain()
			return
		}
	}
}

func (n *notifier) drain() {
	for {
		n.mu.Lock()
		calls := n.pending
		n.pending = nil
		n.mu.Unlock()
		if len(calls) == 0 {
			return
		}
		for _, f := range calls {
			f()
		}
	}
}
