package turn

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
)

// maxUsername bounds what a username may be long: a time and a peer's id.
const maxUsername = 128

// Credentials are what user may allocate with from now on, for Config.CredentialLife: the username says until when
// and who, the password proves it (draft-uberti-behave-turn-rest). Nothing is remembered.
func (s *Server) Credentials(user string, now time.Time) (username, password string) {
	username = strconv.FormatInt(now.Add(s.cfg.CredentialLife).Unix(), 10) + ":" + user
	return username, s.password(username)
}

func (s *Server) password(username string) string {
	mac := hmac.New(sha256.New, s.secret[:])
	mac.Write([]byte(username))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// authenticate implements turn.AuthHandler. Expired credentials allow no new allocation, but one that is in use goes
// on: a call may be longer than they last.
func (s *Server) authenticate(r *turn.RequestAttributes) (user string, key []byte, ok bool) {
	until, user, found := strings.Cut(r.Username, ":")
	expiry, err := strconv.ParseInt(until, 10, 64)
	if !found || err != nil || user == "" || len(r.Username) > maxUsername || r.Realm != Realm {
		s.stats.refuse(ReasonCredentials)
		return "", nil, false
	}
	if r.Method == stun.MethodAllocate && time.Now().Unix() > expiry {
		s.stats.refuse(ReasonExpired)
		return "", nil, false
	}
	return user, turn.GenerateAuthKey(r.Username, r.Realm, s.password(r.Username)), true
}

// authenticated counts wrong passwords.
func (s *Server) authenticated(_, _ net.Addr, _, _, _, _ string, good bool) {
	if !good {
		s.stats.refuse(ReasonCredentials)
	}
}
