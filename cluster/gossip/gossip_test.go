package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain waits for memberlist's goroutines, which its Shutdown does not: a probe under way may take some seconds more.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		deadline := time.Now().Add(15 * time.Second)
		err := goleak.Find()
		for err != nil && time.Now().Before(deadline) {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// network is between the nodes of a test. Addresses of one side of a cut do not reach those of the other.
type network struct {
	mu    sync.Mutex // guards the fields below
	sides map[string]int
	loss  float64 // of packets, each way
}

func (n *network) put(side int, nodes ...*node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, node := range nodes {
		n.sides[node.Addr().String()] = side
	}
}

// from is the cut as the node at self sees it.
func (n *network) from(self *atomic.Value) func(string) bool {
	return func(address string) bool {
		own, _ := self.Load().(string)
		n.mu.Lock()
		defer n.mu.Unlock()
		// Half of it where a packet is sent, half where it comes.
		return n.sides[own] != n.sides[address] || rand.Float64() < n.loss/2
	}
}

type node struct {
	*Gossip
	stop func()
}

// cluster makes nodes that share a key and a network.
type cluster struct {
	t    *testing.T
	net  *network
	keys string // file
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, net: &network{sides: map[string]int{}}, keys: filepath.Join(t.TempDir(), "gossip.key")}
	writeKeys(t, c.keys, NewKey())
	return c
}

func writeKeys(t *testing.T, file string, keys ...string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) start(id string, change func(*Config), seeds ...*node) *node {
	c.t.Helper()
	var own atomic.Value
	cfg := Config{
		Logger: slog.New(slog.DiscardHandler), Cluster: "test", Addr: "127.0.0.1:0", KeyFile: c.keys,
		Rejoin: 200 * time.Millisecond, blocked: c.net.from(&own),
		Self: Member{
			ID: id, Region: "eu-west", Zone: "rack-a", Roles: []string{"stage", "voter"}, URL: "https://" + id + ".example.org:7880",
			ClusterAddr: "127.0.0.1:7947", TrunkAddr: "127.0.0.1:7948", Version: "v1", StartedMs: 1,
		},
	}
	for _, s := range seeds {
		cfg.Seeds = append(cfg.Seeds, s.Addr().String())
	}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	own.Store(g.Addr().String())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	n := &node{Gossip: g, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("%s: %v", id, err)
		}
	})}
	c.t.Cleanup(n.stop)
	return n
}

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("it did not happen in %v: %s", within, what)
		}
	}
}

func (n *node) sees(id string, states ...State) bool {
	for _, m := range n.Members() {
		for _, s := range states {
			if m.ID == id && m.State == s {
				return true
			}
		}
	}
	return false
}

// whole tells whether each of the nodes sees all of them alive.
func whole(nodes ...*node) bool {
	for _, n := range nodes {
		for _, other := range nodes {
			if !n.sees(other.cfg.Self.ID, Alive) {
				return false
			}
		}
	}
	return true
}

const generous = 20 * time.Second

func TestNodesFindEachOtherByAnySeed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", nil)
	// One dead seed among them, and this node's own address.
	b := c.start("b", func(cfg *Config) { cfg.Seeds = []string{"127.0.0.1:1", a.Addr().String()} })
	d := c.start("d", func(cfg *Config) { cfg.Self.Region, cfg.Self.Roles = "us-east", []string{"audience"} }, b)
	eventually(t, generous, "three nodes see each other", func() bool { return whole(a, b, d) })
	for _, m := range a.Members() {
		if m.ID != "d" {
			continue
		}
		if m.Region != "us-east" || len(m.Roles) != 1 || m.Roles[0] != "audience" || m.URL != "https://d.example.org:7880" ||
			m.ClusterAddr != "127.0.0.1:7947" || m.TrunkAddr != "127.0.0.1:7948" || m.Version != "v1" || m.Addr != d.Addr() {
			t.Errorf("a knows of d: %+v", m)
		}
	}
	changes := a.Stats().Members[Alive]
	if changes != 3 {
		t.Errorf("%d alive", changes)
	}
}

func TestLoadAndDrainingAreTold(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var told atomic.Int64
	a := c.start("a", nil)
	b, err := New(Config{Cluster: "test", Addr: "127.0.0.1:0", KeyFile: c.keys, Seeds: []string{a.Addr().String()}, Self: Member{ID: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	b.Watch(func() { told.Add(1) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	nb := &node{Gossip: b}
	eventually(t, generous, "b sees a", func() bool { return nb.sees("a", Alive) })
	before := told.Load()
	a.SetLoad(200)
	a.SetDraining(true)
	eventually(t, generous, "b hears of both", func() bool {
		for _, m := range b.Members() {
			if m.ID == "a" {
				return m.Load == 200 && m.Draining
			}
		}
		return false
	})
	eventually(t, generous, "the watcher is called", func() bool { return told.Load() > before })
}

func TestADeathIsKnownToAll(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", nil)
	nodes := []*node{a, c.start("b", nil, a), c.start("d", nil, a), c.start("e", nil, a), c.start("f", nil, a)}
	eventually(t, generous, "five nodes see each other", func() bool { return whole(nodes...) })
	began := time.Now()
	c.net.put(1, nodes[4])
	for _, n := range nodes[:4] {
		eventually(t, 8*time.Second, "the death is known", func() bool { return n.sees("f", Dead) })
	}
	t.Logf("known to all after %v", time.Since(began).Round(10*time.Millisecond))
	if !whole(nodes[:4]...) {
		t.Error("a living node was found dead with it")
	}
}

func TestNobodyIsFoundDeadByLoss(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", nil)
	nodes := []*node{a, c.start("b", nil, a), c.start("d", nil, a), c.start("e", nil, a), c.start("f", nil, a)}
	eventually(t, generous, "five nodes see each other", func() bool { return whole(nodes...) })
	c.net.mu.Lock()
	c.net.loss = 0.02
	c.net.mu.Unlock()
	deaths := 0
	end := time.After(8 * time.Second)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for ended := false; !ended; {
		select {
		case <-ticker.C:
			for _, n := range nodes {
				deaths += n.Stats().Members[Dead]
			}
		case <-end:
			ended = true
		}
	}
	if deaths > 0 {
		t.Errorf("living nodes were dead for %d looks", deaths)
	}
}

func TestWhoLeavesSaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", nil)
	b := c.start("b", nil, a)
	eventually(t, generous, "two nodes see each other", func() bool { return whole(a, b) })
	b.stop()
	eventually(t, 2*time.Second, "a knows that b left", func() bool { return a.sees("b", Left, Dead) })
	// A node of this name may come back at another address at once.
	again := c.start("b", nil, a)
	eventually(t, generous, "b is back", func() bool { return whole(a, again) })
}

func TestAPartitionLongerThanTheDeadTimeHeals(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	short := func(cfg *Config) { cfg.DeadTime = time.Second }
	a := c.start("a", short)
	b := c.start("b", short, a)
	d := c.start("d", short, a)
	e := c.start("e", short, a)
	eventually(t, generous, "four nodes see each other", func() bool { return whole(a, b, d, e) })
	c.net.put(1, d, e)
	eventually(t, generous, "each half finds the other dead", func() bool {
		return a.sees("d", Dead) && a.sees("e", Dead) && b.sees("d", Dead) && b.sees("e", Dead) &&
			d.sees("a", Dead) && d.sees("b", Dead) && e.sees("a", Dead) && e.sees("b", Dead)
	})
	// Longer than memberlist talks to the dead.
	long := time.After(1500 * time.Millisecond)
	<-long
	began := time.Now()
	c.net.put(0, d, e)
	eventually(t, generous, "they are one again", func() bool { return whole(a, b, d, e) })
	t.Logf("whole again after %v", time.Since(began).Round(10*time.Millisecond))
}

func TestKnownPeersOutliveARestartWithoutSeeds(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	file := filepath.Join(t.TempDir(), "data", "peers.json")
	keep := func(cfg *Config) { cfg.PeersFile = file }
	a := c.start("a", nil)
	b := c.start("b", keep, a)
	eventually(t, generous, "two nodes see each other", func() bool { return whole(a, b) })
	b.stop()
	again := c.start("b", keep)
	eventually(t, generous, "b finds a without a seed", func() bool { return whole(a, again) })
	again.stop()
	if err := os.WriteFile(file, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	last := c.start("b", keep, a)
	eventually(t, generous, "a damaged file is no obstacle", func() bool { return whole(a, last) })
}

func TestKeysAreRotatedWhileNodesRun(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	before, err := os.ReadFile(c.keys)
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := strings.TrimSpace(string(before)), NewKey()
	other := filepath.Join(t.TempDir(), "gossip.key")
	writeKeys(t, other, old)
	a := c.start("a", nil)
	b := c.start("b", func(cfg *Config) { cfg.KeyFile = other }, a)
	eventually(t, generous, "two nodes see each other", func() bool { return whole(a, b) })
	first := func(n *node) string { return fmt.Sprint(n.ring.GetPrimaryKey()) }
	was := first(a)
	for _, step := range [][]string{{old, fresh}, {fresh, old}, {fresh}} {
		for file, n := range map[string]*node{c.keys: a, other: b} {
			writeKeys(t, file, step...)
			eventually(t, generous, "the keys are taken", func() bool {
				keys := n.ring.GetKeys()
				return len(keys) == len(step) && (step[0] == old) == (first(n) == was)
			})
		}
		load := uint8(len(step) * 50)
		a.SetLoad(load)
		a.SetDraining(len(step) == 1)
		eventually(t, generous, "they still hear each other", func() bool {
			for _, m := range b.Members() {
				if m.ID == "a" {
					return m.Load == load && m.State == Alive
				}
			}
			return false
		})
	}
	if got := a.Stats().Refused["wrong_key"]; got != 0 {
		t.Errorf("%d packets could not be decrypted during the rotation", got)
	}
	writeKeys(t, c.keys, "damaged")
	a.checkKeys()
	if len(a.ring.GetKeys()) != 1 {
		t.Error("a damaged key file was taken")
	}
}

func TestStrangersAreRefusedAndCounted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", func(cfg *Config) { cfg.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	b := c.start("b", nil, a)
	eventually(t, generous, "two nodes see each other", func() bool { return whole(a, b) })

	wrong := filepath.Join(t.TempDir(), "gossip.key")
	writeKeys(t, wrong, NewKey())
	c.start("thief", func(cfg *Config) { cfg.KeyFile = wrong }, a)
	// It has nobody to send packets to: what is counted is its stream.
	eventually(t, generous, "a stream of another key", func() bool { return a.Stats().Refused["wrong_key"] > 0 })
	c.start("stray", func(cfg *Config) { cfg.Cluster = "other" }, a)

	udp, err := net.Dial("udp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, junk := range []string{"hello", "\xf4", strings.Repeat("y", maxPacket+1)} {
		_, _ = udp.Write([]byte(junk))
	}
	for _, junk := range []string{"GET / HTTP/1.1\r\n\r\n", "\xf4\x04test\x05hello", "\xf4\x04test\x0a\xff\xff\xff\xff"} {
		tcp, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = tcp.Write([]byte(junk))
		_ = tcp.(*net.TCPConn).CloseWrite()
		defer tcp.Close()
	}
	outside, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, net.UDPAddrFromAddrPort(a.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	_, _ = outside.Write([]byte("hello"))
	streams := a.Stats().Refused["wrong_key"]
	eventually(t, generous, "a packet of another key", func() bool {
		_, _ = udp.Write([]byte("\xf4\x04test" + strings.Repeat("x", 100)))
		return a.Stats().Refused["wrong_key"] > streams+10
	})
	for _, reason := range []string{"wrong_label", "garbage", "not_encrypted", refusedSize, refusedAddress} {
		eventually(t, generous, reason, func() bool { return a.Stats().Refused[reason] > 0 })
	}
	if !whole(a, b) || len(a.Members()) != 2 {
		t.Errorf("a sees %v", a.Members())
	}
}

func TestStreamsOfOneHostAreLimited(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", nil)
	for range maxHostStreams + 5 {
		conn, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	eventually(t, generous, "the rest is refused", func() bool { return a.Stats().Refused[refusedCrowd] >= 5 })
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	damaged := filepath.Join(t.TempDir(), "k")
	writeKeys(t, damaged, "# a comment", "c2hvcnQ=")
	for name, change := range map[string]func(*Config){
		"is not a node id":          func(cfg *Config) { cfg.Self.ID = "a b" },
		"the region has 65 bytes":   func(cfg *Config) { cfg.Self.Region = strings.Repeat("r", 65) },
		"only printable ASCII":      func(cfg *Config) { cfg.Self.Zone = "a\x1b[2J" },
		"is not HOST:PORT":          func(cfg *Config) { cfg.Seeds = []string{"ams-1"} },
		"line 2 is not a key":       func(cfg *Config) { cfg.KeyFile = damaged },
		"no such file":              func(cfg *Config) { cfg.KeyFile = damaged + ".missing" },
		"needs a name":              func(cfg *Config) { cfg.Cluster = "" },
		"say which one the others":  func(cfg *Config) { cfg.Addr = ":0" },
		"opening gossip's port":     func(cfg *Config) { cfg.Addr = "192.0.2.1:7946" },
		"at most 512":               func(cfg *Config) { cfg.Self.URL, cfg.Self.Roles = "https://"+strings.Repeat("u", 240), many(8) },
		"roles, at most 8":          func(cfg *Config) { cfg.Self.Roles = many(9) },
		"the cluster address \"x\"": func(cfg *Config) { cfg.Self.ClusterAddr = "x" },
	} {
		cfg := Config{Cluster: "test", Addr: "127.0.0.1:0", KeyFile: c.keys, Self: Member{ID: "a"}}
		change(&cfg)
		g, err := New(cfg)
		if err == nil {
			_ = g.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v; want %q", err, name)
		}
	}
}

func many(n int) []string {
	roles := make([]string, n)
	for i := range roles {
		roles[i] = fmt.Sprintf("role-%d-%s", i, strings.Repeat("x", 40))
	}
	return roles
}

func FuzzDescription(f *testing.F) {
	seed, err := encode(Member{ID: "a", Region: "eu-west", Roles: []string{"stage"}, URL: "https://a", ClusterAddr: "10.0.0.1:7947", Load: 3}, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a", seed)
	f.Fuzz(func(t *testing.T, id string, data []byte) {
		m, leaving, err := decode(id, data)
		if err != nil {
			return
		}
		again, err := encode(m, leaving)
		if err != nil {
			if len(data) < 500 {
				t.Errorf("%+v was read but cannot be written: %v", m, err)
			}
			return
		}
		if other, _, err := decode(id, again); err != nil || fmt.Sprint(other) != fmt.Sprint(m) {
			t.Errorf("%+v, then %+v, %v", m, other, err)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte(NewKey() + "\n# comment\n\n" + NewKey()))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := ParseKeys(data)
		if (err == nil) == (len(keys) == 0) {
			t.Errorf("%d keys and %v", len(keys), err)
		}
	})
}
