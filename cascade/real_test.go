package cascade

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cascade/plan"
	"github.com/amphi-sfu/amphi/cascade/trunk"
	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// realNode is a media engine, trunks over loopback and a Manager.
type realNode struct {
	id     string
	engine *media.Engine
	trunks *trunk.Set
	m      *Manager
	listen net.Listener
	stop   func()
}

// setTrunks makes Trunks of a trunk.Set.
type setTrunks struct{ set **trunk.Set }

func (s setTrunks) Message(node string, msg []byte) error { return (*s.set).Message(node, msg) }
func (s setTrunks) Send(node string, label uint32, ext uint64, class Class, rtp []byte) {
	(*s.set).Send(node, label, ext, trunk.Class(class), rtp)
}

// certificates returns what makes a node's TLS configuration, all of one authority.
func certificates(t testing.TB) func(node string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	pool := x509.NewCertPool()
	return func(node string) *tls.Config {
		cert := ca
		if node != "" {
			cert = &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{node}, Subject: pkix.Name{CommonName: node}}
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if node == "" {
			parsed, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			pool.AddCert(parsed)
			return nil
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{trunk.ALPN},
		}
	}
}

// startNodes runs nodes that reach each other over loopback.
func startNodes(t testing.TB, ids ...string) map[string]*realNode {
	t.Helper()
	issue := certificates(t)
	issue("")
	nodes := map[string]*realNode{}
	for _, id := range ids {
		cfg := issue(id)
		listen, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
		if err != nil {
			t.Fatal(err)
		}
		engine, err := media.New(media.Config{UDPAddr: "127.0.0.1:0", Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		x := &realNode{id: id, engine: engine, listen: listen}
		x.m = New(Config{Node: id}, Engine(engine), setTrunks{&x.trunks})
		x.trunks, err = trunk.New(trunk.Config{Node: id, UDPAddr: "127.0.0.1:0", Now: engine.Now}, trunk.Deps{
			Handler: x.m, Shed: x.m.Shed, Flush: x.m.Flush,
			Dial: func(ctx context.Context, node string) (*tls.Conn, error) {
				client := cfg.Clone()
				client.ServerName = node
				conn, err := (&tls.Dialer{Config: client}).DialContext(ctx, "tcp", nodes[node].listen.Addr().String())
				if err != nil {
					return nil, err
				}
				return conn.(*tls.Conn), nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes[id] = x
	}
	for _, x := range nodes {
		x.run(t)
	}
	peers := map[string]netip.AddrPort{}
	for _, x := range nodes {
		peers[x.id] = x.trunks.LocalAddr()
	}
	for _, x := range nodes {
		x.trunks.SetPeers(peers)
	}
	for _, x := range nodes {
		eventually(t, "trunks are up", func() bool {
			up := 0
			for _, s := range x.trunks.Stats().Trunks {
				if s.Up {
					up++
				}
			}
			return up == len(ids)-1
		})
	}
	return nodes
}

func (x *realNode) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{x.engine.Run, x.trunks.Run, x.m.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("%s: %v", x.id, err)
			}
		})
	}
	wg.Go(func() {
		for {
			conn, err := x.listen.Accept()
			if err != nil {
				return
			}
			c := conn.(*tls.Conn)
			if c.HandshakeContext(ctx) != nil {
				c.Close()
				continue
			}
			x.trunks.Accept(c.ConnectionState().PeerCertificates[0].Subject.CommonName, c)
		}
	})
	x.stop = sync.OnceFunc(func() {
		cancel()
		x.listen.Close()
		wg.Wait()
	})
	t.Cleanup(x.stop)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// source is a publisher at a node: a track into which packets are written by hand.
type fakePublisher struct {
	remote *media.Remote
	engine *media.Engine
	ext    uint64
	ts     uint32
	size   int
	mu     sync.Mutex // guards the fields below
	wanted int
	key    bool
}

func (p *fakePublisher) Interest(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = n
}

func (p *fakePublisher) RequestKeyframe(int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = true
}

func (p *fakePublisher) interest() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wanted
}

func newFakePublisher(t testing.TB, x *realNode) *fakePublisher {
	t.Helper()
	p := &fakePublisher{engine: x.engine, ext: 1 << 33, size: 1000, wanted: -1, key: true}
	var err error
	if p.remote, err = x.engine.Router("room").AddRemote(media.RemoteConfig{ID: "cam", Source: "camera", Origin: "p", Kind: codec.Video}, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// frame writes a frame of VP8 of so many packets.
func (p *fakePublisher) frame(packets int) {
	p.mu.Lock()
	key := p.key
	p.key = false
	p.mu.Unlock()
	for i := range packets {
		b := make([]byte, p.size)
		b[1] = 0x01
		if i == 0 {
			b[0] = 0x10
			if key {
				copy(b[1:], []byte{0x50, 0, 0, 0x9d, 1, 0x2a, 64, 1, 180, 0})
			}
		}
		binary.BigEndian.PutUint64(b[20:], p.ext)
		q := packet.Packet{ExtSeq: p.ext, Timestamp: p.ts, SSRC: 7, PayloadType: 96, Marker: i == packets-1, AudioLevel: packet.NoAudioLevel, Payload: b}
		p.remote.Write(0, p.ext, q.AppendRelayed(nil), p.engine.Now())
		p.ext++
	}
	p.engine.Flush()
	p.ts += 1800
}

// tap notes when packets come, by number.
type tap struct {
	mu   sync.Mutex // guards the fields below
	at   map[uint64]time.Time
	rtp  map[uint64]string
	last time.Time
}

func newTap() *tap { return &tap{at: map[uint64]time.Time{}, rtp: map[uint64]string{}} }

func (s *tap) WriteRTP(p *packet.Packet) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[media.WireSeq(p)], s.last = now, now
	if len(s.rtp) < 1000 {
		s.rtp[media.WireSeq(p)] = string(p.AppendRelayed(nil))
	}
}

func (s *tap) WriteSenderReport(packet.SenderReport) {}

func (s *tap) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

// watch attaches a tap to the track at a node, which makes it wanted there.
func watch(t testing.TB, x *realNode) *tap {
	t.Helper()
	s := newTap()
	eventually(t, "the track is known at "+x.id, func() bool {
		r, ok := x.engine.LookupRouter("room")
		if !ok {
			return false
		}
		u := r.UpTrack("cam")
		if u == nil || len(u.Encodings()) == 0 {
			return false
		}
		u.Encodings()[0].Attach(s)
		return true
	})
	return s
}

// chain is a plan by which tracks of the first node pass all the others.
func chain(nodes ...string) *amphiv1.RelayPlan {
	tree := plan.Tree{Home: nodes[0]}
	for i, id := range nodes[1:] {
		tree.Hops = append(tree.Hops, plan.Hop{Node: id, Parent: nodes[i], Backup: nodes[0]})
	}
	return plan.Encode(&plan.Plan{Trees: []plan.Tree{tree}}, 1, map[string]string{"p": nodes[0]})
}

func TestRealNodes(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, "a", "b", "c")
	p := newFakePublisher(t, nodes["a"])
	p.frame(3)
	for _, x := range nodes {
		x.m.Update("room", chain("a", "b", "c"), []Track{camera("cam", "p")})
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if p.interest() >= 0 {
					p.frame(3)
				}
			}
		}
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { close(done) })
	s := watch(t, nodes["c"])
	eventually(t, "packets come by two hops", func() bool { return s.count() > 200 })
	through := watch(t, nodes["b"])
	eventually(t, "and at the node between", func() bool { return through.count() > 100 })
	s.mu.Lock()
	through.mu.Lock()
	same := 0
	for ext, rtp := range through.rtp {
		if other, ok := s.rtp[ext]; ok {
			if same++; other != rtp {
				t.Errorf("packet %d is not the same everywhere", ext)
			}
		}
	}
	through.mu.Unlock()
	s.mu.Unlock()
	if same == 0 {
		t.Error("no packet came to both")
	}
	nodes["b"].stop()
	s.mu.Lock()
	before := len(s.at)
	s.mu.Unlock()
	eventually(t, "packets come without the node between", func() bool { return s.count() > before+200 })
	s.mu.Lock()
	defer s.mu.Unlock()
	var exts []uint64
	for ext := range s.at {
		exts = append(exts, ext)
	}
	slices.Sort(exts)
	missing := int(exts[len(exts)-1]-exts[0]) + 1 - len(exts)
	if newest := 3; missing > newest { // of a frame under way
		t.Errorf("%d of %d packets are missing", missing, len(exts))
	}
}

// BenchmarkHop sends 5,000 packets per second over one trunk on loopback and reports how much later they are there (C1).
func BenchmarkHop(b *testing.B) {
	nodes := startNodes(b, "a", "b")
	p := newFakePublisher(b, nodes["a"])
	p.frame(3)
	for _, x := range nodes {
		x.m.Update("room", chain("a", "b"), []Track{camera("cam", "p")})
	}
	far := watch(b, nodes["b"])
	eventually(b, "it is wanted", func() bool { p.frame(1); return far.count() > 10 })
	near := newTap()
	nodes["a"].engine.Router("room").UpTrack("cam").Encodings()[0].Attach(near)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for b.Loop() {
		<-tick.C
		p.frame(10)
	}
	eventually(b, "all are there", func() bool {
		far.mu.Lock()
		defer far.mu.Unlock()
		_, ok := far.at[p.ext-1]
		return ok
	})
	var late []time.Duration
	for ext, at := range near.at {
		if there, ok := far.at[ext]; ok {
			late = append(late, there.Sub(at))
		}
	}
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(late[len(late)*99/100].Microseconds())/1000, "ms-p99")
	b.ReportMetric(float64(len(near.at)-len(late)), "missing")
}

// BenchmarkRelay is the work per packet at a node in the middle: from a trunk to media and on to another node.
func BenchmarkRelay(b *testing.B) {
	engine, err := media.New(media.Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	m, number := middle(b, engine)
	q := packet.Packet{PayloadType: 96, AudioLevel: packet.NoAudioLevel, Payload: append([]byte{0x10, 1}, make([]byte, 1000)...)}
	raw := q.AppendRelayed(nil)
	ext := uint64(1000)
	b.ReportAllocs()
	for b.Loop() {
		ext++
		raw[2], raw[3] = byte(ext>>8), byte(ext)
		if !m.TrunkMedia("home", number, ext, raw, engine.Now()) {
			b.Fatal("not taken")
		}
	}
}

// middle is a manager between a home and another node, to which it sends what comes under the label returned.
func middle(t testing.TB, engine *media.Engine) (m *Manager, number uint32) {
	t.Helper()
	m = New(Config{Node: "self"}, Engine(engine), silentTrunks{})
	p := &plan.Plan{Trees: []plan.Tree{{Home: "home", Hops: []plan.Hop{{Node: "self", Parent: "home", Backup: "home"}, {Node: "other", Parent: "self", Backup: "home"}}}}}
	m.TrunkUp("home")
	m.TrunkUp("other")
	m.Update("room", plan.Encode(p, 1, map[string]string{"p": "home"}), []Track{camera("cam", "p")})
	m.TrunkMessage("home", encode(t, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Answer{Answer: &amphiv1.RelayAnswer{
		Room: "room", Home: "home", Number: 1, Path: []string{"home"},
		Offers: []*amphiv1.RelayOffer{{TrackId: "cam", Generation: 9, Encodings: []*amphiv1.RelayEncoding{{PayloadType: 96, Width: 320, Height: 180}}}},
	}}}))
	m.rooms["room"].intakes["cam"].observer.Interest(0)
	m.TrunkMessage("other", encode(t, wants("room", "home", &amphiv1.RelayWant{TrackId: "cam", Generation: 9, Labels: []uint32{7}})))
	for number = range m.in.labels {
	}
	key := packet.Packet{ExtSeq: 1000, PayloadType: 96, AudioLevel: packet.NoAudioLevel, Payload: []byte{0x10, 0x50, 0, 0, 0x9d, 1, 0x2a, 64, 1, 180, 0}}
	if !m.TrunkMedia("home", number, 1000, key.AppendRelayed(nil), engine.Now()) {
		t.Fatal("a packet is not taken")
	}
	return m, number
}

func TestRelayingAllocatesNothing(t *testing.T) {
	engine, err := media.New(media.Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	m, number := middle(t, engine)
	q := packet.Packet{PayloadType: 96, AudioLevel: packet.NoAudioLevel, Payload: append([]byte{0x10, 1}, make([]byte, 1000)...)}
	raw := q.AppendRelayed(nil)
	ext, now := uint64(1000), engine.Now()
	take := func() {
		ext++
		now += int64(time.Millisecond)
		raw[2], raw[3] = byte(ext>>8), byte(ext)
		m.TrunkMedia("home", number, ext, raw, now)
	}
	for range 2000 {
		take()
	}
	sent := m.Stats("").Relays[0].Packets
	if n := testing.AllocsPerRun(500, take); n >= 1 { // the pool may be emptied meanwhile
		t.Errorf("%v allocations", n)
	}
	if got := m.Stats("").Relays[0].Packets - sent; got != 501 {
		t.Errorf("%d of 501 packets were sent on", got)
	}
}

// BenchmarkRefresh is what the wants of one node about a room of 20 tracks cost its parent, once a second.
func BenchmarkRefresh(b *testing.B) {
	engine, err := media.New(media.Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	m := New(Config{Node: "self"}, Engine(engine), silentTrunks{})
	m.TrunkUp("other")
	var tracks []Track
	var list []*amphiv1.RelayWant
	for i := range 20 {
		id := string(rune('a' + i))
		if _, err := engine.Router("room").AddRemote(media.RemoteConfig{ID: id, Kind: codec.Video}, &fakePublisher{}); err != nil {
			b.Fatal(err)
		}
		tracks = append(tracks, camera(id, "p"))
		list = append(list, &amphiv1.RelayWant{TrackId: id, MaxLayer: 1, Labels: []uint32{uint32(2*i + 1), uint32(2*i + 2)}, Have: []uint64{1 << 40, 1 << 41}})
	}
	m.Update("room", chain("self", "other"), tracks)
	raw := encode(b, wants("room", "self", list...))
	b.ReportAllocs()
	for b.Loop() {
		m.TrunkMessage("other", raw)
	}
}

// BenchmarkTick is what 1,000 rooms of 20 tracks of other nodes cost every 50 ms.
func BenchmarkTick(b *testing.B) {
	m := New(Config{Node: "self"}, newFakeMedia(), silentTrunks{})
	m.TrunkUp("home")
	for i := range 1000 {
		var tracks []Track
		for k := range 20 {
			tracks = append(tracks, camera(strconv.Itoa(20*i+k), "p"))
		}
		f := newFakeMedia() // its queue is of one room
		m.media = f
		m.Update(strconv.Itoa(i), chain("home", "self"), tracks)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.tick(m.now())
	}
}
