package signal

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/code"
)

const (
	// tokenLife is that of a token got for a room code.
	tokenLife = 24 * time.Hour
	// maxTokenRequest bounds the body, in bytes.
	maxTokenRequest = 4096
	// maxAddresses bounds how many addresses are remembered for their rate.
	maxAddresses = 16384
)

// tokenRequest and tokenAnswer are the bodies of POST /v1/token.
type tokenRequest struct {
	Code   string `json:"code"`
	UserID string `json:"user_id"`
}

type tokenAnswer struct {
	Token     string `json:"token"`
	Room      string `json:"room"`
	Role      string `json:"role"`
	ExpiresMs int64  `json:"expires_ms"`
	// Playback is how the room's streams are played without joining it.
	Playback []playbackAnswer `json:"playback,omitempty"`
}

type playbackAnswer struct {
	Stream string `json:"stream"`
	URL    string `json:"url"`
	// ExpiresMs is 0 where the URL is open to everybody.
	ExpiresMs int64 `json:"expires_ms,omitempty"`
}

// serveToken turns a room code into an app token. Codes can be guessed, so each address may try only so often.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	allowAnyOrigin(w)
	if !s.addresses.allow(r.RemoteAddr) {
		w.Header().Set("Retry-After", "1")
		s.writeError(w, proto.Errorf(proto.RateLimited, "too many tries; wait a little"))
		return
	}
	answer, err := s.exchangeCode(r)
	if err != nil {
		s.addresses.failed(r.RemoteAddr)
		s.writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *Server) exchangeCode(r *http.Request) (*tokenAnswer, error) {
	body, err := readBody(r, maxTokenRequest)
	if err != nil {
		return nil, err
	}
	var req tokenRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, proto.Errorf(proto.InvalidMessage, "the body is not the JSON expected here")
	}
	if len(req.UserID) > proto.MaxUserID {
		return nil, proto.Errorf(proto.InvalidArgument, "user_id has more than %d bytes", proto.MaxUserID)
	}
	return s.redeem(r.Context(), req.Code, req.UserID)
}

// redeem makes an app token of a room code.
func (s *Server) redeem(ctx context.Context, typed, userID string) (*tokenAnswer, error) {
	parsed, ok := code.Parse(typed)
	known := s.records.code(parsed)
	if ok && known == nil && s.records.catchUp(ctx) {
		known = s.records.code(parsed) // made at another node just now
	}
	if !ok || known == nil {
		return nil, proto.Errorf(proto.CodeUnknown, "there is no such room code")
	}
	room, err := s.records.room(known.GetRoom())
	switch {
	case known.GetDisabled():
		return nil, proto.Errorf(proto.CodeDisabled, "this room code is disabled")
	case err != nil:
		return nil, proto.Errorf(proto.CodeUnknown, "the code's room is gone")
	case room.GetDisabled():
		return nil, proto.Errorf(proto.RoomDisabled, "the room is disabled")
	}
	signer, err := s.records.signer()
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	grant := auth.Grant{Type: auth.App, Room: room.GetName(), Role: known.GetRole(), UserID: userID,
		IssuedAt: now, ExpiresAt: now.Add(tokenLife)}
	token, err := signer.Mint(grant)
	if err != nil {
		return nil, err
	}
	answer := &tokenAnswer{Token: token, Room: grant.Room, Role: grant.Role, ExpiresMs: grant.ExpiresAt.UnixMilli()}
	if t, err := s.records.template(room.GetTemplate()); err == nil {
		for _, p := range s.playbacks(room.GetName(), t, userID) {
			answer.Playback = append(answer.Playback, playbackAnswer{p.GetStream(), p.GetUrl(), p.GetExpiresMs()})
		}
	}
	return answer, nil
}

// signer is a key with which this server may sign: one with a secret, the first by id.
func (r *records) signer() (auth.Signer, error) {
	var best *amphiv1.ApiKey
	r.registry.Read(func(reg *amphiv1.Registry) {
		for _, k := range reg.GetKeys() {
			if k.GetSecret() != "" && !k.GetDisabled() && (best == nil || k.GetId() < best.GetId()) {
				best = k
			}
		}
	})
	if best == nil {
		return auth.Signer{}, proto.Errorf(proto.Unavailable, "the server has no key to sign with")
	}
	return auth.Signer{KeyID: best.GetId(), Secret: best.GetSecret()}, nil
}

// readBody reads a request's body of at most limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, proto.Errorf(proto.InvalidMessage, "the body could not be read")
	case int64(len(body)) > limit:
		return nil, proto.Errorf(proto.MessageTooLarge, "the body has more than %d bytes", limit)
	}
	return body, nil
}

// failureCost is how many good tries a bad one counts as: many people may share an address, but they know their codes.
const failureCost = 10

// addresses is a rate per client address. It is bounded: when too many are remembered, those at rest are
// forgotten, and if none is, all are.
type addresses struct {
	perMinute int // bad tries

	mu    sync.Mutex // guards the field below
	known map[string]*rate.Limiter
}

func newAddresses(perMinute int) *addresses {
	return &addresses{perMinute: perMinute, known: map[string]*rate.Limiter{}}
}

// allow tells whether the address may try, and counts the try.
func (a *addresses) allow(remote string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.limiterLocked(remote).Allow()
}

// failed counts the last try as a bad one.
func (a *addresses) failed(remote string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.limiterLocked(remote)
	l.AllowN(time.Now(), int(min(failureCost-1, max(l.Tokens(), 0))))
}

func (a *addresses) limiterLocked(remote string) *rate.Limiter {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	// An IPv6 client has a whole network of addresses.
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = ip.Mask(net.CIDRMask(64, 128)).String()
	}
	l := a.known[host]
	if l == nil {
		if len(a.known) >= maxAddresses {
			a.forgetLocked()
		}
		l = rate.NewLimiter(rate.Limit(failureCost*float64(a.perMinute)/60), max(failureCost*a.perMinute/2, failureCost))
		a.known[host] = l
	}
	return l
}

func (a *addresses) forgetLocked() {
	for host, l := range a.known {
		if l.Tokens() >= float64(l.Burst()) {
			delete(a.known, host)
		}
	}
	if len(a.known) >= maxAddresses {
		clear(a.known)
	}
}
