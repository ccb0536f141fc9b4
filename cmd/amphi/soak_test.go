package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/auth"
)

// footprint is what this process holds when nobody is there.
type footprint struct {
	goroutines, descriptors int
	// between are the descriptors of connections between nodes, both ends, which are not among descriptors. Raft keeps up to three of each
	// node to each other one for as long as they are useful, and as many are opened as it ever needed at once: that is seldom on a machine
	// that is not busy, so they come one by one.
	between int
	heap    uint64 // bytes that are alive
}

// mostBetween bounds the descriptors between one node and another: pooled by Raft 3, spare 2, under way 2, and the link.
const mostBetween = 2 * (3 + 2 + 2 + 1)

// measureFootprint waits a moment for what is being closed: until there is no more than before, or the moment is over.
func (c *clustered) measureFootprint(before footprint) footprint {
	http.DefaultClient.CloseIdleConnections()
	tick, over := time.NewTicker(100*time.Millisecond), time.After(2*time.Second)
	defer tick.Stop()
	for waiting := true; waiting; {
		now := footprint{goroutines: runtime.NumGoroutine()}
		for kind, n := range c.descriptors() {
			if kind == betweenNodes {
				now.between = n
			} else {
				now.descriptors += n
			}
		}
		now.goroutines -= now.between / 2 // each has one where it was accepted
		waiting = now.goroutines > before.goroutines || now.descriptors > before.descriptors
		select {
		case <-over:
			waiting = false
		case <-tick.C:
		}
		if !waiting {
			before = now
		}
	}
	runtime.GC()
	runtime.GC() // pools give up what they hold in the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before.heap = m.HeapAlloc
	return before
}

// growth is the slope of a straight line through the values (least squares), times their number: how much more there is
// at the end than in the beginning.
func growth(values []float64) float64 {
	n := float64(len(values))
	var x, y, xx, xy float64
	for i, v := range values {
		x, y, xx, xy = x+float64(i), y+v, xx+float64(i*i), xy+float64(i)*v
	}
	return n * (n*xy - x*y) / (n*xx - x*x)
}

// TestChurn has rooms come and go on a cluster of three nodes as long as AMPHI_SOAK says (such as 4h): publishers, viewers
// and players at any nodes, a stream with a recording, roles that change, clients that fall silent. Between two rooms nothing
// may be left of the first, and after the first third of the time goroutines, descriptors and memory may not grow.
func TestChurn(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("AMPHI_SOAK"))
	if err != nil {
		t.Skip("set AMPHI_SOAK to a duration")
	}
	runtime.MemProfileRate = 32 << 10
	fake := fakeCompositor(t)
	c := startClusterWith(t, 3, func(cfg *Config) { cfg.CompositorPath, cfg.Storage.Dir, cfg.Logger = fake, t.TempDir(), nil })
	var all []footprint
	var last footprint
	var early map[string]int64
	for begin, round := time.Now(), 1; time.Since(begin) < d; round++ {
		c.churn(round)
		last = c.measureFootprint(last)
		all = append(all, last)
		if most := mostBetween * len(c.nodes) * (len(c.nodes) - 1); last.between > most {
			t.Fatalf("after %d rooms, %d descriptors between nodes", round, last.between)
		}
		for _, n := range c.nodes {
			// Some of the last rooms' copies may still be there: they are looked at every 10 s, and kept for 10 s more.
			if copies := n.signal.Stats().Standby.Rooms; copies > 20 {
				t.Fatalf("after %d rooms, all deleted, node %s has copies of %d", round, n.cfg.ID, copies)
			}
		}
		if early == nil && time.Since(begin) > d/3 {
			early = heapBySource()
		}
		if round%20 == 1 {
			t.Logf("after %d rooms: %+v", round, all[len(all)-1])
		}
	}
	late := all[len(all)/3:]
	if len(late) < 10 {
		t.Fatalf("%d rooms are too few to tell", len(all))
	}
	for what, of := range map[string]struct {
		value func(footprint) float64
		most  float64
	}{
		"goroutines":    {func(f footprint) float64 { return float64(f.goroutines) }, 5},
		"descriptors":   {func(f footprint) float64 { return float64(f.descriptors) }, 5},
		"MiB of memory": {func(f footprint) float64 { return float64(f.heap) / (1 << 20) }, max(2, 0.1*float64(late[0].heap)/(1<<20))},
	} {
		values := make([]float64, 0, len(late))
		for _, f := range late {
			values = append(values, of.value(f))
		}
		t.Logf("%s: %.1f more over %d rooms, %.1f at the end", what, growth(values), len(values), values[len(values)-1])
		if growth(values) > of.most {
			t.Errorf("%s grow: by %.1f over %d rooms", what, growth(values), len(values))
		}
	}
	grown := heapBySource()
	for source, n := range early {
		grown[source] -= n
	}
	sources := slices.SortedFunc(maps.Keys(grown), func(a, b string) int { return cmp.Compare(grown[b], grown[a]) })
	for _, source := range sources[:min(10, len(sources))] {
		t.Logf("%6.2f MiB more from %s", float64(grown[source])/(1<<20), source)
	}
	if t.Failed() {
		var stacks strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Logf("descriptors: %v\n%s", c.descriptors(), stacks.String())
	}
}

// heapBySource is what is alive of the heap, by the innermost function of this project that it was allocated for.
func heapBySource() map[string]int64 {
	records := make([]runtime.MemProfileRecord, 1)
	for {
		n, ok := runtime.MemProfile(records, false)
		if ok {
			records = records[:n]
			break
		}
		records = make([]runtime.MemProfileRecord, n+n/4)
	}
	live := map[string]int64{}
	for i := range records {
		source := "the libraries"
		for frames, more := runtime.CallersFrames(records[i].Stack()), true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if name, ours := strings.CutPrefix(f.Function, "github.com/amphi-sfu/amphi/"); ours && !strings.HasPrefix(name, "proto/") {
				source = name
				break
			}
		}
		live[source] += records[i].InUseBytes()
	}
	return live
}

// betweenNodes is the kind of descriptors of connections between nodes.
const betweenNodes = "between nodes"

// descriptors counts this process's open files by what they are, sockets by their kind, ends and state.
func (c *clustered) descriptors() map[string]int {
	links := map[string]bool{} // the nodes' ports, as the kernel writes them
	for _, n := range c.nodes {
		links[fmt.Sprintf("%04X", n.mesh.link.Addr().(*net.TCPAddr).Port)] = true
	}
	sockets := map[string]string{} // by inode
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		lines, _ := os.ReadFile("/proc/self/net/" + table)
		for line := range strings.Lines(string(lines)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[0] == "sl" {
				continue
			}
			kind := fmt.Sprintf("%s %s > %s state %s", table, f[1], f[2], f[3])
			const established = "01"
			if f[3] == established && (links[f[1][len(f[1])-4:]] || links[f[2][len(f[2])-4:]]) {
				kind = betweenNodes
			}
			sockets["socket:["+f[9]+"]"] = kind
		}
	}
	kinds := map[string]int{}
	open, _ := os.ReadDir("/proc/self/fd")
	for _, f := range open {
		to, _ := os.Readlink("/proc/self/fd/" + f.Name())
		kind, known := sockets[to]
		if !known {
			kind, _, _ = strings.Cut(to, ":[")
		}
		kinds[kind]++
	}
	return kinds
}

// churn is one room's life, from its record's creation to its deletion; then nothing is left of it at any node.
func (c *clustered) churn(round int) {
	t := c.t
	ctx, cancel := context.WithTimeout(t.Context(), 4*clusterPatience)
	defer cancel()
	at := func(i int) *clusterNode { return c.nodes[(round+i)%len(c.nodes)] }
	name, url := fmt.Sprint("soak-", round), at(0).URL()
	rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, url, manager(t))
	streams := amphiv1connect.NewStreamServiceClient(http.DefaultClient, url, manager(t))
	records := amphiv1connect.NewRecordingServiceClient(http.DefaultClient, url, manager(t))
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("room %s: %s: %v", name, what, err)
		}
	}
	_, err := rooms.CreateRoom(ctx, connect.NewRequest(&amphiv1.CreateRoomRequest{Name: name, Template: "live-event"}))
	must("creating it", err)
	token := func(role, user string) (string, error) {
		now := time.Now()
		return auth.Signer{KeyID: devKey, Secret: devSecret}.Mint(auth.Grant{Type: auth.App, Room: name, Role: role, UserID: user, IssuedAt: now, ExpiresAt: now.Add(time.Hour)})
	}
	var crowd sync.WaitGroup
	for i := range 2 {
		crowd.Go(func() {
			cfg := load.Config{URL: at(i).URL(), Room: name, Publishers: 1, Subscribers: 3, ChatRate: 5, Settle: time.Second, Duration: 3 * time.Second,
				Token: token, Roles: load.Roles{Publish: "speaker", Subscribe: "audience", Watch: "viewer"}}
			if i == 0 {
				cfg.Players, cfg.StartStream = 2, func(ctx context.Context) (string, error) {
					s, err := streams.StartStream(ctx, connect.NewRequest(&amphiv1.StartStreamRequest{Room: name}))
					if err != nil {
						return "", err
					}
					_, err = records.StartRecording(ctx, connect.NewRequest(&amphiv1.StartRecordingRequest{Room: name, Tracks: round%5 == 0}))
					return s.Msg.GetUrl(), err
				}
			}
			if _, err := load.Run(ctx, cfg); err != nil {
				t.Errorf("room %s: the load at node %s: %v", name, at(i).cfg.ID, err)
			}
		})
	}
	tok, err := token("viewer", "guest")
	must("a token", err)
	guest, err := client.Dial(ctx, client.Config{URL: at(2).URL(), Token: tok, Join: &amphiv1.Join{Name: "Guest"}, OnMessage: (&client.Inbox{}).Add})
	must("joining it", err)
	peers := amphiv1connect.NewPeerServiceClient(http.DefaultClient, url, manager(t))
	for _, role := range []string{"speaker", "viewer"} {
		_, err = peers.ChangeRole(ctx, connect.NewRequest(&amphiv1.ChangeRoleRequest{Room: name, Change: &amphiv1.ChangeRole{Peers: []string{guest.PeerID()}, Role: role, Force: true}}))
		must("a role", err)
	}
	crowd.Wait()
	if round%2 == 0 {
		_ = guest.Close() // without a goodbye
	} else {
		defer func() { _ = guest.Close() }()
	}
	_, err = rooms.EndRoom(ctx, connect.NewRequest(&amphiv1.EndRoomRequest{Room: name}))
	must("ending it", err)
	c.until("the recording is kept", func() bool { return c.dropAssets(ctx, url, name) })
	_, err = rooms.DeleteRoom(ctx, connect.NewRequest(&amphiv1.DeleteRoomRequest{Room: name}))
	must("deleting it", err)
	for _, n := range c.nodes {
		c.until("nothing is left of "+name+" at node "+n.cfg.ID, func() bool {
			s := n.Status("")
			return len(s.GetRooms()) == 0 && len(s.GetStreams()) == 0 && len(s.GetOutputs()) == 0 && s.GetClients() == 0 && s.GetStorageWaiting() == 0
		})
	}
}

// dropAssets deletes the files of a room's recording, which has ended; false: they are not all there yet.
func (c *clustered) dropAssets(ctx context.Context, url, room string) bool {
	assets := amphiv1connect.NewAssetServiceClient(http.DefaultClient, url, manager(c.t))
	list, err := assets.ListAssets(ctx, connect.NewRequest(&amphiv1.ListAssetsRequest{Room: room}))
	if err != nil || len(list.Msg.GetAssets()) == 0 {
		return false
	}
	for _, a := range list.Msg.GetAssets() {
		if s := a.GetState(); s != amphiv1.AssetState_ASSET_STATE_READY && s != amphiv1.AssetState_ASSET_STATE_FAILED {
			return false
		}
	}
	for _, a := range list.Msg.GetAssets() {
		if _, err := assets.DeleteAsset(ctx, connect.NewRequest(&amphiv1.DeleteAssetRequest{Id: a.GetId()})); err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			c.t.Error(errors.Join(fmt.Errorf("deleting an asset of %s", room), err))
		}
	}
	return true
}
