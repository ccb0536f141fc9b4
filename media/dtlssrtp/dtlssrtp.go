// Package dtlssrtp agrees on SRTP keys by DTLS (RFC 5764). An association costs goroutines
// and buffers only while its handshake lasts; of an established one 300 bytes are kept,
// enough to send the last flight again and to hear that the client ends it.
package dtlssrtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/elliptic"
	"github.com/pion/srtp/v3"
)

// Limits.
const (
	maxWaiting = 32   // datagrams waiting for the handshake
	maxSize    = 2048 // of one
	// flightInterval is the first time until a flight is sent again.
	flightInterval = 200 * time.Millisecond
	// resendAfter bounds how often the last flight is sent again.
	resendAfter = 50 * time.Millisecond
)

// Config of an Association.
type Config struct {
	Certificate tls.Certificate
	// Active says that we begin.
	Active bool
	// Verify decides on the client's certificate, in DER.
	Verify func(cert []byte) error
	// Send sends a datagram; it must not block, nor keep b.
	Send func(b []byte)
	Log  *slog.Logger
}

// Keys are those of SRTP in both directions.
type Keys struct {
	Profile           srtp.ProtectionProfile
	SendKey, SendSalt []byte
	RecvKey, RecvSalt []byte
}

// Association is one DTLS association. Its methods are safe for concurrent use.
type Association struct {
	cfg Config

	mu     sync.Mutex // guards the fields below
	line   *line      // while the handshake lasts
	begun  bool
	kept   *kept // once it is established
	closed bool
	resent time.Time
}

// New makes an association, which waits for Handshake.
func New(cfg Config) *Association { return &Association{cfg: cfg} }

// Event is what a received datagram means for the caller.
type Event uint8

// Events.
const (
	Nothing  Event = iota
	Begin          // the handshake begins: call Handshake
	Ended          // the client has ended the association
	Overflow       // too much waits for the handshake: dropped
)

// Receive takes a datagram of DTLS records from the client, which is not kept.
func (a *Association) Receive(b []byte) Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return Nothing
	case a.kept != nil:
		return a.established(b)
	case len(b) > maxSize:
		return Overflow
	}
	if a.line == nil {
		a.line = newLine(a.cfg.Send)
	}
	if !a.line.deliver(b) {
		return Overflow
	}
	if a.begun || a.cfg.Active {
		return Nothing
	}
	a.begun = true
	return Begin
}

// Handshake runs the handshake and returns the keys. It may be called once: after
// Receive said Begin or, when we are to begin, when there is a path to the client.
func (a *Association) Handshake(ctx context.Context) (*Keys, error) {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil, net.ErrClosed
	}
	if a.line == nil {
		a.line = newLine(a.cfg.Send)
	}
	l := a.line
	a.begun = true
	a.mu.Unlock()
	var log secrets
	conn, err := a.open(l, &log)
	if err != nil {
		return nil, fmt.Errorf("setting up DTLS: %w", err)
	}
	// Closing ends the goroutines of the library; what it has to say then is not sent.
	defer func() {
		l.mute()
		conn.Close()
	}()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("DTLS handshake: %w", err)
	}
	keys, err := export(conn, a.cfg.Active)
	if err != nil {
		return nil, err
	}
	k := &kept{secret: log.master, clientRandom: log.clientRandom, active: a.cfg.Active}
	k.serverRandom, k.flight = l.seen()
	if a.cfg.Active { // who answers sends the last flight
		k.flight = nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, net.ErrClosed
	}
	a.kept, a.line = k, nil
	return keys, nil
}

func (a *Association) open(l *line, log *secrets) (*dtls.Conn, error) {
	opts := []dtls.Option{
		dtls.WithCertificates(a.cfg.Certificate),
		// What every WebRTC endpoint must have (RFC 8827 section 6.5), and is fastest.
		dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
		dtls.WithEllipticCurves(elliptic.P256, elliptic.X25519),
		dtls.WithSRTPProtectionProfiles(
			dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80,
		),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithInsecureSkipVerify(true), // the fingerprint is verified instead
		dtls.WithVerifyPeerCertificate(a.verify),
		dtls.WithFlightInterval(flightInterval),
		dtls.WithReplayProtectionWindow(64),
		dtls.WithKeyLogWriter(log),
		dtls.WithLoggerFactory(leveled{a.cfg.Log}),
	}
	remote := &net.UDPAddr{IP: net.IPv4zero}
	if a.cfg.Active {
		client := make([]dtls.ClientOption, len(opts))
		for i, o := range opts {
			client[i] = o
		}
		return dtls.ClientWithOptions(l, remote, client...)
	}
	server := []dtls.ServerOption{
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		// ICE has shown already that the client receives at its address.
		dtls.WithInsecureSkipVerifyHello(true),
	}
	for _, o := range opts {
		server = append(server, o)
	}
	return dtls.ServerWithOptions(l, remote, server...)
}

func (a *Association) verify(certs [][]byte, _ [][]*x509.Certificate) error {
	if len(certs) == 0 {
		return errors.New("the client has no certificate")
	}
	return a.cfg.Verify(certs[0])
}

// Close ends the association without a word to the client.
func (a *Association) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	if a.line != nil {
		a.line.Close()
	}
}

// export takes the keys of SRTP from a connection (RFC 5764 section 4.2).
func export(conn *dtls.Conn, active bool) (*Keys, error) {
	chosen, ok := conn.SelectedSRTPProtectionProfile()
	if !ok {
		return nil, errors.New("no common SRTP profile")
	}
	profile := srtp.ProtectionProfile(chosen)
	keyLen, err := profile.KeyLen()
	if err != nil {
		return nil, fmt.Errorf("reading SRTP keys: %w", err)
	}
	saltLen, err := profile.SaltLen()
	if err != nil {
		return nil, fmt.Errorf("reading SRTP keys: %w", err)
	}
	state, ok := conn.ConnectionState()
	if !ok {
		return nil, errors.New("reading SRTP keys: the association is not established")
	}
	m, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(keyLen+saltLen))
	if err != nil {
		return nil, fmt.Errorf("reading SRTP keys: %w", err)
	}
	clientKey, serverKey := m[:keyLen], m[keyLen:2*keyLen]
	clientSalt, serverSalt := m[2*keyLen:2*keyLen+saltLen], m[2*keyLen+saltLen:]
	keys := &Keys{Profile: profile, SendKey: serverKey, SendSalt: serverSalt, RecvKey: clientKey, RecvSalt: clientSalt}
	if active {
		keys.SendKey, keys.SendSalt, keys.RecvKey, keys.RecvSalt = clientKey, clientSalt, serverKey, serverSalt
	}
	return keys, nil
}
