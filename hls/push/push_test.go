package push

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/hls/packager"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPushOverRTMP(t *testing.T) {
	t.Parallel()
	server := startNginx(t, freePort(t, "tcp"))
	r := run(t, Config{URL: server.url("secret?x=1")})
	p := newProgram(t, r.Pusher)
	p.playUntil(t, "pushed", func() bool { return r.State().Frames >= 120 }) // longer than the server's patience for answers to its pings
	r.End()
	if err := r.ends(t); err != nil {
		t.Fatal(err)
	}
	if got := r.phases(); !slices.Equal(got, []Phase{Connecting, Live, Stopped}) {
		t.Errorf("phases %v", got)
	}
	if s := r.State(); s.Frames < 120 || s.Dropped != 0 || s.Retries != 0 || s.Bytes < 100_000 {
		t.Errorf("state %+v", s)
	}
	files := server.recordings(t, "secret")
	if len(files) != 1 {
		t.Fatalf("recordings %v", files)
	}
	eventually(t, 5*time.Second, "written: the recording", func() bool { return len(probe(t, files[0])) > 250 })
	checkMedia(t, probe(t, files[0]), 120)
	decodes(t, files[0])
}

func TestPushOverSRT(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, listener, caller string }{
		{"plain", "", ""},
		{"encrypted", "&passphrase=0123456789abc&pbkeylen=16", "?passphrase=0123456789abc&streamid=stage&latency=80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			port := freePort(t, "udp")
			listener, file := startSRT(t, port, c.listener)
			r := run(t, Config{URL: "srt://127.0.0.1:" + itoa(port) + c.caller})
			p := newProgram(t, r.Pusher)
			p.playUntil(t, "pushed", func() bool { return r.State().Frames >= 75 })
			r.End()
			if err := r.ends(t); err != nil {
				t.Fatal(err)
			}
			s := r.State()
			t.Logf("state %+v", s)
			listener.ends(t)
			checkMedia(t, probe(t, file), int(s.Frames))
			decodes(t, file)
		})
	}
}

// front is a TLS server that hands everything on to another port.
func front(t *testing.T, to int) (port int, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = a.Close() }()
				b, err := net.Dial("tcp", "127.0.0.1:"+itoa(to))
				if err != nil {
					return
				}
				wg.Go(func() {
					_, _ = io.Copy(a, b)
					_ = a.Close()
				})
				_, _ = io.Copy(b, a)
				_ = b.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port, roots
}

func TestPushOverRTMPS(t *testing.T) {
	t.Parallel()
	server := startNginx(t, freePort(t, "tcp"))
	port, roots := front(t, server.port)
	url := "rtmps://127.0.0.1:" + itoa(port) + "/live/tls"
	known := run(t, Config{URL: url, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
	unknown := run(t, Config{URL: url + "2", GiveUp: time.Millisecond})
	p := newProgram(t, known.Pusher, unknown.Pusher)
	p.playUntil(t, "pushed", func() bool { return known.State().Frames >= 60 })
	if err := unknown.ends(t); err == nil || !strings.Contains(unknown.State().Reason, "certificate") {
		t.Errorf("with an unknown CA: %v, %+v", err, unknown.State())
	}
	if got := unknown.State().Phase; got != Failed {
		t.Errorf("phase %v", got)
	}
	known.End()
	if err := known.ends(t); err != nil {
		t.Fatal(err)
	}
	files := server.recordings(t, "tls")
	if len(files) != 1 || len(server.recordings(t, "tls2")) != 0 {
		t.Fatalf("recordings %v", files)
	}
	eventually(t, 5*time.Second, "written: the recording", func() bool { return len(probe(t, files[0])) > 150 })
	checkMedia(t, probe(t, files[0]), 60)
}

// returned is how long a target may wait for its picture: the 5 s of target H11, and as long again for a busy machine.
const returned = 10 * time.Second

// TestDeadTarget is target H11: a target that dies beside living ones disturbs nobody, and has its picture again
// within 5 s of its return (see the log), from a keyframe on.
func TestDeadTarget(t *testing.T) {
	t.Parallel()
	steady, mortal := startNginx(t, freePort(t, "tcp")), startNginx(t, freePort(t, "tcp"))
	srtPort := freePort(t, "udp")
	mortalSRT, _ := startSRT(t, srtPort, "")
	good := run(t, Config{URL: steady.url("good")})
	dying := run(t, Config{URL: mortal.url("dying")})
	dyingSRT := run(t, Config{URL: "srt://127.0.0.1:" + itoa(srtPort)})
	never := run(t, Config{URL: "rtmp://127.0.0.1:" + itoa(freePort(t, "tcp")) + "/live/never"})
	p := newProgram(t, good.Pusher, dying.Pusher, dyingSRT.Pusher, never.Pusher)
	stop := p.playing(t)
	both := func(phase Phase) func() bool {
		return func() bool { return dying.State().Phase == phase && dyingSRT.State().Phase == phase }
	}
	eventually(t, 15*time.Second, "live", both(Live))
	eventually(t, 15*time.Second, "under way", func() bool { return dying.State().Frames > 30 && dyingSRT.State().Frames > 30 })
	mortal.stop()
	mortalSRT.stop()
	eventually(t, 10*time.Second, "noticed", both(Retrying))
	eventually(t, 20*time.Second, "tried again", func() bool { return dying.State().Retries > 2 && dyingSRT.State().Retries > 1 })
	beforeRTMP, beforeSRT := dying.State().Frames, dyingSRT.State().Frames
	again := startNginx(t, mortal.port)
	listener, file := startSRT(t, srtPort, "")
	back := time.Now()
	eventually(t, returned, "back", func() bool { return dying.State().Frames > beforeRTMP })
	t.Logf("back over RTMP after %v", time.Since(back))
	eventually(t, returned-time.Since(back), "back over SRT", func() bool { return dyingSRT.State().Frames > beforeSRT })
	t.Logf("back over SRT within %v", time.Since(back))
	eventually(t, 20*time.Second, "long enough", func() bool {
		return dying.State().Frames > beforeRTMP+60 && dyingSRT.State().Frames > beforeSRT+60
	})
	stop()
	for _, r := range []*running{good, dying, dyingSRT, never} {
		r.End()
		if err := r.ends(t); err != nil {
			t.Error(err)
		}
	}
	t.Logf("dying %+v\nover SRT %+v\nnever %+v\nlongest tick %v", dying.State(), dyingSRT.State(), never.State(), p.longest)
	if s := good.State(); s.Dropped != 0 || s.Retries != 0 {
		t.Errorf("the living target: %+v", s)
	}
	if dying.State().Dropped == 0 {
		t.Error("pictures that a dead target did not get are not counted")
	}
	if p.longest > connectTimeout/2 { // it waits for no target; but a busy machine may have stopped it
		t.Errorf("a tick took %v", p.longest)
	}
	for server, key := range map[*rtmpServer]string{steady: "good", again: "dying"} {
		files := server.recordings(t, key)
		if len(files) != 1 {
			t.Fatalf("recordings of %s: %v", key, files)
		}
		checkMedia(t, probe(t, files[0]), 60)
		decodes(t, files[0])
	}
	listener.ends(t)
	checkMedia(t, probe(t, file), 60)
}

// TestSlowTarget: a target that takes nothing loses whole groups of pictures and delays nobody.
func TestSlowTarget(t *testing.T) {
	t.Parallel()
	p, err := New(Config{URL: "rtmp://127.0.0.1/live/key"})
	if err != nil {
		t.Fatal(err)
	}
	p.q.online()
	prog := newProgram(t, p)
	for range 300 { // 10 s
		prog.step()
	}
	s := p.State()
	if s.Dropped == 0 || s.Dropped%gop != 0 {
		t.Errorf("%d pictures dropped, not whole groups of %d", s.Dropped, gop)
	}
	u, err := p.q.take(t.Context(), nil)
	if err != nil || !u.key {
		t.Fatalf("the queue begins with %+v, %v", u, err)
	}
	if first := prog.run.Epoch.Add(time.Duration(prog.tick) * time.Second / 30).Sub(u.at); first > maxQueued+time.Second {
		t.Errorf("%v are queued", first)
	}
}

// TestCompositorRestart: time goes on behind the gap that a new compositor leaves, and its first picture that counts
// is a keyframe.
func TestCompositorRestart(t *testing.T) {
	t.Parallel()
	server := startNginx(t, freePort(t, "tcp"))
	r := run(t, Config{URL: server.url("restart")})
	p := newProgram(t, r.Pusher)
	p.playUntil(t, "pushed", func() bool { return r.State().Frames >= 65 })
	p.tick = (p.tick/gop+2)*gop + 7 // the tap comes late: no keyframe at first
	p.sound = p.tick * packager.AudioRate / 30
	p.begin()
	before := r.State().Frames
	p.playUntil(t, "pushed", func() bool { return r.State().Frames >= before+40 })
	r.End()
	if err := r.ends(t); err != nil {
		t.Fatal(err)
	}
	files := server.recordings(t, "restart")
	if len(files) != 1 {
		t.Fatalf("recordings %v", files)
	}
	eventually(t, 5*time.Second, "written: the recording", func() bool { return len(probe(t, files[0])) > 200 })
	var last packet
	gaps := 0
	for _, k := range probe(t, files[0]) {
		if !k.video {
			continue
		}
		if d := k.at - last.at; last.video && d > 0.05 {
			gaps++
			if d < 1 || d > 3 || !k.key {
				t.Errorf("gap of %v s, then keyframe %v", d, k.key)
			}
		}
		last = k
	}
	if gaps != 1 {
		t.Errorf("%d gaps", gaps)
	}
	decodes(t, files[0])
}

func TestGivesUp(t *testing.T) {
	t.Parallel()
	r := run(t, Config{URL: "rtmp://169.254.169.254.nip.invalid/live/topsecret", GiveUp: time.Second})
	p := newProgram(t, r.Pusher)
	p.playing(t)
	err := r.ends(t)
	if err == nil || strings.Contains(err.Error(), "topsecret") || r.State().Phase != Failed {
		t.Errorf("%v, %+v", err, r.State())
	}
}

// TestSRTRefused: a listener with another passphrase, and one that never answers, cost attempts and leave no goroutine behind.
func TestSRTRefused(t *testing.T) {
	t.Parallel()
	port := freePort(t, "udp")
	startSRT(t, port, "&passphrase=0123456789abc&pbkeylen=16")
	hole, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hole.Close() })
	wrong := run(t, Config{URL: "srt://127.0.0.1:" + itoa(port) + "?passphrase=wrongwrongwrong"})
	silent := run(t, Config{URL: "srt://" + hole.LocalAddr().String()})
	stop := newProgram(t, wrong.Pusher, silent.Pusher).playing(t)
	eventually(t, 10*time.Second, "tried", func() bool { return wrong.State().Retries > 0 && silent.State().Retries > 0 })
	stop()
	for _, r := range []*running{wrong, silent} {
		r.End()
		if err := r.ends(t); err != nil {
			t.Error(err)
		}
		if s := r.State(); s.Frames != 0 || strings.Contains(s.Reason, "wrongwrong") {
			t.Errorf("%+v", s)
		}
	}
}

// stalling is a server that hands on to another port, until it is told to take nothing more.
func stalling(t *testing.T, to int) (address string, stall func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stalled, over := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		a, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = a.Close() }()
		b, err := net.Dial("tcp", "127.0.0.1:"+itoa(to))
		if err != nil {
			return
		}
		wg.Go(func() { _, _ = io.Copy(a, b) })
		defer func() { _ = b.Close() }()
		for {
			select {
			case <-stalled:
				<-over
				return
			default:
			}
			if _, err := io.CopyN(b, a, 1); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		close(over)
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String(), func() { close(stalled) }
}

// TestEndOfAStalledPush: a target that takes nothing does not hold up the end.
func TestEndOfAStalledPush(t *testing.T) {
	t.Parallel()
	server := startNginx(t, freePort(t, "tcp"))
	address, stallNow := stalling(t, server.port)
	r := run(t, Config{URL: "rtmp://" + address + "/live/stalled"})
	stop := newProgram(t, r.Pusher).playing(t)
	eventually(t, 15*time.Second, "live", func() bool { return r.State().Frames > 0 })
	stallNow()
	// A megabyte a picture fills the sockets' buffers.
	large := append([]byte{0, 0, 0, 1, 0x65}, bytes.Repeat([]byte{7}, 1<<20)...)
	stop()
	for i := range int64(14) {
		r.Video(0, 10_000+i, large)
	}
	sent, since := int64(0), time.Now()
	eventually(t, 15*time.Second, "stalled", func() bool {
		if n := r.State().Bytes; n != sent {
			sent, since = n, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	began := time.Now()
	r.cancel()
	if err := r.ends(t); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > stall/2 {
		t.Errorf("the end took %v", d)
	}
}

// TestNestedObjectsOfATarget: what a target says may not be parsed without a bound.
func TestNestedObjectsOfATarget(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
				b := make([]byte, 1+2*1536, 10<<20)
				b[0] = 3
				b = append(b, 2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0x90, 0, 0) // chunks of 9 MiB
				b = append(b, 3, 0, 0, 0, 0x8f, 0xff, 0xfc, 20, 0, 0, 0, 0)
				_, _ = c.Write(append(b, bytes.Repeat([]byte{3, 0, 1, 'a'}, 0x8ffffc/4)...))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	r := run(t, Config{URL: "rtmp://" + l.Addr().String() + "/live/key", GiveUp: time.Millisecond})
	newProgram(t, r.Pusher).playing(t)
	if err := r.ends(t); err == nil || !strings.Contains(r.State().Reason, "too long") {
		t.Errorf("%v, %+v", err, r.State())
	}
}
