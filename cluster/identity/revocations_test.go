package identity

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// heeding is an identity to which these certificates count no more.
func heeding(t *testing.T, a *Authority, node string, before map[string]time.Time) *Identity {
	t.Helper()
	r, err := OpenRevocations("")
	if err != nil {
		t.Fatal(err)
	}
	r.Add(before)
	i := newIdentity(t, a, node)
	i.Heed(r)
	return i
}

func TestWhoWasRevokedIsRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, 0)
	stolen := newIdentity(t, a, "fra-1")
	second := issued(stolen.current.pair.Leaf)
	if age := time.Since(second); age < 0 || age > time.Minute {
		t.Fatalf("a certificate of now was issued %v ago", age)
	}
	after := heeding(t, a, "ams-1", map[string]time.Time{"fra-1": second.Add(time.Second)})
	for name, c := range map[string]struct{ server, client *tls.Config }{
		"as a client": {after.Server("x/1"), looseClient(stolen)},
		"as a server": {stolen.Server("x/1"), after.Client("fra-1", "x/1")},
	} {
		if _, _, serverErr, clientErr := meet(t, c.server, c.client); !errors.Is(serverErr, ErrRevoked) && !errors.Is(clientErr, ErrRevoked) {
			t.Errorf("%s: %v, %v", name, serverErr, clientErr)
		}
	}
	// Other nodes, and certificates that were issued no earlier, count.
	for name, i := range map[string]*Identity{
		"another node":      heeding(t, a, "ams-1", map[string]time.Time{"lon-1": second.Add(time.Hour)}),
		"a new certificate": heeding(t, a, "ams-1", map[string]time.Time{"fra-1": second}),
	} {
		if _, _, serverErr, clientErr := meet(t, i.Server("x/1"), stolen.Client("ams-1", "x/1")); serverErr != nil || clientErr != nil {
			t.Errorf("%s: %v, %v", name, serverErr, clientErr)
		}
	}
	// One of another tool says only from when it is valid, which is earlier.
	foreign := *stolen.current.pair.Leaf
	foreign.Subject.SerialNumber = ""
	if !issued(&foreign).Equal(foreign.NotBefore) {
		t.Errorf("issued %v, valid from %v", issued(&foreign), foreign.NotBefore)
	}
}

func TestRevocationsAreKept(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "revoked.json")
	open := func() *Revocations {
		r, err := OpenRevocations(file)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	at := time.Now().Truncate(time.Second)
	r := open()
	if got := r.Add(map[string]time.Time{"a": at}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("added %v", got)
	}
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	r = open()
	// An older copy of the registry takes nothing back.
	if got := r.Add(map[string]time.Time{"a": at.Add(-time.Hour)}); len(got) != 0 || !r.Before("a").Equal(at) || !r.Before("b").IsZero() {
		t.Errorf("%v; a is revoked before %v, want %v", got, r.Before("a"), at)
	}
	if err := os.WriteFile(file, []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRevocations(file); err == nil {
		t.Error("a damaged file was taken for an empty one")
	}
}
