package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/hls/storage"
	"github.com/amphi-sfu/amphi/hls/tracks"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
)

const (
	// lookEvery is how often the stage is looked at for tracks that came and went.
	lookEvery = 500 * time.Millisecond
	// quiet is how long an open picture may bring nothing before another of its encodings is recorded.
	quiet = 4 * time.Second
	// settle is how long a publisher has to send its best, once asked.
	settle = 1500 * time.Millisecond
	// maxTakes bounds what one output records at the same time; more people are left out.
	maxTakes = 50
	// wantedWidth and wantedHeight ask publishers for their best.
	wantedWidth, wantedHeight = 3840, 2160
)

// trackRecorder records the tracks of a room, for one output: a take for each peer's microphone and camera, one for its screen and
// the screen's sound, and one for each of its other sources.
type trackRecorder struct {
	log    *slog.Logger
	files  *recordings
	source hls.Source
	stage  func() *signal.StageView
	filter *amphiv1.TrackFilter
	like   *amphiv1.Asset // what all files have in common
	dir    string
	cancel context.CancelFunc

	paused atomic.Bool
	bytes  atomic.Uint64 // of files that are complete

	// Run's.
	takes map[takeKey]*take
	asked map[string]asking // pictures whose best is asked for
	count int
	wg    sync.WaitGroup
}

// takeKey is what shares a file: pictures and sound of one thing of one peer.
type takeKey struct{ peer, what string }

// take is one tracks.Recording.
type take struct {
	name    string
	rec     *tracks.Recording
	cancel  context.CancelFunc
	tracks  [2]*recorded // sound, picture; nil: there is none
	skipped int          // encodings that brought nothing
}

// asking is since when a publisher is asked for the best of a picture.
type asking struct {
	of    hls.Track
	since time.Time
}

// recorded is a track that goes into a take.
type recorded struct {
	id   string
	of   hls.Track
	from hls.Encoding
	sink *countingSink
	seen uint64
	at   time.Time // when a packet was seen to have come
}

// countingSink tells whether anything comes.
type countingSink struct {
	packet.Sink
	packets atomic.Uint64
}

// WriteRTP implements packet.Sink.
func (s *countingSink) WriteRTP(p *packet.Packet) {
	s.packets.Add(1)
	s.Sink.WriteRTP(p)
}

// startTracks begins to record the tracks of a room.
func (r *recordings) startTracks(m *made, s signal.OutputStart) error {
	part, dir, err := r.tracksPart(s.Output.GetId())
	if err != nil {
		r.log.Error("starting to record tracks", "room", s.Room, "output", s.Output.GetId(), "err", err)
		return proto.Errorf(proto.Unavailable, "the recording could not be started on this node's disk")
	}
	id := filepath.Base(dir)
	ctx, cancel := context.WithCancel(r.outputs.base)
	t := &trackRecorder{
		log: r.log.With("room", s.Room, "recording", id), files: r, source: r.tracks, filter: s.Output.GetTracks(), dir: dir,
		stage: func() *signal.StageView { return r.outputs.server.Stage(s.Room) },
		like: &amphiv1.Asset{Type: amphiv1.AssetType_ASSET_TYPE_TRACK, Room: s.Room, SessionId: s.Session, OutputId: s.Output.GetId(),
			Part: part, Node: r.node},
		cancel: cancel, takes: map[takeKey]*take{}, asked: map[string]asking{},
	}
	stands := clone(t.like)
	stands.Id, stands.State, stands.StartedMs = placeholder(id), amphiv1.AssetState_ASSET_STATE_RECORDING, time.Now().UnixMilli()
	r.keep(stands)
	r.outputs.mu.Lock()
	m.tracks = t
	r.outputs.mu.Unlock()
	r.outputs.wg.Go(func() {
		t.run(ctx, func(state amphiv1.OutputState, why string) { r.outputs.report(m, state, why, t.bytes.Load(), 0) })
		r.keeper.put(&amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_DeleteAsset{DeleteAsset: stands.GetId()}})
	})
	return nil
}

// tracksPart makes a directory for another part of an output. One that is there has files of another, though there may be no record of it yet.
func (r *recordings) tracksPart(output string) (part uint32, dir string, err error) {
	if err := os.MkdirAll(r.tracksDir(), 0o750); err != nil {
		return 0, "", err
	}
	for part = r.parts(output) + 1; ; part++ {
		dir = filepath.Join(r.tracksDir(), partName(output, part, r.node))
		if err := os.Mkdir(dir, 0o750); !errors.Is(err, fs.ErrExist) {
			return part, dir, err
		}
	}
}

func (r *recordings) tracksDir() string { return filepath.Join(r.dir, "tracks") }

// run records until ctx ends.
func (t *trackRecorder) run(ctx context.Context, report func(amphiv1.OutputState, string)) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	report(amphiv1.OutputState_OUTPUT_STATE_ACTIVE, "")
	failing := ""
	for ctx.Err() == nil {
		t.look(time.Now())
		if why := t.failure(); why != failing {
			failing = why
			if why == "" {
				report(amphiv1.OutputState_OUTPUT_STATE_ACTIVE, "")
			} else {
				report(amphiv1.OutputState_OUTPUT_STATE_RETRYING, why)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	for key := range t.takes {
		t.end(key)
	}
	for _, a := range t.asked {
		a.of.Want(t, 0, 0)
	}
	t.wg.Wait()
	_ = os.Remove(t.dir) // when nothing waits in it for the storage
	report(amphiv1.OutputState_OUTPUT_STATE_STOPPED, "")
}

// failure is why files cannot be written; empty: they can.
func (t *trackRecorder) failure() string {
	for _, k := range t.takes {
		if why := k.rec.Stats().Failure; why != "" {
			return "the disk does not take it"
		}
	}
	return ""
}

// wanted are the tracks that are to be recorded now, by what shares a file: sound and picture.
func (t *trackRecorder) wanted() map[takeKey][2]*amphiv1.Track {
	all := map[takeKey][2]*amphiv1.Track{}
	view := t.stage()
	if view == nil || t.paused.Load() {
		return all
	}
	match := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	for _, p := range view.Peers {
		if p.GetLost() || !match(t.filter.GetRoles(), p.GetRole()) || !match(t.filter.GetPeers(), p.GetId()) {
			continue
		}
		for _, track := range p.GetTracks() {
			if !match(t.filter.GetSources(), track.GetSource()) {
				continue
			}
			key := takeKey{p.GetId(), track.GetSource()}
			switch track.GetSource() {
			case proto.SourceMic:
				key.what = proto.SourceCamera
			case proto.SourceScreenAudio:
				key.what = proto.SourceScreen
			}
			pair := all[key]
			if track.GetKind() == amphiv1.Kind_KIND_AUDIO {
				pair[0] = track
			} else {
				pair[1] = track
			}
			all[key] = pair
		}
	}
	return all
}

// look keeps takes like the stage.
func (t *trackRecorder) look(now time.Time) {
	wanted := t.wanted()
	pictures := map[string]bool{}
	for _, pair := range wanted {
		pictures[pair[1].GetId()] = true
	}
	for id, a := range t.asked {
		if !pictures[id] {
			a.of.Want(t, 0, 0)
			delete(t.asked, id)
		}
	}
	for key, k := range t.takes {
		pair, still := wanted[key]
		for i, has := range k.tracks {
			// A track that another took the place of has other numbers: that is another take.
			still = still && (has == nil || pair[i].GetId() == has.id)
		}
		if !still {
			t.end(key)
		}
	}
	for key, pair := range wanted {
		for i, track := range pair {
			if track != nil {
				t.attach(now, key, i, track)
			}
		}
	}
}

// attach has a track recorded, if anything comes of it.
func (t *trackRecorder) attach(now time.Time, key takeKey, i int, track *amphiv1.Track) {
	k := t.takes[key]
	if k != nil && k.tracks[i] != nil {
		t.check(now, key, k, k.tracks[i], track)
		return
	}
	of, ok := t.source.Track(t.like.GetRoom(), track.GetId())
	if !ok {
		return
	}
	if k == nil && len(t.takes) >= maxTakes {
		return
	}
	of.Want(t, wantedWidth, wantedHeight)
	if track.GetKind() == amphiv1.Kind_KIND_VIDEO {
		since := now
		if a, asked := t.asked[track.GetId()]; asked {
			since = a.since
		}
		t.asked[track.GetId()] = asking{of, since}
		if now.Sub(since) < settle {
			return
		}
	}
	skip := 0
	if k != nil {
		skip = k.skipped
	}
	from := encodingOf(of, skip)
	if from == nil {
		return
	}
	if k == nil {
		if k = t.begin(key, of); k == nil {
			return
		}
	}
	k.tracks[i] = &recorded{id: track.GetId(), of: of, from: from, sink: &countingSink{Sink: k.rec.Input(i)}, at: now}
	from.Attach(k.tracks[i].sink)
	from.RequestKeyframe()
}

// encodingOf is the best encoding of which something has come, but for so many; where nothing has, the first one.
func encodingOf(of hls.Track, skip int) hls.Encoding {
	known := of.Encodings()
	if len(known) == 0 {
		return nil
	}
	all := slices.DeleteFunc(slices.Clone(known), func(e hls.Encoding) bool { return e.Codec().Name == codec.Name(0) })
	if len(all) == 0 {
		return known[0]
	}
	return all[len(all)-1-skip%len(all)]
}

// check begins another take with another encoding where an open picture brings nothing.
func (t *trackRecorder) check(now time.Time, key takeKey, k *take, r *recorded, track *amphiv1.Track) {
	if n := r.sink.packets.Load(); n != r.seen || track.GetMuted() || track.GetKind() == amphiv1.Kind_KIND_AUDIO {
		r.seen, r.at = n, now
		return
	}
	r.of.Want(t, wantedWidth, wantedHeight)
	if now.Sub(r.at) < quiet || len(r.of.Encodings()) < 2 {
		return
	}
	skipped := k.skipped + 1
	t.end(key)
	if again := t.begin(key, r.of); again != nil {
		again.skipped = skipped
	}
}

// begin begins a take that has no tracks yet; nil: it cannot be begun.
func (t *trackRecorder) begin(key takeKey, of hls.Track) *take {
	t.count++
	ctx, cancel := context.WithCancel(context.Background())
	k := &take{name: fmt.Sprintf("%s-%d", key.peer, t.count), cancel: cancel}
	about := clone(t.like)
	about.PeerId, about.Variant, about.StartedMs = key.peer, key.what, time.Now().UnixMilli()
	var err error
	k.rec, err = tracks.New(tracks.Config{Logger: t.log, Dir: t.dir, Name: k.name}, []codec.Kind{codec.Audio, codec.Video}, func() {
		for _, e := range of.Encodings() {
			e.RequestKeyframe()
		}
	})
	if err == nil {
		err = writeNote(filepath.Join(t.dir, k.name+noteEnd), about)
	}
	if err != nil {
		cancel()
		t.log.Error("starting to record a track", "peer", key.peer, "err", err)
		return nil
	}
	t.takes[key] = k
	t.wg.Go(func() {
		files, err := k.rec.Run(ctx)
		if err != nil {
			t.log.Error("completing a track; it is tried again at the next start", "peer", key.peer, "err", err)
		}
		t.bytes.Add(t.files.takeDone(t.dir, k.name, about, files, err == nil))
	})
	return k
}

// end lets go of a take; its files follow.
func (t *trackRecorder) end(key takeKey) {
	k := t.takes[key]
	delete(t.takes, key)
	for _, r := range k.tracks {
		if r != nil {
			r.of.Want(t, 0, 0)
			r.from.Detach(r.sink)
		}
	}
	k.cancel()
}

// noteEnd is the end of the name of what is said about a take, for after a crash.
const noteEnd = ".about.json"

func writeNote(path string, a *amphiv1.Asset) error {
	data, err := protojson.Marshal(a)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close()) // what is recorded cannot be completed without it
}

// tracksJob begins the ids of uploads of tracks.
const tracksJob = "track/"

// takeDone brings the files of a take to the storage; it answers their bytes. Unless they are all, what is said of the take stays, and the
// next start completes the others.
func (r *recordings) takeDone(dir, name string, about *amphiv1.Asset, files []tracks.File, all bool) (bytes uint64) {
	var left []tracks.File
	for _, f := range files {
		a := r.trackAsset(dir, about, f)
		bytes += a.GetSize()
		r.keep(a)
		note, err := protojson.Marshal(a)
		if err == nil {
			err = r.queue.Add(storage.Job{ID: tracksJob + a.GetId(), Note: note, Remove: true,
				Files: []storage.File{{Path: filepath.Join(dir, f.Name), Key: a.GetKey(), ContentType: f.ContentType}}})
		}
		if err != nil {
			r.log.Warn("a track cannot be queued for the storage; it is tried again", "asset", a.GetId(), "err", err)
			left = append(left, f)
		}
	}
	if len(left) > 0 {
		r.again(func() { r.takeDone(dir, name, about, left, all) })
		return bytes
	}
	if !all {
		return bytes
	}
	if err := os.Remove(filepath.Join(dir, name+noteEnd)); err != nil {
		r.log.Warn("forgetting a take", "take", name, "err", err)
	}
	return bytes
}

// trackAsset is the record of a file of a take.
func (r *recordings) trackAsset(dir string, about *amphiv1.Asset, f tracks.File) *amphiv1.Asset {
	part := filepath.Base(dir)
	a := clone(about)
	a.Id, a.State, a.ContentType = assetID(part+"/"+f.Name), amphiv1.AssetState_ASSET_STATE_UPLOADING, f.ContentType
	a.Size, a.DurationMs, a.Checksum, a.CreatedMs = uint64(f.Size), f.Duration.Milliseconds(), f.Checksum, time.Now().UnixMilli()
	a.Key = strings.Join([]string{storage.KeyPart(a.GetRoom()), storage.KeyPart(a.GetSessionId()), storage.KeyPart(part), storage.KeyPart(f.Name)}, "/")
	if r.bucket {
		a.Node = ""
	}
	return a
}

// tracksLeft are the directories that an earlier life left: parts that a crash cut off, and those from which not everything has gone to the
// storage.
func (r *recordings) tracksLeft() (names []string) {
	entries, err := os.ReadDir(r.tracksDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // nothing was ever recorded
		r.log.Error("looking for tracks of before", "err", err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// recoverTracks completes the takes that a crash cut off, until ctx ends.
func (r *recordings) recoverTracks(ctx context.Context, left []string) {
	for _, name := range left {
		dir := filepath.Join(r.tracksDir(), name)
		notes, err := fs.Glob(os.DirFS(dir), "*"+noteEnd) // whose own path may have characters of patterns
		if err != nil {
			r.log.Error("recovering tracks", "recording", name, "err", err)
		}
		for _, note := range notes {
			if ctx.Err() != nil {
				return
			}
			r.recoverTake(dir, strings.TrimSuffix(note, noteEnd))
		}
		r.keeper.put(&amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_DeleteAsset{DeleteAsset: placeholder(name)}})
		_ = os.Remove(dir) // only when everything has gone to the storage
	}
}

func (r *recordings) recoverTake(dir, name string) {
	about := &amphiv1.Asset{}
	data, err := os.ReadFile(filepath.Join(dir, name+noteEnd))
	if err == nil {
		err = protojson.Unmarshal(data, about)
	}
	if err != nil {
		r.log.Error("recovering tracks", "take", name, "err", err)
		return
	}
	files, err := tracks.Complete(dir, name)
	if err != nil {
		r.log.Error("recovering tracks", "take", name, "err", err)
	}
	r.takeDone(dir, name, about, files, err == nil)
}
