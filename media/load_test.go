package media

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// The load: one publisher of video, 30 frames per second of 7 packets of 1,100 bytes, and
// of audio, 50 packets of 100 bytes, to N subscribers with real ICE, DTLS and feedback, who
// are in a process of their own: this test binary, started again.
const (
	loadEnv      = "AMPHI_MEDIA_LOAD"
	loadFrames   = 30
	loadPackets  = 7
	loadSize     = 1100
	loadAudioPPS = 50
)

// loadMessage goes between the two processes, one JSON object per line.
type loadMessage struct {
	Peer    string          `json:",omitempty"`
	SDP     string          `json:",omitempty"`
	Publish bool            `json:",omitempty"`
	Ready   bool            `json:",omitempty"`
	Report  bool            `json:",omitempty"`
	Delays  []time.Duration `json:",omitempty"`
	Packets uint64          `json:",omitempty"`
	Lost    uint64          `json:",omitempty"`
}

// BenchmarkLoad measures the node's CPU per forwarded packet (TARGETS P1, P1b), memory per
// subscriber (P2), delay (P5) and allocations (P7):
//
//	go test -run xxx -bench Load -benchtime 1x ./media
//
// AMPHI_MEDIA_CPU and AMPHI_MEDIA_HEAP name files for profiles of the load alone.
func BenchmarkLoad(b *testing.B) {
	for _, c := range []struct {
		name        string
		subscribers int
		paced       time.Duration
	}{{"burst/50", 50, 0}, {"burst/200", 200, 0}, {"paced/50", 50, time.Millisecond}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				runLoad(b, load{subscribers: c.subscribers, paced: c.paced}, Config{})
			}
		})
	}
	b.Run("burst/200/without-gso", func(b *testing.B) {
		for range b.N {
			runLoad(b, load{subscribers: 200}, Config{NoGSO: true})
		}
	})
	b.Run("audio/50", func(b *testing.B) {
		for range b.N {
			runLoad(b, load{subscribers: 50, microphones: 10}, Config{})
		}
	})
}

// load is who is there: subscribers and either one publisher of video and audio, or as many
// microphones, which are out of step by chance.
type load struct {
	subscribers int
	paced       time.Duration // between the packets of a frame
	microphones int
}

func runLoad(b *testing.B, l load, cfg Config) {
	e := startEngine(b, cfg)
	r := e.Router("load")
	runtime.GC()
	before := residentKB(b)
	child := exec.Command(os.Args[0], "-test.run", "^TestLoadClients$", "-test.timeout", "120s")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d,%d,%d", loadEnv, l.subscribers, l.paced, l.microphones))
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := child.Wait(); err != nil {
			b.Errorf("clients: %v", err)
		}
	}()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 8<<20)
	write := json.NewEncoder(in)
	serveLoad(b, r, lines, write, l.microphones)
	eventually(b, "everybody receives", func() bool {
		for _, s := range r.Stats().Endpoints {
			for _, d := range s.DownTracks {
				if d.Packets == 0 {
					return false
				}
			}
		}
		return true
	})
	measureLoad(b, e, l.subscribers, before)
	if err := write.Encode(loadMessage{Report: true}); err != nil {
		b.Fatal(err)
	}
	for lines.Scan() {
		var m loadMessage
		if json.Unmarshal(lines.Bytes(), &m) == nil && m.Report {
			slices.Sort(m.Delays)
			if n := len(m.Delays); n > 0 {
				b.ReportMetric(float64(m.Delays[n/2].Microseconds())/1000, "ms-p50")
				b.ReportMetric(float64(m.Delays[n*99/100].Microseconds())/1000, "ms-p99")
			}
			b.ReportMetric(float64(m.Lost)*100/float64(max(m.Packets, 1)), "%lost")
			return
		}
	}
	b.Error("the clients did not report")
}

// serveLoad negotiates with the clients until all are ready.
func serveLoad(b *testing.B, r *Router, lines *bufio.Scanner, write *json.Encoder, microphones int) {
	tracks := []string{"cam", "mic"}
	if microphones > 0 {
		tracks = nil
	}
	for i := range microphones {
		tracks = append(tracks, fmt.Sprintf("mic-%d", i))
	}
	for lines.Scan() {
		var m loadMessage
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			b.Logf("clients: %s", lines.Text())
			continue
		}
		if m.Ready {
			return
		}
		ep, err := r.NewEndpoint(EndpointConfig{ID: m.Peer})
		if err != nil {
			b.Fatal(err)
		}
		var publish []Publish
		switch {
		case m.Publish && microphones > 0:
			publish = []Publish{{Mid: "0", TrackID: m.Peer, Kind: Audio}}
		case m.Publish:
			publish = []Publish{{Mid: "0", TrackID: "cam", Kind: Video}, {Mid: "1", TrackID: "mic", Kind: Audio}}
		default:
			subscribeAll(ep, tracks...)
		}
		answer, err := ep.Negotiate(m.SDP, publish)
		if err != nil {
			b.Fatal(err)
		}
		if err := write.Encode(loadMessage{SDP: answer}); err != nil {
			b.Fatal(err)
		}
	}
	b.Fatal("the clients ended")
}

func measureLoad(b *testing.B, e *Engine, subscribers int, before int64) {
	wait := func(d time.Duration) { <-time.After(d) }
	wait(2 * time.Second)
	if path := os.Getenv("AMPHI_MEDIA_CPU"); path != "" {
		defer profileCPU(b, path)()
	}
	var m1, m2 runtime.MemStats
	runtime.ReadMemStats(&m1)
	s1, cpu1, switches := e.Stats(), cpuTime(b), contextSwitches(b)
	wait(6 * time.Second)
	s2, cpu2 := e.Stats(), cpuTime(b)
	runtime.ReadMemStats(&m2)
	packets := float64(forwarded(s2) - forwarded(s1))
	b.ReportMetric(float64((cpu2[0]+cpu2[1]-cpu1[0]-cpu1[1]).Nanoseconds())/1000/packets, "µs/packet")
	b.ReportMetric(float64((cpu2[0]-cpu1[0]).Nanoseconds())/1000/packets, "µs-user/packet")
	b.ReportMetric(float64(contextSwitches(b)-switches)/packets, "switches/packet")
	b.ReportMetric(packets/6, "packets/s")
	b.ReportMetric(float64(m2.Mallocs-m1.Mallocs)/packets, "allocs/packet")
	b.ReportMetric(float64(residentKB(b)-before)/float64(subscribers), "KB/subscriber")
	b.ReportMetric(float64(m2.HeapAlloc/1024)/float64(subscribers), "KB-heap/subscriber")
	b.ReportMetric(float64(m2.StackInuse/1024)/float64(subscribers), "KB-stack/subscriber")
	b.ReportMetric(float64(runtime.NumGoroutine())/float64(subscribers), "goroutines/subscriber")
	if path := os.Getenv("AMPHI_MEDIA_HEAP"); path != "" {
		writeHeap(b, path)
	}
	b.ReportMetric(float64(s2.Socket.SendDatagrams-s1.Socket.SendDatagrams)/float64(s2.Socket.SendMessages-s1.Socket.SendMessages), "packets/message")
	b.ReportMetric(0, "ns/op")
	for reason, n := range s2.Drops {
		b.Logf("dropped %d: %s", n, reason)
	}
}

// profileCPU profiles until its result is called.
func profileCPU(b *testing.B, path string) (stop func()) {
	f, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}

// writeHeap writes a profile of what is in use under load.
func writeHeap(b *testing.B, path string) {
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	runtime.GC()
	if err := pprof.WriteHeapProfile(f); err != nil {
		b.Fatal(err)
	}
}

func forwarded(s EngineStats) (n uint64) {
	for _, r := range s.Routers {
		for _, ep := range r.Endpoints {
			n += ep.PacketsOut
		}
	}
	return n
}

// cpuTime is this process's user and system time.
func cpuTime(b testing.TB) [2]time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return [2]time.Duration{time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())}
}

// contextSwitches is how often this process has waited for something.
func contextSwitches(b testing.TB) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Nvcsw
}

func residentKB(b testing.TB) int64 {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("no /proc")
	}
	_, rest, _ := strings.Cut(string(raw), "VmRSS:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// TestLoadClients is the process of the clients; without its environment it does nothing.
func TestLoadClients(t *testing.T) {
	env := os.Getenv(loadEnv)
	if env == "" {
		t.Skip("only for BenchmarkLoad")
	}
	var subscribers, paced, microphones int
	if _, err := fmt.Sscanf(env, "%d,%d,%d", &subscribers, &paced, &microphones); err != nil {
		t.Fatal(err)
	}
	l := &loadClients{t: t, in: bufio.NewScanner(os.Stdin), out: json.NewEncoder(os.Stdout), stop: make(chan struct{})}
	l.in.Buffer(nil, 8<<20)
	for i := range microphones {
		l.speak(i)
	}
	if microphones == 0 {
		l.publish(time.Duration(paced))
	}
	for i := range subscribers {
		l.subscribe(i, microphones)
	}
	l.send(loadMessage{Ready: true})
	for l.in.Scan() {
		m := loadMessage{Report: true, Packets: l.packets.Load(), Lost: l.lost.Load()}
		l.mu.Lock()
		m.Delays = l.delays
		l.mu.Unlock()
		l.send(m)
	}
	close(l.stop)
	for _, pc := range l.pcs {
		pc.Close()
	}
	l.wg.Wait()
}

type loadClients struct {
	t             *testing.T
	in            *bufio.Scanner
	out           *json.Encoder
	stop          chan struct{}
	wg            sync.WaitGroup
	pcs           []*webrtc.PeerConnection
	packets, lost atomic.Uint64
	mu            sync.Mutex
	delays        []time.Duration
}

func (l *loadClients) send(m loadMessage) {
	if err := l.out.Encode(m); err != nil {
		l.t.Fatal(err)
	}
}

func (l *loadClients) connection() *webrtc.PeerConnection {
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		l.t.Fatal(err)
	}
	registry := &interceptor.Registry{}
	for _, configure := range []func() error{
		func() error { return webrtc.ConfigureTWCCSender(m, registry) },
		func() error { return webrtc.ConfigureRTCPReports(registry) },
	} {
		if err := configure(); err != nil {
			l.t.Fatal(err)
		}
	}
	se := webrtc.SettingEngine{}
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	se.SetIncludeLoopbackCandidate(true)
	se.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	se.SetSRTPProtectionProfiles(7) // AEAD_AES_128_GCM
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(se)).
		NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.pcs = append(l.pcs, pc)
	return pc
}

func (l *loadClients) connect(pc *webrtc.PeerConnection, peer string, publish bool) {
	connected := make(chan struct{})
	var once sync.Once
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(connected) })
		}
	})
	offer, err := pc.CreateOffer(nil)
	if err == nil {
		err = pc.SetLocalDescription(offer)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.send(loadMessage{Peer: peer, SDP: offer.SDP, Publish: publish})
	if !l.in.Scan() {
		l.t.Fatal(io.ErrUnexpectedEOF)
	}
	var m loadMessage
	if err := json.Unmarshal(l.in.Bytes(), &m); err != nil {
		l.t.Fatal(err)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.SDP}); err != nil {
		l.t.Fatal(err)
	}
	select {
	case <-connected:
	case <-time.After(deadline):
		l.t.Fatalf("%s does not connect", peer)
	}
}

func (l *loadClients) publish(paced time.Duration) {
	pc := l.connection()
	var tracks []*webrtc.TrackLocalStaticRTP
	for _, c := range []webrtc.RTPCodecCapability{
		{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, {MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2},
	} {
		track, err := webrtc.NewTrackLocalStaticRTP(c, c.MimeType, "load")
		if err != nil {
			l.t.Fatal(err)
		}
		if _, err := pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			l.t.Fatal(err)
		}
		tracks = append(tracks, track)
	}
	l.connect(pc, "publisher", true)
	src := newVP8Source(func(p *rtp.Packet) error {
		binary.BigEndian.PutUint64(p.Payload[20:], uint64(time.Now().UnixNano()))
		if paced > 0 {
			<-time.After(paced)
		}
		return tracks[0].WriteRTP(p)
	})
	src.perFrame, src.size, src.seq = loadPackets, loadSize, 1
	l.tick(time.Second/loadFrames, func() {
		src.keyframe.Store(src.frames%(2*loadFrames) == 0)
		src.frame(l.t)
	})
	number := uint16(0)
	payload := make([]byte, 100)
	l.tick(time.Second/loadAudioPPS, func() {
		number++
		err := tracks[1].WriteRTP(&rtp.Packet{
			Header:  rtp.Header{Version: 2, SequenceNumber: number, Timestamp: uint32(number) * 960},
			Payload: payload,
		})
		if err != nil {
			l.t.Log(err)
		}
	})
}

// speak publishes one microphone, at a phase of its own.
func (l *loadClients) speak(i int) {
	pc := l.connection()
	c := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	track, err := webrtc.NewTrackLocalStaticRTP(c, "mic", "load")
	if err == nil {
		_, err = pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.connect(pc, fmt.Sprintf("mic-%d", i), true)
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	payload := make([]byte, 140)
	number := uint16(0)
	l.wg.Go(func() {
		next := time.Now().Add(time.Duration(rng.Int64N(int64(time.Second / loadAudioPPS))))
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			timer.Reset(time.Until(next))
			select {
			case <-l.stop:
				return
			case <-timer.C:
			}
			next = next.Add(time.Second / loadAudioPPS)
			number++
			p := &rtp.Packet{
				Header:  rtp.Header{Version: 2, SequenceNumber: number, Timestamp: uint32(number) * 960},
				Payload: payload[:80+rng.IntN(50)],
			}
			if err := track.WriteRTP(p); err != nil {
				l.t.Log(err)
			}
		}
	})
}

func (l *loadClients) tick(d time.Duration, f func()) {
	l.wg.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
				f()
			}
		}
	})
}

func (l *loadClients) subscribe(i, microphones int) {
	pc := l.connection()
	kinds := []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio}
	if microphones > 0 {
		kinds = slices.Repeat(kinds[1:], microphones)
	}
	for _, kind := range kinds {
		_, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
		if err != nil {
			l.t.Fatal(err)
		}
	}
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		l.wg.Go(func() { l.read(track, i) })
	})
	l.connect(pc, fmt.Sprintf("subscriber-%d", i), false)
}

// read counts what arrives, and samples the delay of video.
func (l *loadClients) read(track *webrtc.TrackRemote, i int) {
	buf := make([]byte, 1500)
	var p rtp.Packet
	last, started := uint16(0), false
	for n := 0; ; n++ {
		size, _, err := track.Read(buf)
		if err != nil || p.Unmarshal(buf[:size]) != nil {
			return
		}
		l.packets.Add(1)
		if gap := p.SequenceNumber - last - 1; started && gap > 0 && gap < 1000 {
			l.lost.Add(uint64(gap))
		}
		last, started = p.SequenceNumber, true
		if len(p.Payload) > 500 && (n+i)%16 == 0 {
			d := time.Duration(time.Now().UnixNano() - int64(binary.BigEndian.Uint64(p.Payload[20:])))
			l.mu.Lock()
			if len(l.delays) < 200_000 {
				l.delays = append(l.delays, d)
			}
			l.mu.Unlock()
		}
	}
}
