package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster/identity"
)

func TestTheSitesCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	authority, err := identity.New("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "site.pem"), filepath.Join(dir, "site.key")
	put := func(file string, data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	issue := func(name string) {
		t.Helper()
		c, k, err := authority.Issue(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		put(cert, c)
		put(key, k)
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := siteTLS(cert, key, log); err == nil {
		t.Error("missing files were taken")
	}
	issue("one")
	if _, err := siteTLS(cert, key, log); err != nil {
		t.Fatal(err)
	}
	s := &site{cert: cert, key: key, log: log}
	name := func() string {
		s.checked = time.Time{} // it is looked at every 10 s
		return s.current().Leaf.Subject.CommonName
	}
	if got := name(); got != "one" {
		t.Errorf("the certificate of %q", got)
	}
	issue("two")
	future := time.Now().Add(time.Hour)
	if err := os.Chtimes(cert, future, future); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "two" {
		t.Errorf("after a change the certificate of %q", got)
	}
	put(cert, []byte("damaged"))
	if got := name(); got != "two" {
		t.Errorf("after damage the certificate of %q", got)
	}
}
