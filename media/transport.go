package media

import (
	"context"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/srtp/v3"

	"github.com/amphi-sfu/amphi/media/dtlssrtp"
	"github.com/amphi-sfu/amphi/media/ice"
	"github.com/amphi-sfu/amphi/media/icetcp"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/seal"
)

// transport is an endpoint's ICE agent and DTLS association. It has no goroutine but
// while the DTLS handshake lasts.
type transport struct {
	ep           *Endpoint
	id           uint32
	dtls         *dtlssrtp.Association
	fingerprints []negotiate.Fingerprint
	active       bool            // we begin the DTLS handshake
	ctx          context.Context // ends when the transport is closed
	cancel       context.CancelFunc
	wg           sync.WaitGroup

	// These belong to Negotiate.
	ufrag, pwd  string
	remoteUfrag string

	mu       sync.Mutex // guards the fields below; taken before the Endpoint's and the connector's
	agent    *ice.Agent
	selected ice.Path
	ufrags   [2]string // known to the connector
	state    ice.State
	begun    bool // the handshake
	pathless bool // no path has been selected yet
	closed   bool

	timer int   // place in the timers' heap, whose mutex guards it; -1: not there
	dueAt int64 // the same
}

// path is where an endpoint's packets go: to addr or, by TCP, into stream.
type path struct {
	addr   netip.AddrPort
	stream *icetcp.Conn
}

func newTransport(ep *Endpoint, o *negotiate.Offer) *transport {
	e := ep.router.e
	t := &transport{
		ep: ep, ufrag: token(8), pwd: token(24), remoteUfrag: o.Ufrag, fingerprints: o.Fingerprints,
		active: o.Setup == "passive", timer: -1,
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.dtls = dtlssrtp.New(dtlssrtp.Config{
		Certificate: e.identity.certificate, Active: t.active, Verify: t.verify, Send: t.sendRecord, Log: ep.log,
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.id = e.connector.add(t)
	t.agent = ice.New(ice.Config{
		ID: t.id, Local: ice.Credentials{Ufrag: t.ufrag, Pwd: t.pwd}, Remote: ice.Credentials{Ufrag: o.Ufrag, Pwd: o.Pwd},
		DisconnectedAfter: e.cfg.DisconnectedAfter, FailedAfter: e.cfg.FailedAfter,
		ConnectWithin: e.cfg.DisconnectedAfter + e.cfg.FailedAfter, Random: randomID,
	}, time.Duration(e.now()))
	t.ufrags[0] = t.ufrag
	t.pathless = true
	e.patient.expect()
	e.connector.addUfrag(t.ufrag, t)
	e.connector.timers.set(t, int64(t.agent.Next(time.Duration(e.now()))))
	return t
}

// acceptable says whether a further offer belongs to the same DTLS association.
func (t *transport) acceptable(o *negotiate.Offer) error {
	if !slices.Equal(o.Fingerprints, t.fingerprints) {
		return &negotiate.Error{Reason: negotiate.Changed, Detail: "the certificate's fingerprint changed"}
	}
	if o.Setup == "active" && t.active || o.Setup == "passive" && !t.active {
		return &negotiate.Error{Reason: negotiate.Changed, Detail: "the DTLS role changed"}
	}
	return nil
}

// update restarts ICE when the offer has a new ufrag (RFC 8839 section 4.4.1.1.1).
func (t *transport) update(o *negotiate.Offer) {
	if o.Ufrag == t.remoteUfrag {
		return
	}
	t.ufrag, t.pwd, t.remoteUfrag = token(8), token(24), o.Ufrag
	c := t.ep.router.e.connector
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if t.ufrags[1] != "" {
		c.removeUfrag(t.ufrags[1])
	}
	t.ufrags = [2]string{t.ufrag, t.ufrags[0]}
	c.addUfrag(t.ufrag, t)
	now := time.Duration(t.ep.router.e.now())
	t.agent.Restart(ice.Credentials{Ufrag: t.ufrag, Pwd: t.pwd}, ice.Credentials{Ufrag: o.Ufrag, Pwd: o.Pwd}, now)
	c.timers.set(t, int64(t.agent.Next(now)))
}

func (t *transport) close() {
	t.cancel()
	t.dtls.Close()
	c := t.ep.router.e.connector
	t.mu.Lock()
	t.closed = true
	t.found()
	t.agent.Paths(func(p ice.Path) { c.release(p, t) })
	t.mu.Unlock()
	c.remove(t)
	c.timers.remove(t)
	t.wg.Wait()
}

// check takes a STUN message.
func (t *transport) check(m *ice.Message, from ice.Path) ice.Drop {
	c := t.ep.router.e.connector
	o := c.output()
	defer c.outputs.Put(o)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ice.DropUnknownUfrag
	}
	drop := t.agent.Handle(m, from, time.Duration(t.ep.router.e.now()), o)
	t.apply(o)
	return drop
}

func (t *transport) tick(now int64) {
	c := t.ep.router.e.connector
	o := c.output()
	defer c.outputs.Put(o)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.agent.Tick(time.Duration(now), o)
	t.apply(o)
}

// lost is told when a TCP connection is gone.
func (t *transport) lost(p ice.Path) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.agent.Lost(p)
	t.apply(&ice.Output{})
}

// apply does what the agent wants done. t.mu is held.
func (t *transport) apply(o *ice.Output) {
	e := t.ep.router.e
	for _, p := range o.New {
		e.connector.claim(p, t, false)
		if s := e.connector.stream(p.Conn); s != nil {
			s.Confirm()
		}
	}
	for _, p := range o.Valid {
		e.connector.claim(p, t, true)
	}
	for _, p := range o.Gone {
		e.connector.release(p, t)
	}
	for _, m := range o.Messages {
		if err := t.send(m.To, m.Data); err != nil {
			e.drops.add(dropNotConnected)
		}
	}
	if p, _ := t.agent.Selected(); p != t.selected {
		t.selected = p
		t.found()
		t.ep.setPath(t.pathTo(p))
	}
	if s := t.agent.State(); s != t.state {
		t.state = s
		t.stateChanged(s)
	}
	if _, ok := t.agent.Usable(); ok && t.active {
		t.secureOnce()
	}
	if next := int64(t.agent.Next(time.Duration(e.now()))); next != forever {
		e.connector.timers.set(t, next)
	}
}

// found notes that nobody waits for the checks of this client any more. t.mu is held.
func (t *transport) found() {
	if t.pathless {
		t.pathless = false
		t.ep.router.e.patient.connecting.Add(-1)
	}
}

// pathTo is where packets go by p, nil for nowhere.
func (t *transport) pathTo(p ice.Path) *path {
	switch {
	case p.Conn != 0:
		if s := t.ep.router.e.connector.stream(p.Conn); s != nil {
			return &path{addr: p.Addr, stream: s}
		}
	case p.Addr.IsValid():
		return &path{addr: p.Addr}
	}
	return nil
}

func (t *transport) send(p ice.Path, b []byte) error {
	to := t.pathTo(p)
	if to == nil {
		return errNoPath
	}
	return t.ep.router.e.sendTo(to, b)
}

func (t *transport) stateChanged(s ice.State) {
	switch s {
	case ice.Disconnected:
		t.ep.setState(Disconnected)
	case ice.Failed:
		t.ep.setState(Failed)
	case ice.Connected:
		if t.ep.hasKeys() {
			t.ep.setState(Connected)
		}
	}
}

func (ep *Endpoint) setPath(p *path) {
	ep.path.Store(p)
	ep.out.w.post(func() { ep.out.setPath(p) })
}

// sendDatagram sends one packet at once, past the worker's batches.
func (ep *Endpoint) sendDatagram(b []byte) {
	p := ep.path.Load()
	if p == nil || ep.router.e.sendTo(p, b) != nil {
		ep.router.e.drops.add(dropNotConnected)
	}
}

func (e *Engine) sendTo(p *path, b []byte) error {
	var err error
	if p.stream != nil {
		_, err = p.stream.Write(b)
	} else {
		_, err = e.conn.WriteToAddrPort(b, p.addr)
	}
	if err != nil {
		return fmt.Errorf("sending to a client: %w", err)
	}
	return nil
}

// record takes a datagram of DTLS.
func (t *transport) record(b []byte) {
	switch t.dtls.Receive(b) {
	case dtlssrtp.Begin:
		t.mu.Lock()
		t.secureOnce()
		t.mu.Unlock()
	case dtlssrtp.Ended:
		t.ep.log.Debug("client closed the DTLS association")
		t.ep.setState(Failed)
	case dtlssrtp.Overflow:
		t.ep.router.e.drops.add(dropQueueFull)
	}
}

// sendRecord sends a datagram of DTLS: the handshake does not wait for a nomination.
func (t *transport) sendRecord(b []byte) {
	t.mu.Lock()
	p, ok := t.agent.Usable()
	t.mu.Unlock()
	if !ok || t.send(p, b) != nil {
		t.ep.router.e.drops.add(dropNotConnected)
	}
}

// secureOnce starts the handshake. t.mu is held.
func (t *transport) secureOnce() {
	if !t.begun && !t.closed {
		t.begun = true
		t.wg.Go(t.secure)
	}
}

// secure makes the DTLS association. Not too many are made at a time: what is left of the
// processor is for media. A client that takes its time loses its place, but goes on.
func (t *transport) secure() {
	ctx, cancel := context.WithTimeout(t.ctx, handshakeTimeout)
	defer cancel()
	e := t.ep.router.e
	select {
	case e.handshakes <- struct{}{}:
		leave := sync.OnceFunc(func() { <-e.handshakes })
		defer leave()
		defer time.AfterFunc(handshakePlace, leave).Stop()
	case <-ctx.Done():
	}
	keys, err := t.dtls.Handshake(ctx)
	if err == nil {
		err = t.installKeys(keys)
	}
	if err != nil {
		if t.ctx.Err() == nil {
			t.ep.log.Info("DTLS handshake failed", "err", err)
			t.ep.setState(Failed)
		}
		return
	}
	t.ep.setState(Connected)
}

// verify compares the client's certificate with the offer's fingerprints (RFC 8122 section 5).
func (t *transport) verify(cert []byte) error {
	for _, fp := range t.fingerprints {
		var digest []byte
		switch fp.Hash {
		case "sha-256":
			d := sha256.Sum256(cert)
			digest = d[:]
		case "sha-384":
			d := sha512.Sum384(cert)
			digest = d[:]
		case "sha-512":
			d := sha512.Sum512(cert)
			digest = d[:]
		}
		if negotiate.FormatFingerprint(digest) == fp.Value {
			return nil
		}
	}
	return errors.New("the client's certificate is not that of its offer")
}

// installKeys begins SRTP in both directions.
func (t *transport) installKeys(k *dtlssrtp.Keys) error {
	sealer, err := seal.New(k.Profile, k.SendKey, k.SendSalt)
	if err != nil {
		return fmt.Errorf("using SRTP keys: %w", err)
	}
	sendRTCP, err := srtp.CreateContext(k.SendKey, k.SendSalt, k.Profile)
	if err != nil {
		return fmt.Errorf("using SRTP keys: %w", err)
	}
	recv, err := srtp.CreateContext(k.RecvKey, k.RecvSalt, k.Profile, srtp.SRTPReplayProtection(1024), srtp.SRTCPReplayProtection(128))
	if err != nil {
		return fmt.Errorf("using SRTP keys: %w", err)
	}
	t.ep.log.Debug("endpoint secured", "profile", k.Profile.String())
	t.ep.in.setKeys(recv)
	t.ep.outRTCP.Lock()
	t.ep.outRTCP.ctx = sendRTCP
	t.ep.outRTCP.Unlock()
	t.ep.out.w.post(func() { t.ep.out.setKeys(sealer) })
	return nil
}

func (ep *Endpoint) hasKeys() bool {
	ep.outRTCP.Lock()
	defer ep.outRTCP.Unlock()
	return ep.outRTCP.ctx != nil
}

// token returns n random letters and digits, about 5.9 bits each.
func token(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, n)
	cryptorand.Read(b) // never fails
	for i, v := range b {
		b[i] = letters[int(v)%len(letters)]
	}
	return string(b)
}
