package media

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/srtp/v3"
	"github.com/pion/transport/v4/packetio"

	"github.com/amphi-sfu/amphi/media/icenet"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/seal"
)

// transport is an endpoint's ICE agent and DTLS association. Fields are set before
// start, or belong to Negotiate.
type transport struct {
	ep           *Endpoint
	agent        *ice.Agent
	conn         *ice.Conn
	ufrag, pwd   string
	remoteUfrag  string
	fingerprints []negotiate.Fingerprint
	active       bool // we begin the DTLS handshake
	handshake    *packetio.Buffer
	ctx          context.Context // ends when the transport is closed
	cancel       context.CancelFunc
	started      sync.Once
	wg           sync.WaitGroup
	gathered     chan struct{}
}

// path is where an endpoint's packets go: to addr, or into stream.
type path struct {
	addr   netip.AddrPort
	stream net.Conn
}

func newTransport(ep *Endpoint, o *negotiate.Offer) (*transport, error) {
	e := ep.router.e
	t := &transport{
		ep: ep, ufrag: icenet.Token(8), pwd: icenet.Token(24), remoteUfrag: o.Ufrag, fingerprints: o.Fingerprints,
		active: o.Setup == "passive", handshake: packetio.NewBuffer(), gathered: make(chan struct{}, 1),
	}
	t.handshake.SetLimitCount(64)
	t.handshake.SetLimitSize(256 << 10)
	agent, err := e.ice.NewAgent(t.ufrag, t.pwd)
	if err != nil {
		return nil, err
	}
	t.agent = agent
	t.ctx, t.cancel = context.WithCancel(context.Background())
	err = errors.Join(
		agent.OnCandidate(t.candidate),
		agent.OnConnectionStateChange(t.stateChanged),
		agent.OnSelectedCandidatePairChange(t.pairSelected),
	)
	if err == nil {
		err = t.gather()
	}
	if err == nil {
		t.conn, err = agent.StartAccept(o.Ufrag, o.Pwd)
	}
	if err != nil {
		t.cancel()
		return nil, errors.Join(fmt.Errorf("starting ICE: %w", err), agent.Close())
	}
	return t, nil
}

func (t *transport) candidate(c ice.Candidate) {
	if c == nil {
		select {
		case t.gathered <- struct{}{}:
		default:
		}
	}
}

// gather makes the agent known to the muxes; it asks nobody and takes no time.
func (t *transport) gather() error {
	select {
	case <-t.gathered:
	default:
	}
	if err := t.agent.GatherCandidates(); err != nil {
		return fmt.Errorf("gathering candidates: %w", err)
	}
	timeout := time.NewTimer(5 * time.Second)
	defer timeout.Stop()
	select {
	case <-t.gathered:
		return nil
	case <-timeout.C:
		return errors.New("gathering candidates: timed out")
	}
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
func (t *transport) update(o *negotiate.Offer) error {
	if o.Ufrag == t.remoteUfrag {
		return nil
	}
	t.ufrag, t.pwd, t.remoteUfrag = icenet.Token(8), icenet.Token(24), o.Ufrag
	if err := t.agent.Restart(t.ufrag, t.pwd); err != nil {
		return fmt.Errorf("restarting ICE: %w", err)
	}
	if err := t.agent.SetRemoteCredentials(o.Ufrag, o.Pwd); err != nil {
		return fmt.Errorf("restarting ICE: %w", err)
	}
	return t.gather()
}

// start runs the connection; further calls have no effect.
func (t *transport) start() {
	t.started.Do(func() {
		t.wg.Go(t.read)
		t.wg.Go(t.secure)
	})
}

func (t *transport) close() error {
	t.cancel()
	err := t.agent.Close()
	if e := t.handshake.Close(); e != nil {
		err = errors.Join(err, e)
	}
	t.wg.Wait()
	if err != nil {
		return fmt.Errorf("closing the transport: %w", err)
	}
	return nil
}

// read takes what came by way of the ICE agent: DTLS, media over ICE-TCP, and
// media from before a pair was selected.
func (t *transport) read() {
	buf := make([]byte, packet.MaxSize+200)
	e := t.ep.router.e
	for {
		n, err := t.conn.Read(buf)
		if err != nil {
			if t.ctx.Err() != nil || !errors.Is(err, packetio.ErrFull) {
				t.handshake.Close()
				return
			}
			continue
		}
		if n == 0 {
			continue
		}
		switch b := buf[0]; { // RFC 7983
		case b >= 20 && b < 64:
			if _, err := t.handshake.Write(buf[:n]); err != nil {
				e.drops.add(dropQueueFull)
			}
		case b >= 128 && b < 192:
			t.ep.in.datagram(buf[:n], e.now())
			e.kickWorkers()
		default:
			e.drops.add(dropUnknownSource)
		}
	}
}

func (t *transport) stateChanged(s ice.ConnectionState) {
	switch s {
	case ice.ConnectionStateDisconnected:
		t.ep.setState(Disconnected)
	case ice.ConnectionStateFailed:
		t.ep.setState(Failed)
	case ice.ConnectionStateConnected, ice.ConnectionStateCompleted:
		if t.ep.hasKeys() {
			t.ep.setState(Connected)
		}
	}
}

// pairSelected opens the fast path to and from the client's address.
func (t *transport) pairSelected(_, remote ice.Candidate) {
	p := &path{}
	if remote.NetworkType().IsUDP() {
		ip, err := netip.ParseAddr(remote.Address())
		if err != nil {
			t.ep.log.Warn("selected pair without an address", "address", remote.Address())
			return
		}
		p.addr = netip.AddrPortFrom(ip.Unmap(), uint16(remote.Port()))
	} else {
		p.stream = t.conn
	}
	t.ep.setPath(p)
}

func (ep *Endpoint) setPath(p *path) {
	e := ep.router.e
	old := ep.path.Swap(p)
	if p.stream == nil {
		e.addrs.set(p.addr, ep)
	}
	if old != nil && old.addr.IsValid() && old.addr != p.addr {
		e.addrs.remove(old.addr, ep)
	}
	ep.out.w.post(func() { ep.out.setPath(p.addr, p.stream) })
}

func (ep *Endpoint) forgetPath() {
	if old := ep.path.Swap(nil); old != nil && old.addr.IsValid() {
		ep.router.e.addrs.remove(old.addr, ep)
	}
}

// sendDatagram sends one packet at once, past the worker's batches.
func (ep *Endpoint) sendDatagram(b []byte) {
	p := ep.path.Load()
	var err error
	switch {
	case p == nil:
		ep.router.e.drops.add(dropNotConnected)
	case p.stream != nil:
		_, err = p.stream.Write(b)
	default:
		_, err = ep.router.e.conn.WriteToAddrPort(b, p.addr)
	}
	if err != nil {
		ep.router.e.drops.add(dropNotConnected)
	}
}

// secure makes the DTLS association, then waits for its end.
func (t *transport) secure() {
	ctx, cancel := context.WithTimeout(t.ctx, handshakeTimeout)
	defer cancel()
	if t.active { // the first flight has to find a path
		if err := t.agent.AwaitConnect(ctx); err != nil {
			t.ep.log.Debug("waiting for a path", "err", err)
		}
	}
	conn, err := t.associate()
	if err == nil {
		if err = conn.HandshakeContext(ctx); err == nil {
			err = t.installKeys(conn)
		}
	}
	if err != nil {
		if t.ctx.Err() == nil {
			t.ep.log.Info("DTLS handshake failed", "err", err)
			t.ep.setState(Failed)
		}
		if conn != nil {
			conn.Close()
		}
		return
	}
	t.ep.setState(Connected)
	// Nothing is ever sent over the association: reading ends when the client closes it.
	if _, err := conn.Read(make([]byte, 1)); err != nil && t.ctx.Err() == nil {
		t.ep.log.Debug("client closed the DTLS association", "err", err)
		t.ep.setState(Failed)
	}
	conn.Close()
}

func (t *transport) associate() (*dtls.Conn, error) {
	e := t.ep.router.e
	opts := []dtls.Option{
		dtls.WithCertificates(e.identity.certificate),
		dtls.WithSRTPProtectionProfiles(
			dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80,
		),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithInsecureSkipVerify(true), // the fingerprint is verified instead
		dtls.WithVerifyPeerCertificate(t.verify),
		dtls.WithFlightInterval(200 * time.Millisecond),
		dtls.WithReplayProtectionWindow(64),
		dtls.WithLoggerFactory(e.ice.Log()),
	}
	remote := &net.UDPAddr{IP: net.IPv4zero}
	if t.active {
		client := make([]dtls.ClientOption, len(opts))
		for i, o := range opts {
			client[i] = o
		}
		conn, err := dtls.ClientWithOptions(handshakeConn{t}, remote, client...)
		return conn, wrapDTLS(err)
	}
	server := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
	for _, o := range opts {
		server = append(server, o)
	}
	conn, err := dtls.ServerWithOptions(handshakeConn{t}, remote, server...)
	return conn, wrapDTLS(err)
}

func wrapDTLS(err error) error {
	if err != nil {
		return fmt.Errorf("setting up DTLS: %w", err)
	}
	return nil
}

// verify compares the client's certificate with the offer's fingerprints (RFC 8122 section 5).
func (t *transport) verify(certs [][]byte, _ [][]*x509.Certificate) error {
	if len(certs) == 0 {
		return errors.New("the client has no certificate")
	}
	for _, fp := range t.fingerprints {
		var digest []byte
		switch fp.Hash {
		case "sha-256":
			d := sha256.Sum256(certs[0])
			digest = d[:]
		case "sha-384":
			d := sha512.Sum384(certs[0])
			digest = d[:]
		case "sha-512":
			d := sha512.Sum512(certs[0])
			digest = d[:]
		}
		if negotiate.FormatFingerprint(digest) == fp.Value {
			return nil
		}
	}
	return errors.New("the client's certificate is not that of its offer")
}

// installKeys takes the SRTP keys from the association (RFC 5764 section 4.2).
func (t *transport) installKeys(conn *dtls.Conn) error {
	chosen, ok := conn.SelectedSRTPProtectionProfile()
	if !ok {
		return errors.New("no common SRTP profile")
	}
	profile := srtp.ProtectionProfile(chosen)
	keyLen, err := profile.KeyLen()
	if err != nil {
		return fmt.Errorf("reading SRTP keys: %w", err)
	}
	saltLen, err := profile.SaltLen()
	if err != nil {
		return fmt.Errorf("reading SRTP keys: %w", err)
	}
	state, ok := conn.ConnectionState()
	if !ok {
		return errors.New("reading SRTP keys: the association is not established")
	}
	m, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(keyLen+saltLen))
	if err != nil {
		return fmt.Errorf("reading SRTP keys: %w", err)
	}
	clientKey, serverKey := m[:keyLen], m[keyLen:2*keyLen]
	clientSalt, serverSalt := m[2*keyLen:2*keyLen+saltLen], m[2*keyLen+saltLen:]
	sendKey, sendSalt, recvKey, recvSalt := serverKey, serverSalt, clientKey, clientSalt
	if t.active {
		sendKey, sendSalt, recvKey, recvSalt = clientKey, clientSalt, serverKey, serverSalt
	}
	sealer, err := seal.New(profile, sendKey, sendSalt)
	if err != nil {
		return fmt.Errorf("using SRTP keys: %w", err)
	}
	sendRTCP, err := srtp.CreateContext(sendKey, sendSalt, profile)
	if err != nil {
		return fmt.Errorf("using SRTP keys: %w", err)
	}
	recv, err := srtp.CreateContext(recvKey, recvSalt, profile, srtp.SRTPReplayProtection(1024), srtp.SRTCPReplayProtection(128))
	if err != nil {
		return fmt.Errorf("using SRTP keys: %w", err)
	}
	t.ep.log.Debug("endpoint secured", "profile", profile.String())
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

// handshakeConn is the DTLS association's view of the ICE connection.
type handshakeConn struct {
	t *transport
}

// ReadFrom implements net.PacketConn.
func (c handshakeConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.t.handshake.Read(b)
	return n, c.t.conn.RemoteAddr(), err
}

// WriteTo implements net.PacketConn.
func (c handshakeConn) WriteTo(b []byte, _ net.Addr) (int, error) { return c.t.conn.Write(b) }

// Close implements net.PacketConn.
func (c handshakeConn) Close() error { return c.t.handshake.Close() }

// LocalAddr implements net.PacketConn.
func (c handshakeConn) LocalAddr() net.Addr { return c.t.conn.LocalAddr() }

// SetDeadline implements net.PacketConn.
func (c handshakeConn) SetDeadline(d time.Time) error { return c.t.handshake.SetReadDeadline(d) }

// SetReadDeadline implements net.PacketConn.
func (c handshakeConn) SetReadDeadline(d time.Time) error { return c.t.handshake.SetReadDeadline(d) }

// SetWriteDeadline implements net.PacketConn; writes never block.
func (c handshakeConn) SetWriteDeadline(time.Time) error { return nil }
