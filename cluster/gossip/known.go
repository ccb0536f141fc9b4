package gossip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// keepPeer is how long a node that is gone is still called.
	keepPeer     = 72 * time.Hour
	maxKnown     = 1024
	maxPeersFile = 1 << 20
	saveEvery    = 5 * time.Second
	// joinAtOnce is how many nodes are called at the same time, and in one round.
	joinAtOnce = 8
)

// known is whom this node has met, kept in a file over restarts.
type known struct {
	file string // empty: in memory
	log  *slog.Logger

	mu    sync.Mutex // guards the fields below
	peers map[string]knownPeer
	saved string
}

type knownPeer struct {
	ID     string         `json:"id"`
	Addr   netip.AddrPort `json:"addr"`
	SeenMs int64          `json:"seen_ms"`
}

// loadKnown reads the file. One that is missing or damaged is no reason not to start: there are seeds.
func loadKnown(file string, log *slog.Logger) *known {
	k := &known{file: file, log: log, peers: map[string]knownPeer{}}
	if file == "" {
		return k
	}
	data, err := readLimited(file)
	var peers []knownPeer
	if err == nil {
		err = json.Unmarshal(data, &peers)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the nodes known before cannot be read; the seeds are asked", "err", err)
		return k
	}
	for _, p := range peers {
		if p.ID != "" && p.Addr.IsValid() && len(k.peers) < maxKnown {
			k.peers[p.ID] = p
		}
	}
	return k
}

func readLimited(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxPeersFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxPeersFile)
	}
	return os.ReadFile(file)
}

// update takes the present members, and answers the peers that are known and not alive.
func (k *known) update(members []Member, now time.Time) (missing []netip.AddrPort) {
	k.mu.Lock()
	defer k.mu.Unlock()
	alive := map[string]bool{}
	for _, m := range members {
		switch m.State {
		case Alive, Suspect:
			alive[m.ID] = true
			k.peers[m.ID] = knownPeer{ID: m.ID, Addr: m.Addr, SeenMs: now.UnixMilli()}
		case Left:
			// It said so; when it comes back it calls.
			delete(k.peers, m.ID)
		}
	}
	for id, p := range k.peers {
		switch {
		case now.Sub(time.UnixMilli(p.SeenMs)) > keepPeer:
			delete(k.peers, id)
		case !alive[id]:
			missing = append(missing, p.Addr)
		}
	}
	return missing
}

// save writes the file when whom it lists has changed.
func (k *known) save(members []Member, now time.Time) {
	k.update(members, now)
	if k.file == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	peers := make([]knownPeer, 0, len(k.peers))
	var list strings.Builder
	for _, p := range k.peers {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b knownPeer) int { return strings.Compare(a.ID, b.ID) })
	for _, p := range peers {
		// The hour is enough of the time to know when to forget.
		fmt.Fprintln(&list, p.ID, p.Addr, p.SeenMs/time.Hour.Milliseconds())
	}
	if list.String() == k.saved {
		return
	}
	if err := write(k.file, peers); err != nil {
		k.log.Warn("the known nodes cannot be kept", "err", err)
		return
	}
	k.saved = list.String()
}

// write replaces the file; a crash leaves the old one or the new one.
func write(file string, peers []knownPeer) error {
	data, err := json.MarshalIndent(peers, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// rejoin calls, again and again, seeds and known peers that are not there. memberlist itself never calls a node again
// that was dead for longer than DeadTime, so without this a partition of some length would last for ever.
func (g *Gossip) rejoin(ctx context.Context, list *memberlist.Memberlist) {
	saved := time.Now()
	for {
		now := time.Now()
		members := g.Members()
		missing := g.known.update(members, now)
		if now.Sub(saved) >= saveEvery {
			g.known.save(members, now)
			saved = now
		}
		g.call(ctx, list, members, missing)
		// A third of it at random: two halves of a cluster do not call in step.
		timer := time.NewTimer(g.cfg.Rejoin*2/3 + rand.N(g.cfg.Rejoin/3+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// call joins by some of the addresses where nobody is known to be alive, the seeds first.
func (g *Gossip) call(ctx context.Context, list *memberlist.Memberlist, members []Member, missing []netip.AddrPort) {
	present := map[netip.AddrPort]bool{g.transport.self(): true}
	for _, m := range members {
		if m.State == Alive || m.State == Suspect {
			present[m.Addr] = true
		}
	}
	targets := g.seeds(ctx)
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	targets = slices.DeleteFunc(append(targets, missing...), func(a netip.AddrPort) bool {
		found := present[a]
		present[a] = true // once only
		return found
	})
	var wg sync.WaitGroup
	for _, a := range targets[:min(len(targets), joinAtOnce)] {
		wg.Go(func() {
			if _, err := list.Join([]string{a.String()}); err != nil {
				g.log.Debug("a node does not answer", "addr", a, "err", err)
			}
		})
	}
	wg.Wait()
}

// seeds are the seeds' addresses now: names may point elsewhere since the last time.
func (g *Gossip) seeds(ctx context.Context) []netip.AddrPort {
	var found []netip.AddrPort
	for _, seed := range g.cfg.Seeds {
		if a, err := netip.ParseAddrPort(seed); err == nil {
			found = append(found, a)
			continue
		}
		host, port, err := hostPort(seed)
		if err != nil {
			continue
		}
		lookup, cancel := context.WithTimeout(ctx, streamTimeout)
		ips, err := net.DefaultResolver.LookupNetIP(lookup, "ip", host)
		cancel()
		if err != nil && ctx.Err() == nil {
			g.log.Debug("a seed's name is not known", "seed", seed, "err", err)
		}
		for _, ip := range ips {
			found = append(found, netip.AddrPortFrom(ip.Unmap(), port))
		}
	}
	return found
}
