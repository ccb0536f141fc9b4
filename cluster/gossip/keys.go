package gossip

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/memberlist"
)

// MaxKeys is how many keys a file may hold: while they are rotated there are two.
const (
	MaxKeys    = 8
	keyLen     = 32
	maxKeyFile = 64 << 10
)

// NewKey makes a key of gossip, as its file has it.
func NewKey() string {
	key := make([]byte, keyLen)
	// crypto/rand.Read never fails since Go 1.24.
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

// ParseKeys reads a key file: one key a line, in base64 of 32 bytes; empty lines and those that begin with "#" do not
// count. The first one encrypts, all decrypt.
func ParseKeys(data []byte) ([][]byte, error) {
	var keys [][]byte
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; scanner.Scan(); n++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keyLen {
			// What is there is not repeated: it may be nearly the key.
			return nil, fmt.Errorf("line %d is not a key: want %d bytes in base64, as amphi keys new makes", n, keyLen)
		}
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			keys = append(keys, key)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it; amphi keys new makes one")
	}
	if len(keys) > MaxKeys {
		return nil, fmt.Errorf("%d keys, at most %d", len(keys), MaxKeys)
	}
	return keys, nil
}

// LoadKeys is ParseKeys of a file.
func LoadKeys(file string) ([][]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("reading gossip's keys: %w", err)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("reading gossip's keys: %s is larger than %d bytes", file, maxKeyFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading gossip's keys: %w", err)
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("reading gossip's keys: %s: %w", file, err)
	}
	return keys, nil
}

// install makes ring hold exactly keys, of which the first encrypts.
func install(ring *memberlist.Keyring, keys [][]byte) error {
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil {
			return fmt.Errorf("adding a key of gossip: %w", err)
		}
	}
	for _, old := range slices.Clone(ring.GetKeys()) {
		// A key is removed in place, from a list that readers of packets may hold; UseKey gives it a fresh one. Who takes
		// that one in between misses at most this packet.
		if err := ring.UseKey(keys[0]); err != nil {
			return fmt.Errorf("changing the key of gossip: %w", err)
		}
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			if err := ring.RemoveKey(old); err != nil {
				return fmt.Errorf("removing a key of gossip: %w", err)
			}
		}
	}
	return nil
}
