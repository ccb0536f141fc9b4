package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/nodefile"
	"github.com/amphi-sfu/amphi/hls/storage"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/webhook"
)

func serveCommand() *cobra.Command {
	var (
		file          string
		check, debugs bool
	)
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run a node, alone or of a cluster",
		Long: `Runs a node as its YAML file says (deploy/amphi.yaml explains every key). The first SIGTERM or
SIGINT drains it: its rooms, relays and clients move to other nodes, then it ends. A second one ends it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := nodefile.Load(file)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if debugs {
				level = slog.LevelDebug
			}
			logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			made, err := nodeConfig(config, logger)
			if err != nil || check {
				return err
			}
			return runServe(cmd.Context(), made, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's YAML file")
	cmd.Flags().BoolVar(&check, "check", false, "only check the file and what it names")
	cmd.Flags().BoolVarP(&debugs, "verbose", "v", false, "log more")
	_ = cmd.MarkFlagRequired("config") // the flag is there
	return cmd
}

func runServe(ctx context.Context, config Config, out io.Writer) error {
	if config.Data != "" {
		if err := os.MkdirAll(config.Data, 0o700); err != nil {
			return fmt.Errorf("making the data directory: %w", err)
		}
	}
	node, err := NewNode(config)
	if err != nil {
		return err
	}
	return node.Run(ctx, func() { fmt.Fprintf(out, "amphi %s: node %s serves %s\n", version(), config.ID, node.URL()) })
}

// nodeConfig turns what the file says into a Node's configuration, and reads the files that it names.
func nodeConfig(f nodefile.Config, logger *slog.Logger) (Config, error) {
	clock, err := wallClock(os.Getenv(clockOffsetFile))
	if err != nil {
		return Config{}, err
	}
	c := Config{
		Now: clock, Logger: logger, ID: f.Node, Region: f.Region, HTTPAddr: f.HTTP, MetricsAddr: f.Metrics, Data: f.Data,
		MediaUDPAddr: f.MediaUDP, MediaTCPAddr: f.MediaTCP, RTMPAddr: f.RTMP,
		CompositorCores: f.CompositorCores,
	}
	if c.TURNAddr, err = turnAddr(f.HTTP, f.TURNPort); err != nil {
		return c, err
	}
	if c.TURNTLSAddr, err = turnAddr(f.HTTP, f.TURNTLSPort); err != nil {
		return c, err
	}
	for _, ip := range f.PublicIPs {
		c.PublicIPs = append(c.PublicIPs, net.IP(ip.AsSlice()))
	}
	if len(c.PublicIPs) == 0 && f.Advertise.IsValid() {
		c.PublicIPs = []net.IP{f.Advertise.AsSlice()}
	}
	if f.TLSCert != "" {
		if c.TLS, err = siteTLS(f.TLSCert, f.TLSKey, logger); err != nil {
			return c, err
		}
	}
	for _, k := range f.Keys {
		c.Keys = append(c.Keys, &amphiv1.ApiKey{Id: k.ID, Secret: k.Secret})
	}
	c.Storage.Dir = f.Recordings
	if b := f.Bucket; b != nil {
		c.Storage.Bucket = &storage.S3Config{Endpoint: b.Endpoint, Region: b.Region, Bucket: b.Name, Prefix: b.Prefix,
			AccessKey: b.AccessKey, SecretKey: b.SecretKey, PathStyle: b.PathStyle}
	}
	for _, h := range f.Webhooks {
		c.Webhooks = append(c.Webhooks, webhook.Target{URL: h.URL, Secrets: h.Secrets, Events: h.Events})
	}
	if f.Cluster == nil {
		return c, nil
	}
	who, err := identity.Load(identity.Config{
		Logger: logger, Node: f.Node, Files: identity.Files{CA: f.Cluster.CA, Cert: f.Cluster.Cert, Key: f.Cluster.Key}, Now: clock,
	})
	if err != nil {
		return c, err
	}
	c.Cluster = &ClusterConfig{
		Name: f.Cluster.Name, Zone: f.Zone, Roles: f.Roles, Identity: who, URL: f.URL, Advertise: f.Advertise,
		LinkAddr: f.Cluster.Listen, GossipAddr: f.Cluster.Gossip, TrunkAddr: f.Cluster.Trunk, GossipKeyFile: f.Cluster.GossipKeys,
		Seeds: f.Cluster.Seeds, Allow: f.Cluster.Allow, BootstrapExpect: f.Cluster.BootstrapExpect, Keys: c.Keys, Drain: f.Drain,
	}
	return c, nil
}
