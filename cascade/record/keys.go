package record

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	// SecretSize is the length of a direction's secret, in bytes.
	SecretSize = 32
	// ExporterLabel is what Secrets asks of TLS (RFC 5705, RFC 8446 section 7.5).
	ExporterLabel = "EXPORTER-amphi-trunk-1"
	keySize       = 16
	nonceSize     = 12
)

// Exporter draws key material from a TLS 1.3 connection, as tls.ConnectionState's
// ExportKeyingMaterial does.
type Exporter func(label string, context []byte, length int) ([]byte, error)

// Secrets draws the first secrets of both directions from a connection; dialled says that
// this end is the TLS client.
func Secrets(export Exporter, dialled bool) (out, in []byte, err error) {
	toServer, err := export(ExporterLabel, []byte("client to server"), SecretSize)
	if err != nil {
		return nil, nil, fmt.Errorf("drawing the trunk's keys: %w", err)
	}
	toClient, err := export(ExporterLabel, []byte("server to client"), SecretSize)
	if err != nil {
		return nil, nil, fmt.Errorf("drawing the trunk's keys: %w", err)
	}
	if dialled {
		return toServer, toClient, nil
	}
	return toClient, toServer, nil
}

// phaseKey is the key of one phase of one direction, and the secret of the next phase.
type phaseKey struct {
	aead   cipher.AEAD
	iv     [nonceSize]byte
	secret []byte // of the phase after it
}

func newPhaseKey(secret []byte) (*phaseKey, error) {
	expand := func(info string, n int) ([]byte, error) { return hkdf.Expand(sha256.New, secret, info, n) }
	if len(secret) != SecretSize {
		return nil, fmt.Errorf("record: secret of %d bytes instead of %d", len(secret), SecretSize)
	}
	key, err := expand("amphi record key", keySize)
	if err != nil {
		return nil, fmt.Errorf("deriving a record key: %w", err)
	}
	iv, err := expand("amphi record iv", nonceSize)
	if err != nil {
		return nil, fmt.Errorf("deriving a record key: %w", err)
	}
	next, err := expand("amphi record next", SecretSize)
	if err != nil {
		return nil, fmt.Errorf("deriving a record key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making a record cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making a record cipher: %w", err)
	}
	k := &phaseKey{aead: aead, secret: next}
	copy(k.iv[:], iv)
	return k, nil
}

// after returns the key of the next phase.
func (k *phaseKey) after() (*phaseKey, error) { return newPhaseKey(k.secret) }

// nonce fills n for a packet number: the number, as 96 bits, xor the phase's iv
// (as RFC 8446 section 5.3).
func (k *phaseKey) nonce(n *[nonceSize]byte, number uint64) {
	*n = k.iv
	v := binary.BigEndian.Uint64(n[4:])
	binary.BigEndian.PutUint64(n[4:], v^number)
}
