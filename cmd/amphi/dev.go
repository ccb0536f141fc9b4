package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/code"
	"github.com/amphi-sfu/amphi/signal/template"
	"github.com/amphi-sfu/amphi/signal/webhook"
)

// What `amphi dev` starts with. The key is printed and documented: it protects nothing.
const (
	devKey    = "devkey"
	devSecret = "devsecret-not-for-production"
	devRoom   = "demo"
	// devHookSecret signs webhooks where no secret is given.
	devHookSecret = "whsec_ZGV2c2VjcmV0LW5vdC1mb3ItcHJvZHVjdGlvbg=="
	// opsTokenLife is how long the printed ops link works.
	opsTokenLife = 24 * time.Hour
)

func devCommand() *cobra.Command {
	var (
		config            = Config{ID: proto.NewID(proto.NodePrefix)}
		turnPort, tlsPort uint16
		verbose           bool
		hooks             []string
		hookSecret        string
	)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the whole platform in one process, for trying and developing",
		Long: `Runs the whole platform in one process, with a demo room of the template
"live-event" and a key that everybody knows. Prints one link per role.

The other ports lie beside --http: ICE-TCP one above, WebRTC media (UDP) two above.
TURN has its usual ports, or where they are taken any others.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			config.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			var err error
			if config.TURNAddr, err = turnAddr(config.HTTPAddr, turnPort); err != nil {
				return err
			}
			if config.TURNTLSAddr, err = turnAddr(config.HTTPAddr, tlsPort); err != nil {
				return err
			}
			for _, url := range hooks {
				config.Webhooks = append(config.Webhooks, webhook.Target{URL: url, Secrets: []string{hookSecret}})
			}
			return runDev(cmd.Context(), config, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.HTTPAddr, "http", ":7880", "address of HTTP and WebSocket")
	flags.StringVar(&config.Data, "data", "", "directory to keep rooms, codes and templates in (default: memory)")
	flags.StringVar(&config.Region, "region", "local", "name of this node's region")
	flags.BoolVar(&config.SelfSigned, "tls-self-signed", false, "serve HTTPS with a certificate made for this run, as browsers on other machines need for cameras")
	flags.StringVar(&config.MetricsAddr, "metrics", defaultMetricsAddr, "address of metrics and pprof; empty: nowhere")
	flags.Uint16Var(&turnPort, "turn-port", defaultTURNPort, "port of TURN over UDP and TCP; 0: no TURN")
	flags.Uint16Var(&tlsPort, "turn-tls-port", defaultTURNTLSPort, "port of TURN over TLS, where the node has a certificate; 0: none")
	flags.StringVar(&config.RTMPAddr, "rtmp", "", "address at which encoders publish over RTMP, as rtmp://HOST/live/KEY with a room code or an app token as KEY; usually :1935 (default: nowhere)")
	flags.StringVar(&config.CompositorPath, "compositor", "", "the program amphi-compositor (default: beside this binary, then PATH)")
	flags.IPSliceVar(&config.PublicIPs, "public-ip", nil, "addresses told to clients for media (default: those of this machine)")
	flags.StringVar(&config.Storage.Dir, "recordings", "", "directory of recordings (default: below --data, or a temporary one that goes with the process)")
	flags.StringSliceVar(&hooks, "webhook", nil, "addresses to tell what happens")
	flags.StringVar(&hookSecret, "webhook-secret", devHookSecret, "what signs webhooks: 24 to 64 bytes, or base64 behind whsec_")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log more")
	return cmd
}

func runDev(ctx context.Context, config Config, out io.Writer) error {
	if config.Data != "" {
		if err := os.MkdirAll(config.Data, 0o700); err != nil {
			return fmt.Errorf("making the data directory: %w", err)
		}
	}
	node, err := NewNode(config)
	if err != nil {
		return err
	}
	codes, err := seedDev(ctx, node)
	if err != nil {
		node.Close()
		return fmt.Errorf("preparing the demo room: %w", err)
	}
	return node.Run(ctx, func() {
		if err := printDev(out, node, codes); err != nil {
			config.Logger.Error("printing the links", "err", err)
		}
	})
}

// seedDev makes the development key, the room and its codes, where they are not there yet.
func seedDev(ctx context.Context, node *Node) ([]*amphiv1.RoomCode, error) {
	preset, err := template.Preset(template.DefaultPreset)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	var wanted []*amphiv1.RegistryCommand
	var codes []*amphiv1.RoomCode
	node.registry.Read(func(r *amphiv1.Registry) {
		if r.GetKeys()[devKey] == nil {
			wanted = append(wanted, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutKey{
				PutKey: &amphiv1.ApiKey{Id: devKey, Secret: devSecret}}})
		}
		if r.GetRooms()[devRoom] == nil {
			wanted = append(wanted, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutRoom{
				PutRoom: &amphiv1.Room{Name: devRoom, Template: preset.GetName(), Description: "Demo", CreatedMs: now}}})
		}
		known := map[string]*amphiv1.RoomCode{}
		for _, c := range r.GetCodes() {
			if c.GetRoom() == devRoom && !c.GetDisabled() {
				known[c.GetRole()] = c
			}
		}
		for _, role := range preset.GetRoles() {
			c := known[role.GetName()]
			if c == nil {
				c = &amphiv1.RoomCode{Code: code.New(), Room: devRoom, Role: role.GetName(), CreatedMs: now}
				wanted = append(wanted, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutCode{PutCode: c}})
			}
			codes = append(codes, c)
		}
	})
	for _, command := range wanted {
		command.Id, command.TimeMs = proto.NewID(proto.RequestPrefix), now
		if err := node.registry.Propose(ctx, command); err != nil {
			return nil, err
		}
	}
	return codes, nil
}

func printDev(out io.Writer, node *Node, codes []*amphiv1.RoomCode) error {
	now := time.Now()
	token, err := auth.Signer{KeyID: devKey, Secret: devSecret}.Mint(auth.Grant{
		Type: auth.Management, IssuedAt: now, ExpiresAt: now.Add(opsTokenLife)})
	if err != nil {
		return err
	}
	url := node.URL()
	program, err := os.Executable()
	if err != nil {
		program = "amphi"
	}
	fmt.Fprintf(out, "\namphi %s is ready. Room %q, template live-event:\n\n", version(), devRoom)
	for _, c := range codes {
		fmt.Fprintf(out, "  %-10s %s/m/%s\n", c.GetRole(), url, c.GetCode())
	}
	fmt.Fprintf(out, "\n  %-10s %s/ops#token=%s\n", "ops", url, token)
	fmt.Fprintf(out, "\nTokens:     %s token --room %s --role ROLE\n", filepath.Base(program), devRoom)
	fmt.Fprintf(out, "Key:        %s   Secret: %s\n", devKey, devSecret)
	fmt.Fprintf(out, "End:        Ctrl-C\n\n")
	if !node.front.loopback() {
		fmt.Fprintf(out, "Everybody who reaches this port can use the key above: on an untrusted network use --http 127.0.0.1:7880.\n\n")
	}
	return nil
}
