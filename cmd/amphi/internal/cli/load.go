package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/livekit"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
)

func loadCommand() *cobra.Command {
	a := &app{}
	cfg := &load.Config{}
	var stream, peer string
	var verbose bool
	cmd := a.flags(&cobra.Command{
		Use:   "load --room ROOM",
		Short: "Generate load and measure what clients get",
		Long: "Joins publishers, WebRTC subscribers and HLS players to a room, lets them chat, and measures join time, loss,\n" +
			"one-way delay, freezes, message latency and HLS latency. With --pid also what the server's process costs.\n" +
			"The room is created if it isn't there, and the stream started if there are players. Roles are chosen from the\n" +
			"room's template by what they may do.",
		Example: "  amphi load --room demo --publishers 2 --subscribers 20 --duration 10s\n" +
			"  amphi load --room bench --publishers 1 --subscribers 200 --traffic steady --pid $(pidof amphi)",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Room == "" {
				return usage(errors.New("which room? Give --room"))
			}
			if verbose {
				cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			}
			cfg.URL = a.url
			prepare := func() error { return a.prepareLoad(cmd.Context(), cfg, stream) }
			if peer != "" {
				prepare = func() error { return a.preparePeer(cfg, peer) }
			}
			if err := prepare(); err != nil {
				return err
			}
			rep, err := load.Run(cmd.Context(), *cfg)
			if err != nil {
				return &problem{err: fmt.Errorf("load: %w", err), exit: exitFailed}
			}
			if a.json {
				return writeJSON(cmd.OutOrStdout(), rep)
			}
			return rep.Text(cmd.OutOrStdout())
		},
	})
	f := cmd.Flags()
	f.StringVar(&cfg.Room, "room", "", "room to join")
	f.IntVar(&cfg.Publishers, "publishers", 0, "peers that publish")
	f.IntVar(&cfg.Subscribers, "subscribers", 0, "peers that receive over WebRTC")
	f.IntVar(&cfg.Players, "hls", 0, "peers that play the stream")
	f.BoolVar(&cfg.Crowd, "crowd", false, "the players do not join and read nothing, so that thousands fit")
	f.StringVar(&cfg.PlayURL, "play-url", "", "node that the players of a crowd ask (default: --url)")
	f.Float64Var(&cfg.ChatRate, "chat", 0, "chat messages per second over all")
	f.DurationVar(&cfg.Duration, "duration", 10*time.Second, "length of the measurement")
	f.DurationVar(&cfg.Settle, "settle", 2*time.Second, "time between the last join and the measurement")
	f.Float64Var(&cfg.JoinRate, "join-rate", 20, "joins per second")
	f.StringVar(&cfg.Traffic, "traffic", load.Simulcast, "simulcast, single, steady (synthetic, for comparisons) or audio")
	f.DurationVar(&cfg.Pace, "pace", 0, "time between the packets of a frame; 0 sends bursts, as encoders do")
	f.IntVar(&cfg.ServerPID, "pid", 0, "measure this process as the server")
	f.StringVar(&cfg.Roles.Publish, "publish-role", "", "role of the publishers (default: chosen)")
	f.StringVar(&cfg.Roles.Subscribe, "subscribe-role", "", "role of the subscribers (default: chosen)")
	f.StringVar(&cfg.Roles.Watch, "hls-role", "", "role of the HLS players (default: chosen)")
	f.StringVar(&stream, "stream", "", "stream that the players play (default: the role's)")
	f.StringVar(&peer, "peer", "", "what the server is, if not Amphi: livekit; to compare, without simulcast, chat and HLS")
	f.BoolVar(&verbose, "verbose", false, "log failures as they happen")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	return cmd
}

// prepareLoad makes sure of the room, chooses roles and starts the stream.
func (a *app) prepareLoad(ctx context.Context, cfg *load.Config, stream string) error {
	key, secret, err := a.credentials()
	if err != nil {
		return err
	}
	cfg.Token = func(role, user string) (string, error) {
		return sign(key, secret, claims{Type: auth.App, Room: cfg.Room, Role: role, User: user, Life: cfg.Duration + 6*time.Hour})
	}
	rooms, err := a.rooms()
	if err != nil {
		return err
	}
	room, err := call(ctx, a, rooms.CreateRoom, &amphiv1.CreateRoomRequest{Name: cfg.Room})
	if err != nil {
		return err
	}
	templates, err := a.templates()
	if err != nil {
		return err
	}
	t, err := call(ctx, a, templates.GetTemplate, &amphiv1.GetTemplateRequest{Name: room.GetTemplate()})
	if err != nil {
		return err
	}
	if err := chooseRoles(t, cfg); err != nil {
		return err
	}
	if cfg.Crowd {
		played := *a
		if cfg.PlayURL != "" {
			played.url = cfg.PlayURL
		}
		cfg.EdgeStatus = played.edgeStatus
	}
	if stream == "" {
		stream = roleNamed(t, cfg.Roles.Watch).GetSubscribe().GetStream()
	}
	cfg.StartStream = func(ctx context.Context) (string, error) { return a.startStream(ctx, cfg.Room, stream) }
	return nil
}

// preparePeer has the load join a server that is not Amphi.
func (a *app) preparePeer(cfg *load.Config, peer string) error {
	if peer != "livekit" {
		return usage(fmt.Errorf("--peer %q: the only one is livekit", peer))
	}
	if cfg.Traffic == load.Simulcast || cfg.ChatRate > 0 || cfg.Players > 0 {
		return usage(errors.New("with --peer, --traffic is single, steady or audio, and there is neither --chat nor --hls"))
	}
	key, secret, err := a.credentials()
	if err != nil {
		return err
	}
	cfg.Open = livekit.Open
	cfg.Roles = load.Roles{Publish: "publisher", Subscribe: "subscriber"}
	cfg.Token = func(role, user string) (string, error) {
		return livekit.Token(key, secret, cfg.Room, user, role == cfg.Roles.Publish, cfg.Duration+6*time.Hour)
	}
	return nil
}

func roleNamed(t *amphiv1.Template, name string) *amphiv1.Role {
	for _, r := range t.GetRoles() {
		if r.GetName() == name {
			return r
		}
	}
	return nil
}

// chooseRoles fills in roles by what they may do; those of the roles that allow most peers come first.
func chooseRoles(t *amphiv1.Template, cfg *load.Config) error {
	publishes := func(r *amphiv1.Role) bool {
		p := r.GetPublish()
		return p.GetAudio() && (p.GetVideo() || cfg.Traffic == load.Audio)
	}
	nothing := func(r *amphiv1.Role) bool {
		p := r.GetPublish()
		return !p.GetAudio() && !p.GetVideo() && !p.GetScreen()
	}
	for _, c := range []struct {
		name  *string
		count int
		what  string
		fits  func(*amphiv1.Role) bool
	}{
		{&cfg.Roles.Publish, cfg.Publishers, "publishes audio and video", publishes},
		{&cfg.Roles.Subscribe, cfg.Subscribers, "only receives over WebRTC", func(r *amphiv1.Role) bool {
			return nothing(r) && r.GetSubscribe().GetDelivery() == amphiv1.Delivery_DELIVERY_WEBRTC
		}},
		{&cfg.Roles.Watch, cfg.Players, "plays a stream", func(r *amphiv1.Role) bool {
			return nothing(r) && r.GetSubscribe().GetDelivery() == amphiv1.Delivery_DELIVERY_HLS
		}},
	} {
		if c.count == 0 {
			continue
		}
		if *c.name == "" {
			*c.name = widest(t, c.fits)
		}
		if roleNamed(t, *c.name) == nil {
			return usage(fmt.Errorf("template %q has no role %q that %s", t.GetName(), *c.name, c.what))
		}
	}
	return nil
}

// widest is the fitting role with room for most peers; of equals the last, as templates list the privileged first.
func widest(t *amphiv1.Template, fits func(*amphiv1.Role) bool) string {
	name, most := "", uint32(0)
	for _, r := range t.GetRoles() {
		size := r.GetMaxPeers() - 1 // 0 is no limit
		if fits(r) && (name == "" || size >= most) {
			name, most = r.GetName(), size
		}
	}
	return name
}

// startStream starts it if it isn't live, and tells where it is played.
func (a *app) startStream(ctx context.Context, room, name string) (string, error) {
	streams, err := a.streams()
	if err != nil {
		return "", err
	}
	if _, err := call(ctx, a, streams.StartStream, &amphiv1.StartStreamRequest{Room: room, Stream: name}); err != nil {
		return "", err
	}
	p, err := call(ctx, a, streams.CreatePlaybackUrl, &amphiv1.CreatePlaybackUrlRequest{Room: room, Stream: name})
	return p.GetUrl(), err
}

// edgeStatus is how the node serves other nodes' streams.
func (a *app) edgeStatus(ctx context.Context) (*amphiv1.EdgeStatus, error) {
	nodes, err := a.nodes()
	if err != nil {
		return nil, err
	}
	s, err := call(ctx, a, nodes.GetNode, &amphiv1.GetNodeRequest{})
	return s.GetEdge(), err
}
