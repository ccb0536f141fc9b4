package dtlssrtp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/prf"
)

// Records (RFC 6347 section 4.1) and alerts (RFC 5246 section 7.2).
const (
	recordHeader    = 13
	typeAlert       = 21
	typeHandshake   = 22
	explicitNonce   = 8
	tagSize         = 16
	levelFatal      = 2
	closeNotifyCode = 0
)

// kept is what is kept of an established association.
type kept struct {
	secret, clientRandom, serverRandom []byte
	active                             bool
	flight                             []byte // the last one, to be sent again
}

// exported is the part that matters of what the library exports of an association.
type exported struct {
	LocalRandom, RemoteRandom [32]byte
	MasterSecret              []byte
}

func keep(state *dtls.State, active bool) (*kept, error) {
	raw, err := state.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("exporting the association: %w", err)
	}
	var x exported
	if err := gob.NewDecoder(bytes.NewReader(raw)).Decode(&x); err != nil {
		return nil, fmt.Errorf("exporting the association: %w", err)
	}
	k := &kept{
		secret: x.MasterSecret, active: active,
		clientRandom: x.RemoteRandom[:], serverRandom: x.LocalRandom[:],
	}
	if active {
		k.clientRandom, k.serverRandom = k.serverRandom, k.clientRandom
	}
	return k, nil
}

// opener derives what decrypts the client's records (RFC 5246 section 6.3).
func (k *kept) opener() (aead cipher.AEAD, iv []byte, err error) {
	m, err := prf.GenerateEncryptionKeys(k.secret, k.clientRandom, k.serverRandom, 0, 16, 4, sha256.New)
	if err != nil {
		return nil, nil, fmt.Errorf("deriving DTLS keys: %w", err)
	}
	key, iv := m.ClientWriteKey, m.ClientWriteIV
	if k.active {
		key, iv = m.ServerWriteKey, m.ServerWriteIV
	}
	block, err := aes.NewCipher(key)
	if err == nil {
		aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("making the DTLS cipher: %w", err)
	}
	return aead, iv, nil
}

// established takes a datagram when the handshake is over.
func (a *Association) established(b []byte) Event {
	for len(b) >= recordHeader {
		n := recordHeader + int(binary.BigEndian.Uint16(b[11:]))
		if n > len(b) {
			return Nothing
		}
		switch record := b[:n]; {
		case record[0] == typeHandshake:
			a.sendAgain()
		case record[0] == typeAlert && binary.BigEndian.Uint16(record[3:]) == 1 && a.kept.ends(record):
			return Ended
		}
		b = b[n:]
	}
	return Nothing
}

// sendAgain sends our last flight again: the client has not got it (RFC 6347 section
// 4.2.4). The records are the same, so nothing is encrypted twice.
func (a *Association) sendAgain() {
	now := time.Now()
	if len(a.kept.flight) == 0 || now.Sub(a.resent) < resendAfter {
		return
	}
	a.resent = now
	a.cfg.Send(a.kept.flight)
}

// ends decrypts an alert and says whether it ends the association.
func (k *kept) ends(record []byte) bool {
	body := record[recordHeader:]
	if len(body) != explicitNonce+2+tagSize {
		return false
	}
	aead, iv, err := k.opener()
	if err != nil {
		return false
	}
	nonce := append(append(make([]byte, 0, 12), iv...), body[:explicitNonce]...)
	alert, err := aead.Open(nil, nonce, body[explicitNonce:], additional(record, 2))
	return err == nil && (alert[0] == levelFatal || alert[1] == closeNotifyCode)
}

// additional is the additional data of a record (RFC 5246 section 6.2.3.3, RFC 6347
// section 4.1.2.1).
func additional(record []byte, size int) []byte {
	return append(append(make([]byte, 0, 13), record[3:11]...), record[0], record[1], record[2], byte(size>>8), byte(size))
}
