package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/golang-jwt/jwt/v5"
)

// maxRole bounds the names of roles in tokens, in bytes.
const maxRole = 64

// claims are what a token carries, by their names in PROTOCOL.md.
type claims struct {
	jwt.RegisteredClaims
	Type Type   `json:"typ,omitempty"`
	Room string `json:"room,omitempty"`
	Role string `json:"role,omitempty"`
	// Stream is of playback tokens.
	Stream string `json:"stream,omitempty"`
	Name   string `json:"name,omitempty"`
}

// Verifier checks tokens. It may be used from many goroutines.
type Verifier struct {
	keys Keys
}

// NewVerifier checks against the keys of a registry; revoking or adding a key there works at once.
func NewVerifier(keys Keys) *Verifier { return &Verifier{keys: keys} }

// Verify checks a token of any of the types wanted: signature, key, audience, times and claims. Errors are a
// proto.Error: token_expired for a good token past its time, else unauthenticated.
func (v *Verifier) Verify(now time.Time, token string, want ...Type) (Grant, error) {
	if len(token) > MaxToken {
		return Grant{}, refuse("the token is longer than %d bytes", MaxToken)
	}
	var c claims
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg(), jwt.SigningMethodEdDSA.Alg(), jwt.SigningMethodES256.Alg()}),
		jwt.WithAudience(Audience), jwt.WithLeeway(Leeway), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithStrictDecoding(), jwt.WithTimeFunc(func() time.Time { return now }),
	)
	t, err := parser.ParseWithClaims(token, &c, v.keyFor)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return Grant{}, proto.Errorf(proto.TokenExpired, "the token has expired")
	case err != nil:
		return Grant{}, refuse("the token is not valid here: %s", reason(err))
	}
	g := c.grant()
	g.KeyID, _ = t.Header["kid"].(string)
	for _, w := range want {
		if w == g.Type {
			return g, g.check()
		}
	}
	return Grant{}, refuse("a token of this type is of no use here")
}

func refuse(format string, args ...any) error {
	return proto.Errorf(proto.Unauthenticated, format, args...)
}

// reason is what may be said of a refused token: nothing of how it differs from a good signature.
func reason(err error) string {
	switch {
	case errors.Is(err, errKey):
		return "its key is unknown, disabled or of another algorithm"
	case errors.Is(err, jwt.ErrTokenMalformed):
		return "it is malformed"
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return "its signature or algorithm is wrong"
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return "its audience is not " + Audience
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return "it is not valid yet"
	}
	return "a claim is missing or wrong"
}

var errKey = errors.New("key unknown, disabled or of another algorithm")

// keyFor finds the key that the header names, and insists on the key's own algorithm: a public key never
// serves as an HMAC secret.
func (v *Verifier) keyFor(t *jwt.Token) (any, error) {
	id, _ := t.Header["kid"].(string)
	key, ok := v.keys.Key(id)
	if !ok || id == "" || key.GetDisabled() {
		return nil, errKey
	}
	if key.GetPublicKey() == "" {
		if t.Method != jwt.SigningMethodHS256 || key.GetSecret() == "" {
			return nil, errKey
		}
		return []byte(key.GetSecret()), nil
	}
	public, method, err := parsePublic(key.GetPublicKey())
	if err != nil || t.Method != method {
		return nil, errKey
	}
	return public, nil
}

func parsePublic(text string) (crypto.PublicKey, jwt.SigningMethod, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, nil, errors.New("the public key is not PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing the public key: %w", err)
	}
	switch k := public.(type) {
	case ed25519.PublicKey:
		return k, jwt.SigningMethodEdDSA, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return k, jwt.SigningMethodES256, nil
		}
	}
	return nil, nil, errors.New("the public key is neither Ed25519 nor ECDSA P-256")
}

// CheckKey tells what is wrong with an API key that somebody wants to store.
func CheckKey(k *pb.ApiKey) error {
	switch {
	case k.GetId() == "" || len(k.GetId()) > maxRole:
		return proto.Errorf(proto.InvalidArgument, "a key's id has 1 to %d bytes", maxRole)
	case (k.GetSecret() == "") == (k.GetPublicKey() == ""):
		return proto.Errorf(proto.InvalidArgument, "a key has either a secret or a public key")
	case k.GetPublicKey() != "":
		if _, _, err := parsePublic(k.GetPublicKey()); err != nil {
			return proto.Errorf(proto.InvalidArgument, "%s", err.Error())
		}
	}
	return nil
}

func (c *claims) grant() Grant {
	g := Grant{Type: c.Type, Room: c.Room, Role: c.Role, Stream: c.Stream, UserID: c.Subject, Name: c.Name, ID: c.ID}
	if c.IssuedAt != nil {
		g.IssuedAt = c.IssuedAt.Time
	}
	if c.ExpiresAt != nil {
		g.ExpiresAt = c.ExpiresAt.Time
	}
	return g
}

// check tells whether a grant is one that PROTOCOL.md section 1 allows.
func (g Grant) check() error {
	life := g.ExpiresAt.Sub(g.IssuedAt)
	switch {
	case g.Type != App && g.Type != Management && g.Type != Play:
		return refuse("the token's type is unknown")
	case g.IssuedAt.IsZero() || g.ExpiresAt.IsZero():
		return refuse("the token lacks iat or exp")
	case life <= 0 || life > MaxLife:
		return refuse("the token's life is not between 0 and %d days", int(MaxLife.Hours()/24))
	case g.Type != Management && !proto.ValidRoomName(g.Room):
		return refuse("the token names no room, or not a valid one")
	case g.Type == App && (g.Role == "" || len(g.Role) > maxRole || !utf8.ValidString(g.Role)):
		return refuse("the token names no role, or not a valid one")
	case len(g.Stream) > maxRole:
		return refuse("the token names no valid stream")
	case len(g.UserID) > proto.MaxUserID || len(g.Name) > proto.MaxPeerName:
		return refuse("the token's user id or name is too long")
	}
	return nil
}

// Signer is a key that can sign: a secret for HS256, or a private key in PEM (PKCS #8) for EdDSA or ES256.
type Signer struct {
	KeyID      string
	Secret     string
	PrivateKey string
}

// Mint makes a token that says what the grant says. The grant's KeyID is the signer's.
func (s Signer) Mint(g Grant) (string, error) {
	if err := g.check(); err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	method, key, err := s.key()
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	t := jwt.NewWithClaims(method, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Subject: g.UserID, ID: g.ID, Audience: jwt.ClaimStrings{Audience},
			IssuedAt: jwt.NewNumericDate(g.IssuedAt), ExpiresAt: jwt.NewNumericDate(g.ExpiresAt),
		},
		Type: g.Type, Room: g.Room, Role: g.Role, Stream: g.Stream, Name: g.Name,
	})
	t.Header["kid"] = s.KeyID
	token, err := t.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return token, nil
}

func (s Signer) key() (jwt.SigningMethod, any, error) {
	switch {
	case s.KeyID == "":
		return nil, nil, errors.New("the key has no id")
	case s.PrivateKey == "" && s.Secret == "":
		return nil, nil, errors.New("the key has neither secret nor private key")
	case s.PrivateKey == "":
		return jwt.SigningMethodHS256, []byte(s.Secret), nil
	}
	block, _ := pem.Decode([]byte(s.PrivateKey))
	if block == nil {
		return nil, nil, errors.New("the private key is not PEM")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing the private key: %w", err)
	}
	switch k := private.(type) {
	case ed25519.PrivateKey:
		return jwt.SigningMethodEdDSA, k, nil
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return jwt.SigningMethodES256, k, nil
		}
	}
	return nil, nil, errors.New("the private key is neither Ed25519 nor ECDSA P-256")
}
