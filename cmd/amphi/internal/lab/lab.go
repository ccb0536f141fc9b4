package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/peer"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/auth"
)

const (
	// callTimeout bounds a question to a node's management API.
	callTimeout = 2 * time.Second
	// startTimeout bounds the start of the whole cluster.
	startTimeout = 45 * time.Second
	// tokenLife is longer than any run.
	tokenLife = 24 * time.Hour
	// tokenBackdate is for nodes whose clocks a scenario turns back.
	tokenBackdate = time.Hour

	// The key of nodes that are alone, which know no other.
	devKey    = "devkey"
	devSecret = "devsecret-not-for-production"
)

// Config of a Lab.
type Config struct {
	Topology Topology
	// Seed decides what the network loses.
	Seed uint64
	// Program is the amphi binary; Switch makes the command whose process is the network (see wire.Serve).
	Program string
	Switch  func() *exec.Cmd
	// Dir gets a directory for each node, with its configuration, data and log. What a killed lab left there is removed.
	Dir string
	// Prefix of the namespaces' names, and of the lock; "amphi-lab-" unless set.
	Prefix string
	// Out gets progress and the table; Verbose logs what peers see, too.
	Out    io.Writer
	Logger *slog.Logger
}

// Lab is a running cluster with its network.
type Lab struct {
	cfg    Config
	lock   *os.File
	net    *network
	nodes  []*process
	key    string
	secret string
	nets   map[string]*peer.Network // of the clients, by region
	https  map[string]*http.Client
}

// New makes the network and the nodes' directories; no node runs yet. It needs root.
func New(ctx context.Context, cfg Config) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root, for network namespaces")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "amphi-lab-"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	l := &Lab{cfg: cfg, nets: map[string]*peer.Network{}, https: map[string]*http.Client{}, key: devKey, secret: devSecret}
	if l.lock, err = lock(cfg.Prefix); err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	if err := l.checkProgram(ctx); err != nil {
		return err
	}
	if err := cleanUp(l.cfg.Prefix, l.cfg.Dir); err != nil {
		return fmt.Errorf("removing what an earlier lab left: %w", err)
	}
	if err := os.RemoveAll(l.cfg.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(l.cfg.Dir, 0o755); err != nil {
		return err
	}
	if !l.cfg.Topology.Alone {
		secret := make([]byte, 24)
		rand.Read(secret)
		l.key, l.secret = keyID, hex.EncodeToString(secret)
	}
	var err error
	if l.net, err = newNetwork(l.cfg.Topology, l.cfg.Seed, l.cfg.Prefix, l.cfg.Switch()); err != nil {
		return err
	}
	for i, n := range l.cfg.Topology.Nodes {
		h := l.net.hosts[i]
		p, err := newProcess(n, l.net.spaces[n.ID], h.addr.String(), l.cfg.Dir, l.cfg.Program)
		if err != nil {
			return err
		}
		l.nodes = append(l.nodes, p)
		if err := l.configure(p, h.addr.String()); err != nil {
			return err
		}
	}
	for _, r := range l.cfg.Topology.regions() {
		space := l.net.spaces[clientsOf(r)]
		if l.nets[r], err = peer.NewNetwork(space); err != nil {
			return err
		}
		l.https[r] = peer.HTTPClient(space)
	}
	if l.cfg.Topology.Alone {
		return nil
	}
	return l.credentials(ctx)
}

// Close ends all nodes and takes the network away.
func (l *Lab) Close() error {
	var wg sync.WaitGroup
	for _, p := range l.nodes {
		wg.Go(p.kill)
	}
	wg.Wait()
	var errs []error
	if l.net != nil {
		errs = append(errs, l.net.close())
	}
	errs = append(errs, unmountBelow(l.cfg.Dir), l.lock.Close())
	return errors.Join(errs...)
}

// Start starts all nodes that don't run and waits until the cluster is whole.
func (l *Lab) Start(ctx context.Context) error {
	for _, p := range l.nodes {
		if !p.running() {
			if err := p.start(); err != nil {
				return err
			}
		}
	}
	if err := l.await(ctx, startTimeout, func(ctx context.Context) error { return l.whole(ctx) }); err != nil {
		return fmt.Errorf("the cluster did not become whole: %w", err)
	}
	return nil
}

// await asks again and again until what returns nil; its last error when that takes too long.
func (l *Lab) await(ctx context.Context, timeout time.Duration, what func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last error
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := what(ctx); err == nil {
			return nil
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(last, ctx.Err())
		case <-tick.C:
		case <-l.net.wire.Done():
			return errors.New("the network's process has ended")
		}
	}
}

// whole tells why the cluster is not as it should be: every node ready, seeing all others and a leader.
func (l *Lab) whole(ctx context.Context) error {
	errs := make([]error, len(l.nodes))
	var wg sync.WaitGroup
	for i, p := range l.nodes {
		wg.Go(func() {
			if !p.running() {
				errs[i] = fmt.Errorf("%s has ended:\n%s", p.ID, p.logTail(5))
				return
			}
			if errs[i] = p.ready(ctx); errs[i] != nil || l.cfg.Topology.Alone {
				return
			}
			s, err := l.status(ctx, p)
			if err != nil {
				errs[i] = err
				return
			}
			errs[i] = wholeSeen(p.ID, len(l.nodes), s)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func wholeSeen(id string, nodes int, s *amphiv1.NodeStatus) error {
	c := s.GetCluster()
	switch {
	case c.GetLeader() == "":
		return fmt.Errorf("%s knows no leader", id)
	case !c.GetLeased():
		return fmt.Errorf("%s has no lease", id)
	case int(c.GetAlive()) != nodes:
		return fmt.Errorf("%s sees %d of %d nodes alive", id, c.GetAlive(), nodes)
	}
	for _, t := range s.GetTrunks() {
		if t.GetState() != "up" {
			return fmt.Errorf("%s has a trunk to %s that is %s", id, t.GetNode(), t.GetState())
		}
	}
	return nil
}

// manage makes a client of a node's management API, which reaches it whatever the network is like.
func manage[T any](l *Lab, p *process, build func(connect.HTTPClient, string, ...connect.ClientOption) T) (T, error) {
	now := time.Now()
	token, err := auth.Signer{KeyID: l.key, Secret: l.secret}.Mint(auth.Grant{
		Type: auth.Management, IssuedAt: now.Add(-tokenBackdate), ExpiresAt: now.Add(time.Hour),
	})
	if err != nil {
		var none T
		return none, fmt.Errorf("making a token: %w", err)
	}
	return build(p.http, p.url, connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+token)
			return next(ctx, req)
		}
	}))), nil
}

// status asks a node for its own.
func (l *Lab) status(ctx context.Context, p *process) (*amphiv1.NodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	nodes, err := manage(l, p, amphiv1connect.NewNodeServiceClient)
	if err != nil {
		return nil, err
	}
	res, err := nodes.GetNode(ctx, connect.NewRequest(&amphiv1.GetNodeRequest{}))
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", p.ID, err)
	}
	return res.Msg, nil
}

// token lets a peer join a room.
func (l *Lab) token(room, role, user string) (string, error) {
	now := time.Now()
	return auth.Signer{KeyID: l.key, Secret: l.secret}.Mint(auth.Grant{
		Type: auth.App, Room: room, Role: role, UserID: user, IssuedAt: now.Add(-tokenBackdate), ExpiresAt: now.Add(tokenLife),
	})
}

// node finds one by its id.
func (l *Lab) node(id string) *process {
	i := slices.IndexFunc(l.nodes, func(p *process) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return l.nodes[i]
}

// byURL finds the node that a peer is connected to.
func (l *Lab) byURL(url string) *process {
	i := slices.IndexFunc(l.nodes, func(p *process) bool { return p.url == url })
	if i < 0 {
		return nil
	}
	return l.nodes[i]
}
