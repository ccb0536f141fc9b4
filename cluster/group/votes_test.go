package group

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func reopened(t *testing.T, name string) *votes {
	t.Helper()
	v, err := openVotes(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func TestVotesAreKept(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "votes")
	v := reopened(t, name)
	if n, err := v.GetUint64([]byte(keyTerm)); n != 0 || err != nil {
		t.Errorf("at first: %d, %v", n, err)
	}
	for i := range uint64(5) {
		for _, err := range []error{
			v.SetUint64([]byte(keyTerm), i+1), v.SetUint64([]byte(keyVoteTerm), i), v.Set([]byte(keyCandidate), []byte{'a' + byte(i)}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		v = reopened(t, name)
		term, _ := v.GetUint64([]byte(keyTerm))
		vote, _ := v.GetUint64([]byte(keyVoteTerm))
		candidate, _ := v.Get([]byte(keyCandidate))
		if term != i+1 || vote != i || !bytes.Equal(candidate, []byte{'a' + byte(i)}) {
			t.Errorf("after %d: term %d, vote %d for %q", i, term, vote, candidate)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Size() != 2*slotSize {
		t.Errorf("the file has grown: %v, %v", info.Size(), err)
	}
	if v.Set([]byte("x"), nil) == nil || v.SetUint64([]byte("x"), 1) == nil || v.Set([]byte(keyCandidate), make([]byte, slotSize)) == nil {
		t.Error("took what it has no place for")
	}
}

// TestTornVotes damages the slot that was written last, byte by byte: the one before counts.
func TestTornVotes(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "votes")
	v := reopened(t, name)
	for _, term := range []uint64{7, 8} {
		if err := v.SetUint64([]byte(keyTerm), term); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	newest := int(v.number%2) * slotSize
	for i := range slotHeader + 10 {
		torn := bytes.Clone(whole)
		torn[newest+i] ^= 0xff
		if err := os.WriteFile(name, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if term, _ := reopened(t, name).GetUint64([]byte(keyTerm)); term != 7 {
			t.Fatalf("byte %d: term %d", i, term)
		}
	}
	for _, size := range []int{1, slotSize, 2 * slotSize} {
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openVotes(name); err == nil {
			t.Errorf("opened %d zero bytes", size)
		}
	}
}

func FuzzVotes(f *testing.F) {
	f.Add([]byte("x"))
	f.Add(make([]byte, 2*slotSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "votes")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := openVotes(name)
		if err != nil {
			return
		}
		if err := v.SetUint64([]byte(keyTerm), 9); err != nil {
			t.Fatal(err)
		}
		if term, err := reopened(t, name).GetUint64([]byte(keyTerm)); term != 9 || err != nil {
			t.Fatalf("term %d, %v", term, err)
		}
		_ = v.Close()
	})
}
