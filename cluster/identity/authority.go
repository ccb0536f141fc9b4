package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Names of an authority's files in its directory.
const (
	CAFile    = "ca.pem"
	CAKeyFile = "ca.key"
)

const (
	// backdate lets a node accept a certificate although its clock is a little behind.
	backdate = time.Hour
	// AuthorityLife and NodeLife are how long certificates are valid unless told otherwise.
	AuthorityLife = 10 * 365 * 24 * time.Hour
	NodeLife      = 365 * 24 * time.Hour
)

// Authority signs the certificates of one cluster's nodes. It may be used from many goroutines.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// New makes the authority of a cluster of this name, valid for life (0: AuthorityLife). It is in memory until Save.
func New(cluster string, life time.Duration) (*Authority, error) {
	if life <= 0 {
		life = AuthorityLife
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Amphi cluster " + cluster},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the authority's certificate back: %w", err)
	}
	return &Authority{cert: cert, key: key, pem: encodeCert(der)}, nil
}

// LoadAuthority reads an authority that Save wrote.
func LoadAuthority(dir string) (*Authority, error) {
	pair, err := loadPair(filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile))
	if err != nil {
		return nil, fmt.Errorf("reading the authority: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("reading the authority: %s is not the certificate of an authority", filepath.Join(dir, CAFile))
	}
	return &Authority{cert: pair.Leaf, key: key, pem: encodeCert(pair.Certificate[0])}, nil
}

// Save writes the authority into dir, which is made when missing. It never overwrites: losing an authority means new
// certificates for every node.
func (a *Authority) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the authority's directory: %w", err)
	}
	key, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{{CAKeyFile, key, 0o600}, {CAFile, a.pem, 0o644}} {
		if err := writeNew(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// CertPEM is the certificate that every node needs to recognise the others.
func (a *Authority) CertPEM() []byte { return append([]byte(nil), a.pem...) }

// Expires is when the authority's own certificate does.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// Issue makes a key and a certificate for a node, valid for life (0: NodeLife), but never longer than the authority.
func (a *Authority) Issue(node string, life time.Duration) (cert, key []byte, err error) {
	if !ValidNode(node) {
		return nil, nil, fmt.Errorf("%q is not a node id: want 1 to %d of a-z, A-Z, 0-9, \".\", \"-\", \"_\"", node, MaxNode)
	}
	if life <= 0 {
		life = NodeLife
	}
	now := time.Now()
	if !now.Before(a.cert.NotAfter) {
		return nil, nil, fmt.Errorf("the authority expired on %s", a.cert.NotAfter.Format(time.DateOnly))
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making the node's key: %w", err)
	}
	expires := now.Add(life)
	if expires.After(a.cert.NotAfter) {
		expires = a.cert.NotAfter
	}
	der, err := sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: node, SerialNumber: issuedMark + now.UTC().Format(time.RFC3339)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              expires,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{nodeURI(node)},
	}, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, err
	}
	return encodeCert(der), key, nil
}

// Identity issues a certificate for a node and makes an identity of it, all in memory: for tests and single processes.
func (a *Authority) Identity(node string) (*Identity, error) {
	cert, key, err := a.Issue(node, 0)
	if err != nil {
		return nil, err
	}
	pair, err := parsePair(cert, key)
	if err != nil {
		return nil, err
	}
	return fromMemory(node, pair, a.cert), nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate: %w", err)
	}
	return der, nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := readFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readFile(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := parsePair(cert, key)
	if err != nil {
		return pair, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

func parsePair(cert, key []byte) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return pair, err
	}
	if pair.Leaf == nil {
		return pair, errors.New("no certificate")
	}
	return pair, nil
}

// maxFile is more than any certificate or bundle needs.
const maxFile = 1 << 20

func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return os.ReadFile(name)
}

func writeNew(name string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; it is never overwritten, move it away first", name)
	}
	if err != nil {
		return fmt.Errorf("writing a certificate's file: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}
