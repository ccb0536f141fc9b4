// Package cli is the operator's command line: the management API, tokens and keys from the shell.
package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/auth"
)

const (
	defaultURL = "http://127.0.0.1:7880"

	// The key of amphi dev, which knows no other; tried for loopback addresses only.
	devKey    = "devkey"
	devSecret = "devsecret-not-for-production"

	// managementTTL is how long the token lives that a command makes for itself.
	managementTTL = 2 * time.Minute
)

// Commands are the operator's commands, to be added to the program's root. Their errors suit ExitCode.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		tokenCommand(), roomCommand(), peerCommand(), streamCommand(), recordCommand(), pushCommand(), webhookCommand(), templateCommand(),
		sessionCommand(), nodeCommand(), caCommand(), keysCommand(), portsCommand(), doctorCommand(), loadCommand(), hlsCommand(),
	}
}

// app is what the flags of one command say about the node and the output.
type app struct {
	url      string
	key      string
	secret   string
	json     bool
	insecure bool
	timeout  time.Duration
}

// flags adds the flags that every command of a group takes.
func (a *app) flags(cmd *cobra.Command) *cobra.Command {
	f := cmd.PersistentFlags()
	f.StringVar(&a.url, "url", orEnv("AMPHI_URL", defaultURL), "address of a node")
	f.StringVar(&a.key, "key", "", "id of the API key (default AMPHI_KEY; the development key on loopback)")
	f.StringVar(&a.secret, "secret", "", "secret of the API key (default AMPHI_SECRET)")
	f.BoolVar(&a.json, "json", false, "print JSON")
	f.BoolVar(&a.insecure, "insecure", false, "accept any TLS certificate")
	f.DurationVar(&a.timeout, "timeout", 15*time.Second, "give up after so long")
	return cmd
}

func orEnv(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

// group is a command that only holds others.
func group(use, short string, a *app, subs ...*cobra.Command) *cobra.Command {
	cmd := a.flags(&cobra.Command{Use: use, Short: short, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(fmt.Errorf("%q is not a command of %s; see amphi %s --help", args[0], cmd.Name(), cmd.Name()))
		}
		return cmd.Help()
	}})
	cmd.AddCommand(subs...)
	for _, c := range append(subs, cmd) {
		c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	}
	return cmd
}

// exactly is cobra.ExactArgs with the command's own usage line in the error.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return usage(fmt.Errorf("want: %s", line(cmd)))
		}
		return nil
	}
}

// line is how the command is called.
func line(cmd *cobra.Command) string { return strings.TrimSuffix(cmd.UseLine(), " [flags]") }

// credentials are the key's id and secret: flags, then environment, then the development key on loopback.
func (a *app) credentials() (key, secret string, err error) {
	key, secret = a.key, a.secret
	if key == "" {
		key = os.Getenv("AMPHI_KEY")
	}
	if secret == "" {
		secret = os.Getenv("AMPHI_SECRET")
	}
	if key == "" && secret == "" && loopback(a.url) {
		return devKey, devSecret, nil
	}
	if key == "" || secret == "" {
		return "", "", usage(errors.New("no API key: give --key and --secret, or set AMPHI_KEY and AMPHI_SECRET"))
	}
	return key, secret, nil
}

func loopback(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	if u.Hostname() == "localhost" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback()
}

// httpClient dials the node; it may be used for one command.
func (a *app) httpClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if a.insecure {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	return &http.Client{Transport: transport}
}

// options put the management token on each request.
func (a *app) options() (connect.HTTPClient, string, connect.ClientOption, error) {
	u, err := url.Parse(a.url)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, "", nil, usage(fmt.Errorf("--url %q is not an address such as %s", a.url, defaultURL))
	}
	key, secret, err := a.credentials()
	if err != nil {
		return nil, "", nil, err
	}
	token, err := sign(key, secret, claims{Type: auth.Management, Life: managementTTL})
	if err != nil {
		return nil, "", nil, err
	}
	auth := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+token)
			return next(ctx, req)
		}
	})
	return a.httpClient(), a.url, connect.WithInterceptors(auth), nil
}

func (a *app) rooms() (amphiv1connect.RoomServiceClient, error) {
	return service(a, amphiv1connect.NewRoomServiceClient)
}

func (a *app) peers() (amphiv1connect.PeerServiceClient, error) {
	return service(a, amphiv1connect.NewPeerServiceClient)
}

func (a *app) templates() (amphiv1connect.TemplateServiceClient, error) {
	return service(a, amphiv1connect.NewTemplateServiceClient)
}

func (a *app) streams() (amphiv1connect.StreamServiceClient, error) {
	return service(a, amphiv1connect.NewStreamServiceClient)
}

func (a *app) sessions() (amphiv1connect.SessionServiceClient, error) {
	return service(a, amphiv1connect.NewSessionServiceClient)
}

func (a *app) nodes() (amphiv1connect.NodeServiceClient, error) {
	return service(a, amphiv1connect.NewNodeServiceClient)
}

func service[T any](a *app, build func(connect.HTTPClient, string, ...connect.ClientOption) T) (T, error) {
	client, base, opt, err := a.options()
	if err != nil {
		var none T
		return none, err
	}
	return build(client, base, opt), nil
}

// call does one request of the management API.
func call[Req, Res any](ctx context.Context, a *app, method func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	res, err := method(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, explain(a.url, err)
	}
	return res.Msg, nil
}

// readInput reads a file, or the standard input for "-"; at most a megabyte.
func readInput(cmd *cobra.Command, name string) ([]byte, error) {
	const limit = 1 << 20
	in := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading the input: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("reading %s: longer than %d bytes", name, limit)
	}
	return data, nil
}
