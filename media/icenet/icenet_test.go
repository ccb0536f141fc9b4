package icenet

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/media/udp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side makes a Side on a loopback socket, with somebody who reads it.
func side(t *testing.T, cfg Config) *Side {
	t.Helper()
	conn, err := udp.Listen(udp.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := New(cfg, conn)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		r := conn.NewReader()
		for {
			batch, err := r.ReadBatch()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			for _, d := range batch {
				s.Deliver(d)
			}
		}
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		conn.Close()
		wg.Wait()
	})
	return s
}

func TestCandidates(t *testing.T) {
	t.Parallel()
	s := side(t, Config{
		IPs:     []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		TCPAddr: "127.0.0.1:0",
	})
	list := s.Candidates()
	if len(list) != 4 {
		t.Fatalf("candidates %q", list)
	}
	var last uint32 = 1<<32 - 1
	for _, want := range []string{" udp 192.0.2.1 ", " udp 2001:db8::1 ", " tcp 192.0.2.1 ", " tcp 2001:db8::1 "} {
		found := false
		for _, line := range list {
			c, err := ice.UnmarshalCandidate(line)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if strings.Contains(" "+c.NetworkType().NetworkShort()+" "+c.Address()+" ", want) {
				found = true
				if c.Priority() >= last {
					t.Errorf("%q is not below the one before", line)
				}
				last = c.Priority()
			}
		}
		if !found {
			t.Errorf("no candidate for%s", want)
		}
	}
	conn, err := udp.Listen(udp.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := New(Config{Logger: slog.New(slog.DiscardHandler), TCPAddr: "nonsense"}, conn); err == nil {
		t.Error("nonsense as a TCP address is accepted")
	}
}

// TestAgentConnects lets a controlling agent with a socket of its own find an agent of ours.
func TestAgentConnects(t *testing.T) {
	t.Parallel()
	s := side(t, Config{IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, DisconnectedAfter: 5 * time.Second, FailedAfter: 5 * time.Second})
	ours, err := s.NewAgent(Token(8), Token(24))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	peer, err := ice.NewAgentWithOptions(
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}), ice.WithIncludeLoopback(),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled), ice.WithInterfaceFilter(func(name string) bool { return name == "lo" }),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	for _, a := range []*ice.Agent{ours, peer} {
		gathered := make(chan struct{})
		if err := errors.Join(a.OnCandidate(func(c ice.Candidate) {
			if c == nil {
				close(gathered)
			}
		}), a.GatherCandidates()); err != nil {
			t.Fatal(err)
		}
		<-gathered
	}
	for _, line := range s.Candidates() {
		c, err := ice.UnmarshalCandidate(line)
		if err == nil {
			err = peer.AddRemoteCandidate(c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	frag, pwd, err := ours.GetLocalUserCredentials()
	if err != nil {
		t.Fatal(err)
	}
	peerFrag, peerPwd, err := peer.GetLocalUserCredentials()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.StartAccept(peerFrag, peerPwd); err != nil {
		t.Fatal(err)
	}
	conn, err := peer.Dial(ctx, frag, pwd)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.AwaitConnect(ctx); err != nil {
		t.Fatal(err)
	}
	if got := conn.RemoteAddr().String(); !strings.Contains(s.Candidates()[0], strings.Replace(got, ":", " ", 1)) {
		t.Fatalf("connected to %s", got)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		token := Token(24)
		if len(token) != 24 || seen[token] {
			t.Fatalf("token %q", token)
		}
		seen[token] = true
	}
}
