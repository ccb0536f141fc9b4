package push

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const (
	schemeRTMP  = "rtmp"
	schemeRTMPS = "rtmps"
	schemeSRT   = "srt"
)

// Limits of a URL.
const (
	maxURL      = 2048
	maxStreamID = 512 // SRT's
	maxReason   = 200
	minSecret   = 4 // bytes of a part of a query; shorter ones are no secrets, and would be found everywhere
)

// target is a URL taken apart.
type target struct {
	scheme   string
	address  string // host:port
	host     string
	app, key string // RTMP
	srt      srtOptions
	redacted string
	secrets  []string // never to be told
}

type srtOptions struct {
	streamID, passphrase string
	keyLength            int // bytes
	latency              time.Duration
}

// CheckURL says what is wrong with the URL of a target: ErrBadURL or ErrDenied, wrapped, without its secrets. Good ones are
//
//	rtmp://host[:1935]/app/key    and rtmps:// (port 443); a query belongs to the key
//	srt://host:port[?streamid=…&passphrase=…&pbkeylen=16&latency=120]    latency in ms; the target listens
//
// of at most 2,048 bytes. Names are looked up, and their addresses judged, when the push connects.
func CheckURL(raw string) error {
	_, err := parse(raw)
	return err
}

// Redact is a URL without what only its owner may know: the stream key, the query, user and password. It is safe
// for any input.
func Redact(raw string) string {
	if t, err := parse(raw); err == nil {
		return t.redacted
	}
	scheme, _, ok := strings.Cut(raw, "://")
	if !ok || (scheme != schemeRTMP && scheme != schemeRTMPS && scheme != schemeSRT) {
		return "…"
	}
	return scheme + "://…"
}

func bad(format string, args ...any) (target, error) {
	return target{}, fmt.Errorf("%w: %s", ErrBadURL, fmt.Sprintf(format, args...))
}

func parse(raw string) (target, error) {
	if len(raw) > maxURL {
		return bad("longer than %d bytes", maxURL)
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return unicode.IsControl(r) || r == ' ' || r == unicode.ReplacementChar }) {
		return bad("spaces or control characters")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return bad("not a URL") // the error would tell the secrets
	}
	t := target{scheme: u.Scheme, host: u.Hostname()}
	port := map[string]string{schemeRTMP: "1935", schemeRTMPS: "443", schemeSRT: ""}
	byDefault, known := port[u.Scheme]
	switch {
	case !known:
		return bad("scheme is not rtmp, rtmps or srt")
	case t.host == "" || len(t.host) > 253:
		return bad("no host")
	case u.User != nil:
		return bad("user and password: targets know their streams by key")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return bad("a # in it")
	}
	p := u.Port()
	if p == "" {
		p = byDefault
	}
	if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
		return bad("port")
	}
	t.address = net.JoinHostPort(t.host, p)
	if a, err := netip.ParseAddr(t.host); err == nil {
		if err := (guard{}).check(a); err != nil {
			return target{}, err
		}
	}
	if u.Scheme == schemeSRT {
		return parseSRT(t, u)
	}
	return parseRTMP(t, u)
}

func parseRTMP(t target, u *url.URL) (target, error) {
	path := strings.Trim(u.EscapedPath(), "/")
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return bad("path is not /app/key")
	}
	t.app, t.key = path[:i], path[i+1:]
	t.secrets = append(t.secrets, t.key)
	if u.RawQuery != "" {
		t.secrets = append(t.secrets, u.RawQuery)
		t.key += "?" + u.RawQuery
	}
	// Servers repeat what they refuse, or parts of it, in their own way of writing.
	parts := slices.Clone(t.secrets)
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		parts = append(parts, pair[strings.IndexByte(pair, '=')+1:])
	}
	for _, part := range parts {
		plain, err := url.QueryUnescape(part)
		if err != nil {
			plain = part
		}
		for _, s := range []string{part, plain} {
			if len(s) >= minSecret && !slices.Contains(t.secrets, s) {
				t.secrets = append(t.secrets, s)
			}
		}
	}
	t.redacted = t.scheme + "://" + u.Host + "/" + t.app + "/…"
	return t, nil
}

func parseSRT(t target, u *url.URL) (target, error) {
	if strings.Trim(u.Path, "/") != "" {
		return bad("srt URLs have no path")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("query")
	}
	t.srt = srtOptions{keyLength: 16, latency: 120 * time.Millisecond}
	for name, values := range query {
		if len(values) != 1 {
			return bad("parameter twice")
		}
		v := values[0]
		n, notNumber := strconv.Atoi(v)
		ok := true
		switch name {
		case "streamid":
			t.srt.streamID, ok = v, len(v) <= maxStreamID
			t.secrets = append(t.secrets, v, url.QueryEscape(v))
		case "passphrase":
			t.srt.passphrase, ok = v, len(v) >= 10 && len(v) <= 79
			t.secrets = append(t.secrets, v, url.QueryEscape(v))
		case "pbkeylen":
			t.srt.keyLength, ok = n, n == 16 || n == 24 || n == 32
		case "latency":
			t.srt.latency, ok = time.Duration(n)*time.Millisecond, notNumber == nil && n >= 20 && n <= 8000
		case "mode":
			ok = v == "caller"
		case "transtype":
			ok = v == "live"
		default:
			return bad("only streamid, passphrase, pbkeylen, latency, mode=caller and transtype=live may be given")
		}
		if !ok {
			return bad("value of %s", name)
		}
	}
	t.redacted = t.scheme + "://" + u.Host
	if u.RawQuery != "" {
		t.redacted += "?…"
	}
	return t, nil
}

// clean is what may be told of an error: without secrets, and short.
func (t *target) clean(err error) string {
	s := err.Error()
	for _, secret := range t.secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "…")
		}
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > maxReason {
		s = string(r[:maxReason]) + "…"
	}
	return s
}

// guard says which addresses may be pushed to.
type guard struct{ denyPrivate bool }

func (g guard) check(a netip.Addr) error {
	a = a.Unmap()
	denied := !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) ||
		a == netip.MustParseAddr("fd00:ec2::254") // link-local's equivalent of one cloud
	private := a.IsPrivate() || a.IsLoopback() || within(a, "100.64.0.0/10", "0.0.0.0/8", "fec0::/10", "64:ff9b:1::/48")
	if denied || g.denyPrivate && private {
		return ErrDenied
	}
	// Gateways make these IPv4 (RFC 6052, 3056).
	b := a.As16()
	switch {
	case within(a, "64:ff9b::/96"):
		return g.check(netip.AddrFrom4([4]byte(b[12:])))
	case within(a, "2002::/16"):
		return g.check(netip.AddrFrom4([4]byte(b[2:])))
	}
	return nil
}

func within(a netip.Addr, networks ...string) bool {
	return slices.ContainsFunc(networks, func(n string) bool { return netip.MustParsePrefix(n).Contains(a) })
}

// control checks the address of a socket that is about to connect: what a name means is known only then.
func (g guard) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return ErrDenied
	}
	return g.check(a.Addr())
}
