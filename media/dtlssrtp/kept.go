package dtlssrtp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/pion/dtls/v3/pkg/crypto/prf"
)

// Records (RFC 6347 section 4.1) and alerts (RFC 5246 section 7.2).
const (
	recordHeader    = 13
	typeAlert       = 21
	typeHandshake   = 22
	typeServerHello = 2
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

// secrets takes what the library writes into a key log: the lines of NSS's format.
// Exporting the association's state instead costs 0.1 ms, as it goes through reflection.
type secrets struct {
	clientRandom, master []byte
}

// Write implements io.Writer.
func (s *secrets) Write(b []byte) (int, error) {
	fields := bytes.Fields(b)
	if len(fields) != 3 || string(fields[0]) != "CLIENT_RANDOM" {
		return len(b), nil
	}
	clientRandom, err := hex.DecodeString(string(fields[1]))
	if err != nil {
		return 0, fmt.Errorf("reading the key log: %w", err)
	}
	master, err := hex.DecodeString(string(fields[2]))
	if err != nil {
		return 0, fmt.Errorf("reading the key log: %w", err)
	}
	s.clientRandom, s.master = clientRandom, master
	return len(b), nil
}

// serverRandom returns that of a ServerHello in a datagram, nil when there is none
// (RFC 6347 sections 4.1 and 4.2.2, RFC 5246 section 7.4.1.3).
func serverRandom(b []byte) []byte {
	const before = recordHeader + 12 + 2
	for len(b) >= before+32 {
		n := recordHeader + int(binary.BigEndian.Uint16(b[11:]))
		if n > len(b) {
			return nil
		}
		plain := binary.BigEndian.Uint16(b[3:]) == 0
		if b[0] == typeHandshake && plain && b[recordHeader] == typeServerHello && n >= before+32 {
			return bytes.Clone(b[before : before+32])
		}
		b = b[n:]
	}
	return nil
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
