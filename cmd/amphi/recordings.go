package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/record"
	"github.com/amphi-sfu/amphi/hls/storage"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
	"github.com/amphi-sfu/amphi/signal/webhook"
)

const (
	// assetsPath is where this node serves files by links that expire.
	assetsPath = "/v1/assets"
	// thumbnailWidth in pixels.
	thumbnailWidth = 640
	// recoverWait bounds how long a recording waits for what is left of those before a crash to be found.
	recoverWait = 5 * time.Second
	// queueAgain is the time between attempts to queue files for the storage.
	queueAgain = 5 * time.Second
)

// StorageConfig says where recordings go. The zero value is a directory beside the records, or a temporary one.
type StorageConfig struct {
	// Dir is where recordings are made, and kept where there is no bucket.
	Dir string
	// Bucket is an S3-compatible one; nil: the directory keeps them.
	Bucket *storage.S3Config
}

// recordings makes recordings, brings their files to the storage and keeps the records of both.
type recordings struct {
	log       *slog.Logger
	node      string
	outputs   *outputs
	registry  signal.Registry
	hooks     *webhook.Sender
	recorder  *record.Recorder
	queue     *storage.Queue
	store     storage.Store
	keeper    *keeper
	dir       string        // of everything
	tracks    hls.Source    // of rooms' tracks on this node
	temporary string        // directory to remove in the end; empty: none
	recovered chan struct{} // closed when it is known what a crash left
	bucket    bool
	// call asks another node; nil: there is none.
	call func(ctx context.Context, node string, kind byte, question []byte) ([]byte, error)

	mu       sync.Mutex // guards the field below
	unqueued []func()   // each tries to queue files for the storage once more
}

// newRecordings opens the directory and the storage; it starts nothing.
func (n *Node) newRecordings() (r *recordings, err error) {
	cfg := n.cfg.Storage
	r = &recordings{log: n.log, node: n.cfg.ID, outputs: n.outputs, registry: n.registry, hooks: n.hooks, bucket: cfg.Bucket != nil,
		keeper: newKeeper(n.registry, n.log), recovered: make(chan struct{})}
	dir := cfg.Dir
	switch {
	case dir != "":
	case n.cfg.Data != "":
		dir = filepath.Join(n.cfg.Data, "recordings")
	default:
		if dir, err = os.MkdirTemp("", "amphi-recordings-"); err != nil {
			return nil, fmt.Errorf("making a directory for recordings: %w", err)
		}
		r.temporary = dir
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if cfg.Bucket != nil {
		r.store, err = storage.NewS3(*cfg.Bucket)
	} else {
		r.store, err = storage.NewDisk(filepath.Join(dir, "assets"), nil)
	}
	if err != nil {
		return nil, err
	}
	r.dir, r.tracks = dir, hls.Engine(n.media)
	r.queue, err = storage.NewQueue(storage.QueueConfig{Logger: n.log, Dir: filepath.Join(dir, "uploads"), Store: r.store,
		OnStatus: r.health, OnDone: r.stored})
	if err != nil {
		return nil, err
	}
	path, err := compositorPath(n.cfg.CompositorPath)
	if err != nil {
		return nil, err
	}
	r.recorder, err = record.New(record.Config{Logger: n.log, Dir: filepath.Join(dir, "running"), Source: n.origin,
		OnState: r.state, OnAsset: r.finished,
		Thumbnail: func(ctx context.Context, annexB []byte) ([]byte, error) {
			return compose.Thumbnail(ctx, path, thumbnailWidth, annexB)
		}})
	return r, err
}

// close frees what newRecordings opened, for a node that never ran, and in the end.
func (r *recordings) close() {
	if r.temporary != "" {
		_ = os.RemoveAll(r.temporary)
	}
}

// Run records and uploads until ctx ends.
func (r *recordings) Run(ctx context.Context) error {
	if _, err := r.recorder.Recover(); err != nil {
		r.log.Error("recovering recordings", "err", err)
	}
	left := r.tracksLeft()
	close(r.recovered)
	keep := func(own context.Context) error { return r.keeper.run(own, ctx) }
	before := func(ctx context.Context) error {
		r.recoverTracks(ctx, left)
		<-ctx.Done()
		return nil
	}
	err := runAll(ctx, []service{{"the records of recordings", keep}, {"the uploads", r.queue.Run}, {"uploads that wait for the disk", r.requeue}, {"the recorder", r.recorder.Run}, {"the tracks of before", before}}, func() {})
	r.close()
	return err
}

// start begins a recording. Its id at the recorder is partName: another node that takes the room over begins another part.
func (r *recordings) start(m *made, s signal.OutputStart) error {
	select {
	case <-r.recovered:
	case <-time.After(recoverWait):
		return proto.Errorf(proto.Unavailable, "the recordings of before are still being looked at")
	}
	if s.Output.GetKind() == amphiv1.OutputKind_OUTPUT_KIND_TRACKS {
		return r.startTracks(m, s)
	}
	variant := cmp.Or(s.Output.GetVariant(), record.AllVariants)
	for part := r.parts(s.Output.GetId()) + 1; ; part++ {
		id := partName(s.Output.GetId(), part, r.node)
		r.outputs.mu.Lock()
		m.recording = id
		r.outputs.mu.Unlock()
		err := r.recorder.Start(record.Request{ID: id, Room: s.Room, Session: s.Session, Stream: s.Output.GetStream(), Variants: []string{strings.ToLower(variant)}})
		switch {
		case errors.Is(err, record.ErrExists):
			continue
		case errors.Is(err, hls.ErrNotFound):
			return proto.Errorf(proto.StreamFailed, "the stream does not run")
		case err != nil:
			r.log.Error("starting a recording", "room", s.Room, "recording", id, "err", err)
			return proto.Errorf(proto.Unavailable, "the recording could not be started on this node's disk")
		}
		r.keep(&amphiv1.Asset{Id: placeholder(id), Type: amphiv1.AssetType_ASSET_TYPE_PROGRAM, State: amphiv1.AssetState_ASSET_STATE_RECORDING,
			Room: s.Room, SessionId: s.Session, OutputId: s.Output.GetId(), Stream: s.Output.GetStream(), Variant: s.Output.GetVariant(),
			Part: part, StartedMs: time.Now().UnixMilli(), Node: r.node})
		return nil
	}
}

// parts counts the parts of an output that there are records of.
func (r *recordings) parts(output string) (most uint32) {
	r.registry.Read(func(reg *amphiv1.Registry) {
		for _, a := range reg.GetAssets() {
			if a.GetOutputId() == output {
				most = max(most, a.GetPart())
			}
		}
	})
	return most
}

// partName names a part of an output in directories, keys and asset ids. It is the node's own: one that takes a room over may not have the
// record of the part that the node before was making, and count the same number.
func partName(output string, part uint32, node string) string {
	return fmt.Sprintf("%s-%d-%s", output, part, short(node, 5))
}

// partNumber reads a partName, also one without a node, as they once were.
func partNumber(name string) (output string, part uint32) {
	output, rest, _ := strings.Cut(name, "-")
	number, _, _ := strings.Cut(rest, "-")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		n = 1
	}
	return output, uint32(n)
}

// placeholder is the asset that stands for a recording until its files are there.
func placeholder(recording string) string { return assetID(recording) }

// assetID is short, and the same whenever it is asked for.
func assetID(name string) string {
	return proto.AssetPrefix + short(name, 10)
}

// short is a hash of so many bytes, in letters and digits.
func short(name string, bytes int) string {
	sum := sha256.Sum256([]byte(name))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:bytes]))
}

func (r *recordings) keep(a *amphiv1.Asset) { r.keeper.put(putAsset(a)) }

func putAsset(a *amphiv1.Asset) *amphiv1.RegistryCommand {
	return &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutAsset{PutAsset: a}}
}

// asset finds a record.
func (r *recordings) asset(id string) (found *amphiv1.Asset) {
	r.registry.Read(func(reg *amphiv1.Registry) { found = reg.GetAssets()[id] })
	return found
}

func (r *recordings) pause(id string) error  { return r.recorder.Pause(id) }
func (r *recordings) resume(id string) error { return r.recorder.Resume(id) }
func (r *recordings) end(id string) error    { return r.recorder.Stop(id) }

// change does something to a recording; one that has ended meanwhile is ignored.
func (r *recordings) change(m *made, do func(string) error) {
	if m == nil {
		return
	}
	id, _ := r.outputs.recorded(m)
	if id == "" {
		return
	}
	if err := do(id); err != nil && !errors.Is(err, record.ErrNotFound) {
		r.log.Warn("changing a recording", "recording", id, "err", err)
	}
}

// note puts a chat message into a recording's log.
func (r *recordings) note(id string, m *amphiv1.Message) {
	data, err := json.Marshal(map[string]any{"type": m.GetType(), "sender": m.GetSender(), "name": m.GetSenderName(), "role": m.GetSenderRole(), "text": m.GetText()})
	if err == nil {
		err = r.recorder.Note(id, data)
	}
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		r.log.Warn("noting a message in a recording", "recording", id, "err", err)
	}
}

func (r *recordings) figures(id string) (bytes, dropped uint64) {
	st, err := r.recorder.State(id)
	if err != nil {
		return 0, 0
	}
	return uint64(st.Bytes), uint64(st.Dropped)
}

var recordStates = map[record.Phase]amphiv1.OutputState{
	record.Starting: amphiv1.OutputState_OUTPUT_STATE_STARTING, record.Active: amphiv1.OutputState_OUTPUT_STATE_ACTIVE,
	record.Paused: amphiv1.OutputState_OUTPUT_STATE_PAUSED, record.Retrying: amphiv1.OutputState_OUTPUT_STATE_RETRYING,
	record.Stopped: amphiv1.OutputState_OUTPUT_STATE_STOPPED, record.Failed: amphiv1.OutputState_OUTPUT_STATE_FAILED,
}

// state takes a recording's state to its room and its record.
func (r *recordings) state(id string, st record.State) {
	output, _, _ := strings.Cut(id, "-")
	// One that is not found was running before the node was restarted, or is being finished while another part runs.
	if m := r.outputs.find(output); m != nil {
		if running, _ := r.outputs.recorded(m); running == id {
			r.outputs.report(m, recordStates[st.Phase], st.Reason, uint64(st.Bytes), 0)
		}
	}
	held := r.asset(placeholder(id))
	switch st.Phase {
	case record.Finishing:
		r.stands(id, held, amphiv1.AssetState_ASSET_STATE_PROCESSING, "")
	case record.Failed:
		r.stands(id, held, amphiv1.AssetState_ASSET_STATE_FAILED, st.Reason)
	case record.Stopped:
		r.keeper.put(&amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_DeleteAsset{DeleteAsset: placeholder(id)}})
	}
}

// stands changes what stands for a recording that has no files yet.
func (r *recordings) stands(id string, held *amphiv1.Asset, state amphiv1.AssetState, why string) {
	if held == nil || held.GetState() == state {
		return
	}
	if state == amphiv1.AssetState_ASSET_STATE_FAILED {
		r.failed(held, why)
		return
	}
	held = clone(held)
	held.State = state
	r.keep(held)
}

var assetTypes = map[record.Type]amphiv1.AssetType{
	record.Program: amphiv1.AssetType_ASSET_TYPE_PROGRAM, record.Playlist: amphiv1.AssetType_ASSET_TYPE_PLAYLIST,
	record.Chat: amphiv1.AssetType_ASSET_TYPE_CHAT, record.Thumbnail: amphiv1.AssetType_ASSET_TYPE_THUMBNAIL,
}

// assetOf is the record of a file.
func (r *recordings) assetOf(a record.Asset) *amphiv1.Asset {
	output, part := partNumber(a.Recording)
	asset := &amphiv1.Asset{
		Id: assetID(a.ID), Type: assetTypes[a.Type], Room: a.Room, SessionId: a.Session, OutputId: output, Stream: a.Stream, Variant: a.Variant,
		Part: part, Key: record.KeyOf(a), ContentType: a.ContentType, Size: uint64(a.Size), DurationMs: a.Duration.Milliseconds(),
		StartedMs: unixMilli(a.Started), CreatedMs: unixMilli(a.Created), Checksum: a.Checksum, Width: uint32(a.Width), Height: uint32(a.Height),
	}
	if !r.bucket {
		asset.Node = r.node
	}
	return asset
}

// finished takes a file that is complete: it is on its way to the storage. It is told again after each start until it is there.
func (r *recordings) finished(a record.Asset) {
	asset := r.assetOf(a)
	if r.asset(asset.GetId()).GetState() == amphiv1.AssetState_ASSET_STATE_READY {
		r.isStored(a)
		return
	}
	asset.State = amphiv1.AssetState_ASSET_STATE_UPLOADING
	r.keep(asset)
	job, err := r.recorder.Job(a)
	if err == nil {
		err = r.queue.Add(job)
	}
	if err != nil {
		// It stays on this node's disk, whose being full is the most likely reason.
		r.log.Warn("a file cannot be queued for the storage; it is tried again", "asset", a.ID, "err", err)
		r.again(func() { r.finished(a) })
	}
}

// again has files queued for the storage a while later.
func (r *recordings) again(queue func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unqueued = append(r.unqueued, queue)
}

// requeue tries what could not be queued for the storage again, until ctx ends; what is left then is found on the disk at the next start.
func (r *recordings) requeue(ctx context.Context) error {
	tick := time.NewTicker(queueAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.mu.Lock()
		waiting := r.unqueued
		r.unqueued = nil
		r.mu.Unlock()
		for _, queue := range waiting {
			queue()
		}
	}
}

func (r *recordings) failed(a *amphiv1.Asset, why string) {
	a = clone(a)
	a.State, a.Failure = amphiv1.AssetState_ASSET_STATE_FAILED, why
	r.keep(a)
	r.tell("asset.failed", a)
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// stored is told what became of an upload, which is forgotten when this returns true.
func (r *recordings) stored(j storage.Job, failure error) bool {
	if strings.HasPrefix(j.ID, tracksJob) {
		a := &amphiv1.Asset{}
		if err := protojson.Unmarshal(j.Note, a); err != nil {
			r.log.Error("reading a job of the uploads", "job", j.ID, "err", err)
			return true
		}
		return r.arrived(a, failure)
	}
	a, err := record.AssetOf(j)
	if err != nil {
		r.log.Error("reading a job of the uploads", "job", j.ID, "err", err)
		return true
	}
	if !r.arrived(r.assetOf(a), failure) {
		return false
	}
	if failure == nil {
		r.isStored(a)
	}
	return true
}

// arrived writes into an asset's record what became of its upload; false: it could not be written.
func (r *recordings) arrived(a *amphiv1.Asset, failure error) bool {
	kind := "asset.ready"
	a.State = amphiv1.AssetState_ASSET_STATE_READY
	if failure != nil {
		kind, a.State, a.Failure = "asset.failed", amphiv1.AssetState_ASSET_STATE_FAILED, failure.Error()
	}
	if !r.keeper.wait(putAsset(a)) {
		return false
	}
	r.tell(kind, a)
	return true
}

// isStored lets the recorder remove what is in the storage.
func (r *recordings) isStored(a record.Asset) {
	if err := r.recorder.Stored(a); err != nil {
		r.log.Warn("removing a recording that is stored", "asset", a.ID, "err", err)
	}
}

// health tells how the storage does.
func (r *recordings) health(st storage.Status) {
	r.log.Info("storage", "health", st.Health, "reason", st.Reason, "pending", st.Pending)
	if r.hooks != nil {
		r.hooks.Emit(webhook.Event{ID: proto.NewID(proto.HookPrefix), Type: "storage." + string(st.Health), Time: st.Since,
			Data: map[string]any{"node": r.node, "reason": st.Reason, "pending": st.Pending}})
	}
}

// tell tells applications of an asset; they know it by its id and state.
func (r *recordings) tell(kind string, a *amphiv1.Asset) {
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(a)
	if err != nil || r.hooks == nil {
		return
	}
	id := proto.HookPrefix + strings.TrimPrefix(a.GetId(), proto.AssetPrefix) + "_" + strings.TrimPrefix(kind, "asset.")
	r.hooks.Emit(webhook.Event{ID: id, Type: kind, Room: a.GetRoom(), Time: time.Now(), Data: json.RawMessage(data)})
}
