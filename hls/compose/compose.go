// Package compose drives the compositor, the child process that makes the picture
// and the sound of one program. It starts it, tells it what is wanted, feeds it
// packets without ever blocking, watches it, and starts it again when it dies.
package compose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media/packet"
)

// Composer makes a program out of inputs. Child is the one that runs a process; tests
// of a program have a fake.
type Composer interface {
	// Run composes until ctx ends, and returns after everything that it started has.
	Run(ctx context.Context) error
	// Set replaces what is wanted. It never blocks; safe for concurrent use.
	Set(d Desired)
	// WriteRTP hands over a packet of an input. It never blocks, keeps nothing of p, and may
	// be called from any goroutine.
	WriteRTP(input uint32, p *packet.Packet)
	// WriteSenderReport is WriteRTP for sender reports.
	WriteSenderReport(input uint32, sr packet.SenderReport)
	// Stats is a snapshot.
	Stats() Stats
}

// Desired is all that the compositor shall have and show. An input keeps its id and its
// description as long as it is wanted.
type Desired struct {
	Inputs []wire.AddInput
	Scene  wire.Scene
	Mix    wire.AudioMix
	// Pictures that the scene names. Their bytes are not copied and must not be written to.
	Pictures []wire.Picture
	// Idle are the variants that nobody looks at.
	Idle wire.Idle
}

// Output takes what the compositor makes. All methods are called from one goroutine,
// so a slow one holds the program up; bytes are only valid during the call.
type Output interface {
	// Begin says that a compositor is ready, and where its run begins. An error ends it.
	Begin(r *wire.Ready) error
	Video(au wire.VideoAU)
	Audio(au wire.AudioAU)
	// KeyframeRequest says that an input cannot go on without a keyframe.
	KeyframeRequest(input uint32)
	// Gone says that the compositor which began is no more. Begin may follow.
	Gone()
}

// Config of a Child.
type Config struct {
	Logger *slog.Logger // default: slog.Default
	// Path is the compositor's executable, Args and Env what it gets besides. It gets none of
	// the node's environment.
	Path string
	Args []string
	Env  []string
	// Start describes the program. Its EpochNS and FirstTick are not used, but:
	Start wire.Start
	// Epoch is the time of tick 0. With a monotonic reading (as time.Now gives it) the
	// program's time line survives steps of the wall clock. Required.
	Epoch time.Time
	// FirstTick says at which tick a compositor that is started now may begin.
	FirstTick func(now time.Time) int64

	// Watchdog is the longest silence: without a picture for that long, and a quarter more,
	// the process is killed. Default 1 s.
	Watchdog time.Duration
	// ReadyTimeout bounds the time from start to the first picture. Default 5 s.
	ReadyTimeout time.Duration
	// StopTimeout is how long the process may take to end by itself. Default 2 s.
	StopTimeout time.Duration
	// MaxQueue bounds the bytes of packets that wait for the process to read them; beyond
	// it they are dropped. Default 2 MiB.
	MaxQueue int
	// MaxBackoff bounds the wait before another start; it begins with none and doubles
	// from 250 ms for a process that lives less than 5 s. Default 5 s.
	MaxBackoff time.Duration
	// Limits of the process.
	Limits Limits
}

// Limits are what the process may use. They are set before it runs, so that one taken
// over by hostile media cannot lift them.
type Limits struct {
	// Nice is added to the node's own; default 5, so that forwarding comes first.
	Nice int
	// Memory bounds private memory in bytes (RLIMIT_DATA). Default 2 GiB, -1 for none.
	Memory int64
	// Files bounds open descriptors. Default 64.
	Files uint64
	// UID and GID that the process runs as when the node is root. Default 65534 (nobody).
	UID, GID uint32
}

func (c Config) withDefaults() (Config, error) {
	if c.Path == "" || c.FirstTick == nil {
		return c, errors.New("no compositor path or first tick")
	}
	c.Start.EpochNS = c.Epoch.UnixNano()
	if err := c.Start.Validate(); err != nil {
		return c, err
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&c.Watchdog, time.Second}, {&c.ReadyTimeout, 5 * time.Second},
		{&c.StopTimeout, 2 * time.Second}, {&c.MaxBackoff, 5 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.MaxQueue == 0 {
		c.MaxQueue = 2 << 20
	}
	c.Limits = c.Limits.withDefaults()
	return c, nil
}

// New makes a Child; Run starts the process.
func New(cfg Config, out Output) (*Child, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configuring a compositor: %w", err)
	}
	if out == nil {
		return nil, errors.New("configuring a compositor: no output")
	}
	c := &Child{cfg: cfg, out: out, log: cfg.Logger}
	c.stats.State = Down
	return c, nil
}

func (l Limits) withDefaults() Limits {
	if l.Nice == 0 {
		l.Nice = 5
	}
	if l.Memory == 0 {
		l.Memory = 2 << 30
	}
	if l.Files == 0 {
		l.Files = 64
	}
	if l.UID == 0 {
		l.UID = 65534
	}
	if l.GID == 0 {
		l.GID = 65534
	}
	return l
}
