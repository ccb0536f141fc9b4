package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/packager"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// number is what follows a tag in a playlist.
func number(t *testing.T, playlist, tag string) uint64 {
	t.Helper()
	_, rest, _ := strings.Cut(playlist, tag+":")
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v in\n%s", tag, err, playlist)
	}
	return n
}

// origin is the node that makes the demo room's stream, as node n knows it.
func (c *clustered) origin(n *clusterNode) *clusterNode {
	id := n.mesh.streamOrigin(devRoom, "main").GetNode()
	i := slices.IndexFunc(c.nodes, func(o *clusterNode) bool { return o.cfg.ID == id })
	if i < 0 {
		c.t.Fatalf("the origin is %q", id)
	}
	return c.nodes[i]
}

// The owner has no compositor: another node makes the stream, and a third when that one ends. Who plays at the owner goes on.
func TestAnOriginLeaves(t *testing.T) {
	t.Parallel()
	fake := fakeCompositor(t)
	c := startClusterWith(t, 3, func(cfg *Config) {
		cfg.CompositorPath = fake
		if cfg.ID == "n1" {
			cfg.CompositorPath = "/nowhere/compositor"
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	defer cancel()
	c.goLive(ctx, join(ctx, t, c.nodes[0].Node, "host", "Host"))
	owner, first := c.nodes[0], c.origin(c.nodes[0])
	if first == owner {
		t.Fatal("a node without compositor makes the stream")
	}
	w := watcher{t, owner}
	_, before, _ := w.get("720p/index.m3u8")
	begun := time.Now()
	c.end(first)
	var after string
	c.until("another origin goes on", func() bool {
		_, list, err := w.get("720p/index.m3u8")
		epoch, _, _ := strings.Cut(newest(list), "-")
		if err != nil || epoch == "" || strings.Contains(before, epoch+"-") {
			return false
		}
		after = list
		return true
	})
	t.Logf("another origin's part after %v", time.Since(begun))
	second := c.origin(owner)
	if second == first || second == owner {
		t.Errorf("the origin is %s now", second.cfg.ID)
	}
	_, audio, _ := w.get("audio/index.m3u8")
	for _, list := range []string{after, audio} {
		if strings.Contains(list, "#EXT-X-ENDLIST") || !strings.Contains(list, "#EXT-X-DISCONTINUITY\n") {
			t.Errorf("no discontinuity, or an end:\n%s", list)
		}
		if number(t, list, "#EXT-X-MEDIA-SEQUENCE") <= number(t, before, "#EXT-X-MEDIA-SEQUENCE") {
			t.Errorf("the media sequence fell back:\n%s\nafter\n%s", list, before)
		}
		if d := number(t, list, "#EXT-X-DISCONTINUITY-SEQUENCE"); d != number(t, after, "#EXT-X-DISCONTINUITY-SEQUENCE") || d == 0 {
			t.Errorf("discontinuity sequence %d", d)
		}
	}
	// The room's end ends it there.
	if _, err := join(ctx, t, owner.Node, "host", "Other").Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_ControlStream{
		ControlStream: &amphiv1.ControlStream{Action: amphiv1.ControlStream_ACTION_STOP}}}); err != nil {
		t.Fatal(err)
	}
	c.until("the stream ends", func() bool {
		_, list, _ := w.get("720p/index.m3u8")
		return strings.Contains(list, "#EXT-X-ENDLIST") && second.mesh.desk.epoch(devRoom, "main") == 0
	})
}

// An origin that drains hands the stream over while it goes on.
func TestAnOriginDrains(t *testing.T) {
	t.Parallel()
	fake := fakeCompositor(t)
	c := startClusterWith(t, 3, func(cfg *Config) {
		cfg.CompositorPath = fake
		if cfg.ID == "n1" {
			cfg.Cluster.Roles = []string{roleStage, roleVoter}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	defer cancel()
	c.goLive(ctx, join(ctx, t, c.nodes[0].Node, "host", "Host"))
	owner, first := c.nodes[0], c.origin(c.nodes[0])
	first.mesh.begin(20 * time.Second)
	w := watcher{t, owner}
	longest, last, part := time.Duration(0), time.Now(), ""
	c.until("another origin makes the stream, and the first makes none", func() bool {
		if _, list, err := w.get("720p/index.m3u8"); err == nil && newest(list) != part {
			longest, last, part = max(longest, time.Since(last)), time.Now(), newest(list)
		}
		return c.origin(owner) != first && first.mesh.desk.epoch(devRoom, "main") == 0 && time.Since(last) < time.Second
	})
	t.Logf("longest time without a new part: %v", longest)
	if longest > 5*time.Second {
		t.Errorf("the stream stood still for %v", longest)
	}
}

func TestCandidates(t *testing.T) {
	t.Parallel()
	d := newDirector()
	d.node, d.region = "a", "eu"
	now := time.Now()
	d.heard = func(node string) time.Time {
		if node == "silent" {
			return now.Add(-time.Minute)
		}
		return time.Now()
	}
	d.members = func() []member {
		origin := []string{roleOrigin}
		return []member{
			{id: "far", region: "us", roles: origin, alive: true}, {id: "busy", region: "eu", roles: origin, load: 200, alive: true},
			{id: "near", region: "eu", roles: origin, load: 10, alive: true}, {id: "a", region: "eu", roles: origin, load: 250, alive: true},
			{id: "stage", region: "eu", roles: []string{roleStage}, alive: true}, {id: "draining", region: "eu", roles: origin, alive: true, draining: true},
			{id: "silent", region: "eu", roles: origin, alive: true}, {id: "suspect", region: "eu", roles: origin},
		}
	}
	for not, want := range map[string]string{"": "[a near busy far]", "a": "[near busy far]"} {
		if got := fmt.Sprint(d.candidates(not)); got != want {
			t.Errorf("without %q: %s, want %s", not, got, want)
		}
	}
}

func TestAfter(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_000_000)
	if got := after(nil, now); got != (hls.After{}) {
		t.Errorf("after nothing: %+v", got)
	}
	before := &amphiv1.StreamOrigin{Epoch: 3, ProgramEpoch: 9, FirstMsn: 100, StartedMs: 990_500, SegmentMs: 2000}
	if got, want := after(before, now), (hls.After{Epoch: 9, MSN: 107, Discontinuity: 3 << 14}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	first := uint64(5 << 14)
	before.FirstDiscontinuity, before.Epoch = &first, 1000
	if got, want := after(before, now), (hls.After{Epoch: 9, MSN: 107, Discontinuity: 6 << 14}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := after(before, time.UnixMilli(0)); got.MSN != 102 {
		t.Errorf("with a clock that is behind: %+v", got)
	}
}

// Each start of a compositor within a segment takes a number of its own: whoever makes the stream next begins above those, too.
func TestRestartsTakeNumbers(t *testing.T) {
	t.Parallel()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.UnixMilli(1_000_000)
	pack, err := packager.New(packager.Config{Epoch: 9, Start: begun, FirstMSN: 100, Variants: []packager.Variant{{Name: "720p", Bitrate: 300_000}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := pack.SetAudioConfig(hlstest.AudioConfig()); err != nil {
		t.Fatal(err)
	}
	const part, parts = 15, 24 // a compositor dies after each part of half a second, and the next one delivers the part after the next one
	for tick := int64(0); tick < part*parts; tick += 2 * part {
		if err := pack.Begin(tick); err != nil {
			t.Fatal(err)
		}
		for i := range int64(part) {
			if err := pack.WriteVideo(0, tick+i, clip.Video[i]); err != nil {
				t.Fatal(err)
			}
		}
		for at := tick * 1600; at < (tick+part)*1600; at += 1024 {
			if err := pack.WriteAudio(at, clip.Audio[0]); err != nil {
				t.Fatal(err)
			}
		}
		if err := pack.Cut(); err != nil {
			t.Fatal(err)
		}
	}
	next := pack.Stats().NextMSN
	now := begun.Add(parts * 500 * time.Millisecond)
	program := &amphiv1.StreamOrigin{Epoch: 3, ProgramEpoch: 9, FirstMsn: 100, StartedMs: begun.UnixMilli(), SegmentMs: 2000}
	if told := after(program, now).MSN; told >= next {
		t.Fatalf("the next program would begin at %d, and this one has used all below %d: nothing is tried here", told, next)
	}
	told := counted(program, next, now)
	if got := after(told, now).MSN; got != next+skew || program.GetFirstMsn() != 100 {
		t.Errorf("the next program begins at %d, this one has used all below %d; %v", got, next, program)
	}
	// The owner has the registry know, once, and for no other program.
	known := &oneRecord{record: program}
	d := newDirector()
	d.log, d.records = slog.New(slog.DiscardHandler), originRecords{known}
	x := &direction{room: devRoom, name: "main"}
	for range 2 {
		d.note(t.Context(), x, told)
	}
	d.note(t.Context(), x, &amphiv1.StreamOrigin{Epoch: 2, FirstMsn: 1000})
	if known.puts != 1 || known.record != told {
		t.Errorf("%d times: %v", known.puts, known.record)
	}
}

// oneRecord is a registry of one stream, the room's main one.
type oneRecord struct {
	record *amphiv1.StreamOrigin
	puts   int
}

func (r *oneRecord) Read(f func(*amphiv1.Registry)) {
	f(&amphiv1.Registry{Origins: map[string]*amphiv1.StreamOrigin{registry.OriginKey(devRoom, "main"): r.record}})
}

func (r *oneRecord) Propose(_ context.Context, cmd *amphiv1.RegistryCommand) error {
	r.record = cmd.GetPutOrigin()
	r.puts++
	return nil
}
