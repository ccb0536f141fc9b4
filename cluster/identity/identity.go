// Package identity is who a node is to the others: a certificate of the cluster's own authority that names the node,
// and the TLS settings that accept only such certificates.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// MaxNode is how long a node's id may be, in bytes.
const MaxNode = 64

// Why a peer's certificate is refused.
var (
	// ErrForeign: another authority signed it, or nobody.
	ErrForeign = errors.New("the certificate is of another authority")
	// ErrExpired: it is not valid now, by this node's clock.
	ErrExpired = errors.New("the certificate is not valid at this time")
	// ErrWrongNode: it names no node, or another than the one that was called.
	ErrWrongNode = errors.New("the certificate is of another node")
	// ErrRevoked: certificates of this node that were issued so early count no more.
	ErrRevoked = errors.New("the certificate was revoked")
)

// ValidNode tells whether id has 1 to MaxNode of the characters a-z, A-Z, 0-9, ".", "-" and "_".
func ValidNode(id string) bool {
	if id == "" || len(id) > MaxNode {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// Files are PEM files: of the authorities to trust (several while the authority is replaced), of the node's
// certificate and of its key.
type Files struct{ CA, Cert, Key string }

// Config of Load.
type Config struct {
	Logger *slog.Logger
	// Node is the id that the certificate must name; empty: whatever it names.
	Node  string
	Files Files
	// Now is the clock by which certificates are valid; default time.Now.
	Now func() time.Time
}

// Identity is a node's certificate and those whom it trusts. Files that change on disk are read again at the next
// handshake, at most once a second; when they are damaged the last good ones stay in use. It may be used from many
// goroutines.
type Identity struct {
	log   *slog.Logger
	node  string
	files Files // empty in memory
	now   func() time.Time

	mu      sync.Mutex // guards the fields below
	revoked *Revocations
	current material
	checked time.Time
	stamp   string
}

// material is what the files held.
type material struct {
	pair  tls.Certificate
	roots *x509.CertPool
}

// recheck is how often the files are looked at, at most.
const recheck = time.Second

// Load reads the files and checks that they fit: the certificate names the node, one of the authorities signed it, and
// it has not expired.
func Load(cfg Config) (*Identity, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	i := &Identity{log: cfg.Logger, node: cfg.Node, files: cfg.Files, now: cfg.Now}
	i.stamp = i.stampOf()
	m, node, err := i.read()
	if err != nil {
		return nil, err
	}
	i.current, i.node, i.checked = m, node, i.now()
	return i, nil
}

func fromMemory(node string, pair tls.Certificate, root *x509.Certificate) *Identity {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return &Identity{
		log: slog.New(slog.DiscardHandler), node: node, now: time.Now, current: material{pair: pair, roots: roots}}
}

// Heed has certificates refused that count no more.
func (i *Identity) Heed(r *Revocations) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.revoked = r
}

// ID is the id of this node.
func (i *Identity) ID() string { return i.node }

// Expires is when this node's certificate does.
func (i *Identity) Expires() time.Time { return i.material().pair.Leaf.NotAfter }

// Server is the TLS configuration of who is called: it takes any node of the cluster; see PeerID. Without a protocol
// in common the handshake fails.
func (i *Identity) Server(alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: alpn,
		Time:       i.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			m := i.material()
			return &m.pair, nil
		},
		// Verified below, in the one place for both sides.
		ClientAuth: tls.RequireAnyClientCert,
		// A resumed session would outlive the certificate that it was made with.
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := i.verify(state)
			return err
		},
	}
}

// Client is the TLS configuration of who calls node: it takes exactly this one.
func (i *Identity) Client(node, alpn string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		Time:       i.now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			m := i.material()
			return &m.pair, nil
		},
		// Nodes are known by the URI in their certificates, not by a DNS name: VerifyConnection does all of it.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			got, err := i.verify(state)
			if err == nil && got != node {
				return fmt.Errorf("%w: called %q, reached %q", ErrWrongNode, node, got)
			}
			return err
		},
	}
}

// PeerID is the node at the other end of a connection whose handshake is done.
func (i *Identity) PeerID(state tls.ConnectionState) (string, error) {
	if len(state.PeerCertificates) == 0 {
		return "", fmt.Errorf("%w: there is none", ErrForeign)
	}
	return nodeOf(state.PeerCertificates[0])
}

// verify checks the peer's chain against the authorities of now, and answers the node that it names.
func (i *Identity) verify(state tls.ConnectionState) (string, error) {
	if len(state.PeerCertificates) == 0 {
		return "", fmt.Errorf("%w: there is none", ErrForeign)
	}
	node, err := check(state.PeerCertificates, i.material().roots, i.now())
	if err == nil {
		err = i.Revoked(state)
	}
	return node, err
}

func check(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (string, error) {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "", fmt.Errorf("%w: from %s to %s", ErrExpired, chain[0].NotBefore.UTC().Format(time.RFC3339), chain[0].NotAfter.UTC().Format(time.RFC3339))
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return nodeOf(chain[0])
}

const uriScheme = "amphi"

func nodeURI(node string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: "node", Path: "/" + node}
}

// nodeOf is the node that a certificate names in its one URI.
func nodeOf(cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 {
		return "", fmt.Errorf("%w: %d URIs in it, want one", ErrWrongNode, len(cert.URIs))
	}
	uri := cert.URIs[0]
	node := strings.TrimPrefix(uri.Path, "/")
	if !ValidNode(node) || uri.String() != nodeURI(node).String() {
		return "", fmt.Errorf("%w: %.100q is not amphi://node/ID", ErrWrongNode, uri)
	}
	return node, nil
}

// material is what is in the files now, or was when they were last in order.
func (i *Identity) material() material {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.files == (Files{}) || i.now().Sub(i.checked).Abs() < recheck {
		return i.current
	}
	i.checked = i.now()
	stamp := i.stampOf()
	if stamp == i.stamp {
		return i.current
	}
	m, _, err := i.read()
	if err != nil {
		// Half written, or wrong: looked at again in a second, and told once per change.
		i.log.Warn("the node's certificate changed on disk and cannot be used; the last one stays", "err", err)
		i.stamp = stamp
		return i.current
	}
	i.log.Info("the node's certificate was read again", "expires", m.pair.Leaf.NotAfter)
	i.current, i.stamp = m, stamp
	return i.current
}

// stampOf changes when a file does.
func (i *Identity) stampOf() string {
	var b strings.Builder
	for _, name := range []string{i.files.CA, i.files.Cert, i.files.Key} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintln(&b, info.Size(), info.ModTime().UnixNano())
		} else {
			fmt.Fprintln(&b, "missing")
		}
	}
	return b.String()
}

// read loads and checks the files, and answers the node that they name.
func (i *Identity) read() (material, string, error) {
	pair, err := loadPair(i.files.Cert, i.files.Key)
	if err != nil {
		return material{}, "", fmt.Errorf("reading the node's certificate: %w", err)
	}
	bundle, err := readFile(i.files.CA)
	if err != nil {
		return material{}, "", fmt.Errorf("reading the authority's certificate: %w", err)
	}
	roots, err := parseRoots(bundle)
	if err != nil {
		return material{}, "", fmt.Errorf("reading the authority's certificate: %s: %w", i.files.CA, err)
	}
	chain := []*x509.Certificate{pair.Leaf}
	node, err := check(chain, roots, i.now())
	if err != nil {
		return material{}, "", fmt.Errorf("%s: %w", i.files.Cert, err)
	}
	if i.node != "" && node != i.node {
		return material{}, "", fmt.Errorf("%s: %w: it names %q, this node is %q", i.files.Cert, ErrWrongNode, node, i.node)
	}
	return material{pair: pair, roots: roots}, node, nil
}

func parseRoots(bundle []byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	found := false
	for len(bundle) > 0 {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it holds a %s; only certificates belong there", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !cert.IsCA {
			return nil, fmt.Errorf("%q in it is not an authority", cert.Subject.CommonName)
		}
		roots.AddCert(cert)
		found = true
	}
	if !found {
		return nil, errors.New("it holds no certificate")
	}
	return roots, nil
}
