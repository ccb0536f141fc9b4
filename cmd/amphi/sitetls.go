package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// siteCheck is how often a site's certificate is looked at on disk, at most.
const siteCheck = 10 * time.Second

// siteTLS serves HTTPS with the certificate in two files. Files that change are taken at a later handshake, without a
// restart; damaged ones leave the last good certificate in use.
func siteTLS(certFile, keyFile string, logger *slog.Logger) (*tls.Config, error) {
	s := &site{cert: certFile, key: keyFile, log: logger}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate for HTTPS: %w", err)
	}
	s.pair, s.stamp, s.checked = &pair, s.stampOf(), time.Now()
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.current(), nil
		},
	}, nil
}

type site struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex // guards the fields below
	pair    *tls.Certificate
	stamp   string
	checked time.Time
}

func (s *site) current() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.checked) < siteCheck {
		return s.pair
	}
	s.checked = time.Now()
	stamp := s.stampOf()
	if stamp == s.stamp {
		return s.pair
	}
	s.stamp = stamp
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		s.log.Warn("the certificate for HTTPS changed on disk and cannot be used; the last one stays", "err", err)
		return s.pair
	}
	s.log.Info("the certificate for HTTPS was read again", "expires", pair.Leaf.NotAfter)
	s.pair = &pair
	return s.pair
}

func (s *site) stampOf() string {
	stamp := ""
	for _, name := range []string{s.cert, s.key} {
		if info, err := os.Stat(name); err == nil {
			stamp += fmt.Sprintln(info.Size(), info.ModTime().UnixNano())
		}
	}
	return stamp
}
