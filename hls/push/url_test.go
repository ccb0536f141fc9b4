package push

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url, redacted string
		err           error
	}{
		{"rtmp://a.rtmp.example/live2/SECRET", "rtmp://a.rtmp.example/live2/…", nil},
		{"rtmp://192.168.1.9:1936/a/b/SECRET?SECRET=SECRET", "rtmp://192.168.1.9:1936/a/b/…", nil},
		{"rtmps://[2001:db8::1]/rtmp/SECRET", "rtmps://[2001:db8::1]/rtmp/…", nil},
		{"srt://10.0.0.1:9000", "srt://10.0.0.1:9000", nil},
		{"srt://host:9000?streamid=SECRET&passphrase=SECRETSECRET&latency=200&pbkeylen=32&mode=caller", "srt://host:9000?…", nil},
		{"rtmp://host/SECRET", "rtmp://…", ErrBadURL},
		{"rtmp://SECRET:SECRET@host/live/SECRET", "rtmp://…", ErrBadURL},
		{"rtmp:///live/SECRET", "rtmp://…", ErrBadURL},
		{"rtmp://host:0/live/SECRET", "rtmp://…", ErrBadURL},
		{"rtmp://host/live/SECRET#SECRET", "rtmp://…", ErrBadURL},
		{"rtmp://host/live/SEC RET", "rtmp://…", ErrBadURL},
		{"rtmp://host/live/SECRET\n", "rtmp://…", ErrBadURL},
		{"http://host/live/SECRET", "…", ErrBadURL},
		{"SECRET", "…", ErrBadURL},
		{"srt://host?streamid=SECRET", "srt://…", ErrBadURL},
		{"srt://host:1?passphrase=SECRET", "srt://…", ErrBadURL},
		{"srt://host:1?mode=listener", "srt://…", ErrBadURL},
		{"srt://host:1?SECRET=1", "srt://…", ErrBadURL},
		{"srt://host:1?latency=9000", "srt://…", ErrBadURL},
		{"rtmp://host/live/" + strings.Repeat("x", maxURL), "rtmp://…", ErrBadURL},
		{"rtmp://169.254.169.254/live/SECRET", "rtmp://…", ErrDenied},
		{"rtmp://[::ffff:169.254.169.254]/live/SECRET", "rtmp://…", ErrDenied},
		{"srt://[fe80::1]:9000", "srt://…", ErrDenied},
		{"srt://0.0.0.0:9000", "srt://…", ErrDenied},
		{"srt://239.1.1.1:9000", "srt://…", ErrDenied},
	} {
		err := CheckURL(c.url)
		if !errors.Is(err, c.err) || err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", c.url, err)
		}
		if got := Redact(c.url); got != c.redacted {
			t.Errorf("%s: redacted to %s", c.url, got)
		}
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	for address, want := range map[string][2]bool{ // allowed; allowed though private is denied
		"1.2.3.4": {true, true}, "10.1.2.3": {true, false}, "127.0.0.1": {true, false}, "::1": {true, false},
		"100.64.1.1": {true, false}, "fd12::1": {true, false}, "169.254.169.254": {false, false}, "fd00:ec2::254": {false, false},
		"2001:db8::1": {true, true}, "::": {false, false}, "255.255.255.255": {false, false},
		"64:ff9b::169.254.169.254": {false, false}, "64:ff9b::10.0.0.1": {true, false}, "64:ff9b::1.2.3.4": {true, true},
		"2002:a9fe:a9fe::": {false, false}, "2002:7f00:1::": {true, false}, "0.1.2.3": {true, false},
	} {
		a := netip.MustParseAddr(address)
		if got := (guard{}).check(a) == nil; got != want[0] {
			t.Errorf("%s: allowed %v", address, got)
		}
		if got := (guard{denyPrivate: true}).check(a) == nil; got != want[1] {
			t.Errorf("%s without private ones: allowed %v", address, got)
		}
	}
}

func TestDeniedAddressIsNotDialled(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"rtmp://localhost:1/live/key", "srt://localhost:1"} {
		r := run(t, Config{URL: url, DenyPrivate: true, GiveUp: time.Millisecond})
		p := newProgram(t, r.Pusher)
		p.playing(t)
		if err := r.ends(t); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestReasonsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	target, err := parse("srt://host:1?streamid=a%2Fb+c&passphrase=0123456789")
	if err != nil {
		t.Fatal(err)
	}
	got := target.clean(errors.New("no a/b c nor a%2Fb+c\n nor 0123456789" + strings.Repeat("ü", 300)))
	if strings.ContainsAny(got, "abc\n9") || len([]rune(got)) > maxReason+1 {
		t.Errorf("%q", got)
	}
	if target, err = parse("rtmp://host/live/k%40y1?sign=SECRET%2B&x=1"); err != nil {
		t.Fatal(err)
	}
	got = target.clean(errors.New("sign SECRET+ of stream k@y1 is 1 hour old (SECRET%2B)"))
	if got != "sign … of stream … is 1 hour old (…)" {
		t.Errorf("%q", got)
	}
}

func FuzzURL(f *testing.F) {
	f.Add("rtmp://host/live/key?a=b")
	f.Add("rtmps://[::1]:443/a/b")
	f.Add("srt://host:9000?streamid=x&passphrase=0123456789&latency=100")
	f.Fuzz(func(t *testing.T, raw string) {
		target, err := parse(raw)
		redacted := Redact(raw)
		if err != nil {
			return
		}
		if target.address == "" || len(target.host) > 253 {
			t.Errorf("%q: %+v", raw, target)
		}
		if target.key != "" && len(target.key) > 8 && strings.Contains(redacted, target.key) && !strings.Contains(target.app+target.host, target.key) {
			t.Errorf("%q: key in %q", raw, redacted)
		}
	})
}

func FuzzHasIDR(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x65, 1})
	f.Fuzz(func(_ *testing.T, b []byte) { hasIDR(b) })
}
