package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/hls/rtmp"
	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/turn"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
	"github.com/amphi-sfu/amphi/signal/exchange"
	"github.com/amphi-sfu/amphi/signal/webhook"
)

// defaultMetricsAddr is loopback: metrics and profiles are for the operator only.
const defaultMetricsAddr = "127.0.0.1:6789"

// Config of a Node.
type Config struct {
	Logger *slog.Logger
	// ID is this node's, Region the name of where it stands.
	ID, Region string
	// HTTPAddr is HOST:PORT of HTTP and WebSocket; the media ports lie beside it.
	HTTPAddr string
	// MetricsAddr is HOST:PORT of metrics and pprof; empty: nowhere.
	MetricsAddr string
	// Now is the wall clock, by which tokens and certificates are valid and records are dated: nothing else goes by it.
	// Default time.Now.
	Now func() time.Time
	// Data is the directory of durable records; empty keeps them in memory.
	Data string
	// MediaUDPAddr and MediaTCPAddr are HOST:PORT of WebRTC media; empty: beside HTTP.
	MediaUDPAddr, MediaTCPAddr string
	// SelfSigned serves HTTPS with a certificate made for this run; TLS with that of the site.
	SelfSigned bool
	TLS        *tls.Config
	// Keys are API keys that the node makes where they are missing.
	Keys []*amphiv1.ApiKey
	// PublicIPs are told to clients as the addresses of media; empty: those of this machine.
	PublicIPs []net.IP
	// TURNAddr and TURNTLSAddr are HOST:PORT of TURN over UDP and TCP, and over TLS; empty: nowhere. TLS needs
	// the node to have a certificate. When a port is taken, any free one serves: clients are told which.
	TURNAddr, TURNTLSAddr string
	// RTMPAddr is HOST:PORT at which encoders publish over RTMP; empty: nowhere.
	RTMPAddr string
	// CompositorPath is the program amphi-compositor; empty looks beside this binary, then in PATH.
	CompositorPath string
	// Storage says where recordings go, Webhooks who is told what happens.
	Storage  StorageConfig
	Webhooks []webhook.Target
	// CompositorCores is the CPU for live streams; one that would need more is refused. 0: as many cores as the machine has.
	CompositorCores float64
	// Cluster joins the node to others; nil: it is alone, unless the two below say otherwise.
	Cluster *ClusterConfig
	// Directory knows the owner of each room, and Carrier brings room messages to other nodes, whose Deliver
	// takes them. Without them this node is alone and owns every room.
	Directory exchange.Directory
	Carrier   exchange.Carrier
}

// Node is one running server: what ARCHITECTURE.md calls a node, as a value, so that tests
// start several in one process.
type Node struct {
	cfg      Config
	log      *slog.Logger
	started  time.Time
	registry records
	mesh     *mesh // nil where the node is alone
	media    *media.Engine
	relay    *turn.Server // nil: none
	tls      *tls.Config  // nil: plain HTTP
	signal   *signal.Server
	origin   *hls.Origin
	streams  *streams
	outputs  *outputs
	// recordings is nil only before open; hooks where nobody is told anything.
	recordings *recordings
	hooks      *webhook.Sender
	rtmp       *rtmp.Server // nil: none
	encoders   *encoders    // of rtmp
	front      *front
	metrics    *front
	usage      *usage
	serving    atomic.Bool
}

// NewNode makes a node and opens its sockets, which fails early when a port is taken.
func NewNode(cfg Config) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ID == "" {
		cfg.ID = proto.NewID(proto.NodePrefix)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.HTTPAddr == "" {
		cfg.HTTPAddr = "127.0.0.1:0"
	}
	n := &Node{cfg: cfg, log: cfg.Logger.With("node", cfg.ID), started: time.Now(), usage: newUsage()}
	if err := n.open(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// open makes the parts, those first that others lean on.
func (n *Node) open() error {
	var err error
	if n.media, err = n.newMedia(); err != nil {
		return err
	}
	deps := signal.Deps{Directory: n.cfg.Directory, Carrier: n.cfg.Carrier, Nodes: n}
	if err := n.openRecords(&deps); err != nil {
		return err
	}
	n.tls = n.cfg.TLS
	if n.tls == nil && n.cfg.SelfSigned {
		if n.tls, err = selfSigned(time.Now()); err != nil {
			return err
		}
	}
	if n.relay, err = n.newRelay(); err != nil {
		return err
	}
	n.streams = newStreams(n.log)
	if n.origin, err = n.newOrigin(); err != nil {
		return err
	}
	deps.Media, deps.Streams = signal.Engine(n.media), n.streams
	if err := n.openOutputs(&deps); err != nil {
		return err
	}
	if n.mesh != nil {
		deps.Streams = n.mesh.direct(n.streams)
		far := n.mesh.directOutputs(n.outputs)
		deps.Outputs, deps.Chat = far, far.chat
		n.recordings.call = n.mesh.link.Call
		n.mesh.link.OnCall(kindAsset, n.recordings.answerDelete)
	}
	n.signal, err = signal.New(signal.Config{
		Logger: n.log, Node: n.cfg.ID, Region: n.cfg.Region, Version: version(), Drain: drainTimeout,
		ICEServers: n.iceServers, Now: n.cfg.Now,
	}, deps)
	if err != nil {
		return err
	}
	n.streams.attach(n.origin, n.signal)
	n.outputs.attach(n.origin, n.signal, n.recordings)
	if n.mesh != nil {
		if err := n.mesh.serveStreams(n.origin); err != nil {
			return err
		}
	}
	if n.rtmp, err = n.newRTMP(); err != nil {
		return err
	}
	if err := n.listen(); err != nil || n.mesh == nil {
		return err
	}
	return n.mesh.announce()
}

// records is what the node, or its whole cluster, keeps and knows.
type records interface {
	signal.Registry
	exchange.Directory
	Close() error
}

// openRecords opens the registry, and where there are other nodes what reaches them.
func (n *Node) openRecords(deps *signal.Deps) error {
	if n.cfg.Cluster != nil {
		var err error
		if n.mesh, err = newMesh(n, *n.cfg.Cluster); err != nil {
			return err
		}
		n.registry = n.mesh.cluster
		deps.Registry, deps.Directory, deps.Carrier = n.registry, n.registry, n.mesh.cluster
		deps.Guide, deps.Planner, deps.Relays = n.mesh, n.mesh.planner, n.mesh
		return nil
	}
	local, err := cluster.NewLocal(cluster.Config{Logger: n.log, Dir: n.cfg.Data, Node: &amphiv1.ClusterNode{Id: n.cfg.ID, Region: n.cfg.Region}})
	if err != nil {
		return fmt.Errorf("opening the records: %w", err)
	}
	n.registry = local
	deps.Registry = local
	if deps.Directory == nil {
		deps.Directory = local
	}
	return n.foundAlone()
}

func (n *Node) newMedia() (*media.Engine, error) {
	udp, tcp := n.cfg.MediaUDPAddr, n.cfg.MediaTCPAddr
	var err error
	if udp == "" {
		if udp, err = beside(n.cfg.HTTPAddr, mediaOffset); err != nil {
			return nil, err
		}
	}
	if tcp == "" {
		if tcp, err = beside(n.cfg.HTTPAddr, iceTCPOffset); err != nil {
			return nil, err
		}
	}
	public := make([]netip.Addr, 0, len(n.cfg.PublicIPs))
	for _, ip := range n.cfg.PublicIPs {
		if address, ok := netip.AddrFromSlice(ip); ok {
			public = append(public, address.Unmap())
		}
	}
	return media.New(media.Config{Logger: n.log, UDPAddr: udp, TCPAddr: tcp, PublicIPs: public})
}

// openOutputs opens what keeps recordings, and what tells applications of everything.
func (n *Node) openOutputs(deps *signal.Deps) error {
	var err error
	if len(n.cfg.Webhooks) > 0 {
		if n.hooks, err = webhook.New(webhook.Config{Logger: n.log, Dir: n.cfg.Data, Targets: n.cfg.Webhooks}); err != nil {
			return err
		}
		deps.Webhooks = n.hooks
	}
	n.outputs = newOutputs(n.log)
	if n.recordings, err = n.newRecordings(); err != nil {
		return fmt.Errorf("opening the recordings: %w", err)
	}
	deps.Outputs, deps.Assets, deps.Chat = n.outputs, n.recordings, n.outputs.chat
	return nil
}

func (n *Node) newOrigin() (*hls.Origin, error) {
	path, err := compositorPath(n.cfg.CompositorPath)
	if err != nil {
		return nil, err
	}
	segments := filepath.Join(n.cfg.Data, "hls-segments")
	if n.cfg.Data == "" {
		segments = filepath.Join(os.TempDir(), "amphi-"+n.cfg.ID+"-segments")
	}
	cores := n.cfg.CompositorCores
	if cores == 0 {
		cores = float64(runtime.NumCPU())
	}
	return hls.New(hls.Config{
		Logger: n.log, CompositorPath: path, SegmentDir: segments, OnState: n.streams.reported, Authorizer: authorizer{n}, Pictures: n.picture, Cores: cores,
	}, hls.Engine(n.media))
}

// compositorName is the program that composes pictures, beside this one or in PATH.
const compositorName = "amphi-compositor"

func compositorPath(wish string) (string, error) {
	if wish != "" {
		return filepath.Abs(wish)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), compositorName)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	if found, err := exec.LookPath(compositorName); err == nil {
		return found, nil
	}
	// Without it everything but streams works; starting one says what is missing.
	return compositorName, nil
}

// Run serves until ctx is done and returns when everything has stopped: nil, or the first
// failure. It calls ready when clients can come.
func (n *Node) Run(ctx context.Context, ready func()) error {
	services := []service{{"the media engine", n.media.Run}}
	if n.mesh != nil {
		services = append(services, n.mesh.services()...)
	}
	if n.hooks != nil {
		services = append(services, service{"webhooks", n.hooks.Run})
	}
	services = append(services, service{"the HLS origin", n.origin.Run}, service{"recordings", n.recordings.Run}, service{"pushes", n.outputs.Run})
	if n.mesh != nil {
		services = append(services, n.mesh.streamServices()...)
	}
	if n.relay != nil {
		services = append(services, service{"TURN", n.relay.Run})
	}
	if n.rtmp != nil {
		services = append(services, service{"RTMP", n.rtmp.Run})
	}
	if n.metrics != nil {
		services = append(services, service{"the metrics server", n.metrics.Run})
	}
	services = append(services,
		service{"resource usage", n.usage.run},
		service{"the HTTP server", n.front.Run},
		// Last, and so stopped first: it says goodbye to clients while everything still works.
		service{"signalling", func(ctx context.Context) error {
			stopped := context.AfterFunc(ctx, func() { n.serving.Store(false) })
			defer stopped()
			return n.signal.Run(ctx)
		}},
	)
	ctx, drained := n.untilDrained(ctx)
	err := runAll(ctx, services, func() {
		n.serving.Store(true)
		ready()
	})
	drained()
	if n.mesh != nil {
		return err
	}
	return errors.Join(err, n.registry.Close())
}

// Close frees what NewNode opened, for a node that never ran.
func (n *Node) Close() {
	for _, f := range []*front{n.front, n.metrics} {
		if f != nil {
			_ = f.Close()
		}
	}
	if n.relay != nil {
		_ = n.relay.Close()
	}
	if n.rtmp != nil {
		_ = n.rtmp.Close()
	}
	if n.recordings != nil {
		n.recordings.close()
	}
	if n.hooks != nil {
		_ = n.hooks.Close()
	}
	if n.mesh != nil {
		n.mesh.close()
	} else if n.registry != nil {
		_ = n.registry.Close()
	}
	if n.media != nil {
		_ = n.media.Close()
	}
}

// Deliver takes an encoded RoomMessage of another node; see signal.Server.
func (n *Node) Deliver(from string, msg []byte) error { return n.signal.Deliver(from, msg) }

// URL is how people on this machine reach the node.
func (n *Node) URL() string { return n.front.URL() }
