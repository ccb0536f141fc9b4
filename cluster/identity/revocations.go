package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
)

// Revocations are which certificates count no more: those of a node that were issued before a time. They only become more. They may be
// used from many goroutines.
type Revocations struct {
	file string // empty: in memory only

	mu     sync.Mutex // guards the fields below
	before map[string]time.Time
	saved  bool
}

// OpenRevocations goes on from what Save wrote to the file, if it is there; without one they are in memory only.
func OpenRevocations(file string) (*Revocations, error) {
	r := &Revocations{file: file, before: map[string]time.Time{}, saved: true}
	if file == "" {
		return r, nil
	}
	data, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r.before)
	}
	if err != nil {
		// To go on without would let in who was shut out.
		return nil, fmt.Errorf("reading the certificates that count no more: %w", err)
	}
	return r, nil
}

// Add makes more certificates count no more, and answers of which nodes.
func (r *Revocations) Add(before map[string]time.Time) (nodes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for node, t := range before {
		if t.After(r.before[node]) {
			r.before[node] = t
			nodes = append(nodes, node)
			r.saved = false
		}
	}
	return nodes
}

// Save writes them to the file, if that does not have them yet; it is whole at every moment.
func (r *Revocations) Save() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.saved || r.file == "" {
		return nil
	}
	data, err := json.Marshal(r.before)
	if err != nil {
		return fmt.Errorf("encoding the certificates that count no more: %w", err)
	}
	if err := replaceFile(r.file, data); err != nil {
		return fmt.Errorf("keeping which certificates count no more: %w", err)
	}
	r.saved = true
	return nil
}

func replaceFile(name string, data []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Before is the time before which certificates of a node must have been issued to count no more; zero: all count.
func (r *Revocations) Before(node string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.before[node]
}

// Revoked tells whether the certificate of the other side of a connection, whose handshake is done, counts no more.
func (i *Identity) Revoked(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: there is none", ErrForeign)
	}
	i.mu.Lock()
	r := i.revoked
	i.mu.Unlock()
	cert := state.PeerCertificates[0]
	node, err := nodeOf(cert)
	if r == nil || err != nil {
		return err
	}
	if before, at := r.Before(node), issued(cert); at.Before(before) {
		return fmt.Errorf("%w: of those of %q, issued before %s, it was on %s", ErrRevoked, node, before.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	return nil
}

// issuedMark is before the time of issue in the subject of a certificate, whose beginning of validity is earlier.
const issuedMark = "issued "

// issued is when a certificate was issued, or no later than that: those of other tools say only from when they are valid.
func issued(cert *x509.Certificate) time.Time {
	text, ok := strings.CutPrefix(cert.Subject.SerialNumber, issuedMark)
	if t, err := time.Parse(time.RFC3339, text); ok && err == nil {
		return t
	}
	return cert.NotBefore
}
