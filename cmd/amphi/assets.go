package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/hls/storage"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
)

func clone(a *amphiv1.Asset) *amphiv1.Asset { return protobuf.Clone(a).(*amphiv1.Asset) }

// URL implements signal.Assets: a link that expires, at the node that has the file.
func (r *recordings) URL(ctx context.Context, a *amphiv1.Asset, ttl time.Duration) (string, error) {
	if r.bucket && a.GetType() != amphiv1.AssetType_ASSET_TYPE_PLAYLIST {
		link, err := r.store.URL(ctx, a.GetKey(), ttl)
		if err != nil {
			return "", refusedBy(err)
		}
		return link, nil
	}
	// What a playlist lists is found beside it only through a node.
	gate, err := r.gate()
	if err != nil {
		return "", err
	}
	link := gate.Link(a.GetKey(), ttl)
	if at := a.GetNode(); at != "" && at != r.node {
		url := r.urlOf(at)
		if url == "" {
			return "", proto.Errorf(proto.Unavailable, "the node %s, which has the file, is not there", at)
		}
		return url + link, nil
	}
	return link, nil
}

// gate signs and checks the links of this node and all others, with a secret that is good for nothing else.
func (r *recordings) gate() (*storage.Gate, error) {
	var secret []byte
	r.registry.Read(func(reg *amphiv1.Registry) { secret = reg.GetNodeSecret() })
	if len(secret) == 0 {
		return nil, proto.Errorf(proto.Unavailable, "the cluster has no secret yet")
	}
	sum := sha256.Sum256(append([]byte("amphi asset links "), secret...))
	return storage.NewGate(assetsPath, sum[:], nil)
}

// Handler serves files by links that expire.
func (r *recordings) Handler() http.Handler {
	return http.StripPrefix(assetsPath, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		gate, err := r.gate()
		if err != nil {
			plain(w, http.StatusServiceUnavailable, string(proto.Unavailable)+"\n")
			return
		}
		gate.Handler(r.log, r.store).ServeHTTP(w, req)
	}))
}

// kindAsset is the call that has another node delete a file that it has on its disk; the question is the asset's id.
const kindAsset byte = 23

// Delete implements signal.Assets. A playlist's files go with it. Those of a node that has left the cluster for good are gone.
func (r *recordings) Delete(ctx context.Context, a *amphiv1.Asset) error {
	at := a.GetNode()
	if at == "" || at == r.node || r.call == nil {
		return r.deleteHere(ctx, a)
	}
	var known bool
	r.registry.Read(func(reg *amphiv1.Registry) { known = reg.GetNodes()[at] != nil })
	if !known {
		return nil
	}
	if _, err := r.call(ctx, at, kindAsset, []byte(a.GetId())); err != nil {
		return proto.Errorf(proto.Unavailable, "the node %s, which has the file, has not deleted it: %v", at, err)
	}
	return nil
}

// answerDelete deletes a file of this node's disk for another node, which then deletes the record.
func (r *recordings) answerDelete(ctx context.Context, _ string, question []byte) ([]byte, error) {
	var a *amphiv1.Asset
	r.registry.Read(func(reg *amphiv1.Registry) { a = reg.GetAssets()[string(question)] })
	if a == nil || a.GetNode() != r.node {
		return nil, proto.Errorf(proto.NotFound, "there is no such asset here")
	}
	return nil, r.deleteHere(ctx, a)
}

func (r *recordings) deleteHere(ctx context.Context, a *amphiv1.Asset) error {
	if a.GetKey() == "" {
		return nil
	}
	keys := []string{a.GetKey()}
	if a.GetType() == amphiv1.AssetType_ASSET_TYPE_PLAYLIST {
		own, err := r.ownKeys(ctx, a)
		if err != nil {
			return refusedBy(err)
		}
		keys = append(keys, own...)
	}
	for _, key := range keys {
		if err := r.store.Delete(ctx, key); err != nil {
			return refusedBy(err)
		}
	}
	return nil
}

// ownKeys are the files beside a playlist that are no assets themselves.
func (r *recordings) ownKeys(ctx context.Context, a *amphiv1.Asset) ([]string, error) {
	folder := a.GetKey()[:strings.LastIndex(a.GetKey(), "/")+1]
	objects, err := r.store.List(ctx, folder)
	if err != nil {
		return nil, err
	}
	others := map[string]bool{}
	r.registry.Read(func(reg *amphiv1.Registry) {
		for _, o := range reg.GetAssets() {
			if strings.HasPrefix(o.GetKey(), folder) {
				others[o.GetKey()] = true
			}
		}
	})
	var keys []string
	for _, o := range objects {
		if !others[o.Key] {
			keys = append(keys, o.Key)
		}
	}
	return keys, nil
}

func (r *recordings) urlOf(node string) (url string) {
	r.registry.Read(func(reg *amphiv1.Registry) { url = reg.GetNodes()[node].GetUrl() })
	return url
}

// refusedBy is a storage's error for the API.
func refusedBy(err error) error {
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return proto.Errorf(proto.NotFound, "the storage does not have the file")
	case errors.Is(err, storage.ErrDenied):
		return proto.Errorf(proto.Unavailable, "the storage denies access")
	}
	return proto.Errorf(proto.Unavailable, "the storage does not answer: %v", err)
}

// keeper writes records one after the other, and again while the registry does not answer. What waits when the node ends or is killed
// is told again after its next start, by what is on the disk.
type keeper struct {
	registry signal.Registry
	log      *slog.Logger
	wake     chan struct{} // holds a token when there is work
	over     chan struct{} // closed when run writes no more

	mu   sync.Mutex // guards the field below
	jobs []keeping
}

// keeping is a record to be written; written is closed when it is, or never can be. Nil: nobody waits.
type keeping struct {
	cmd     *amphiv1.RegistryCommand
	written chan struct{}
}

func newKeeper(r signal.Registry, log *slog.Logger) *keeper {
	return &keeper{registry: r, log: log, wake: make(chan struct{}, 1), over: make(chan struct{})}
}

// put has a command written, in its turn; it does not block.
func (k *keeper) put(cmd *amphiv1.RegistryCommand) { k.add(keeping{cmd: cmd}) }

// wait has a command written and returns when it is; false: the keeper has given up before.
func (k *keeper) wait(cmd *amphiv1.RegistryCommand) bool {
	written := make(chan struct{})
	k.add(keeping{cmd, written})
	select {
	case <-written:
		return true
	case <-k.over:
	}
	select {
	case <-written:
		return true
	default:
		return false
	}
}

func (k *keeper) add(job keeping) {
	job.cmd.Id, job.cmd.TimeMs = proto.NewID(proto.RequestPrefix), time.Now().UnixMilli()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.jobs = append(k.jobs, job)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// lastWrites is for how long a node that ends tries to write what is left.
const lastWrites = 2 * time.Second

// run works until ctx ends, and then through what is left. From leaving's end on it has lastWrites: others, who end before, wait for what
// they have put, and a registry without quorum does not answer.
func (k *keeper) run(ctx, leaving context.Context) error {
	patience, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	over := sync.OnceFunc(func() { close(k.over) })
	defer over()
	defer context.AfterFunc(patience, over)()
	defer context.AfterFunc(leaving, func() { time.AfterFunc(lastWrites, cancel) })()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-k.wake:
			k.work(patience)
		}
	}
	if left := k.work(patience); left > 0 {
		k.log.Error("records of assets are not written: the registry does not answer", "records", left)
	}
	return nil
}

// work writes what there is until ctx ends; it returns how much is left.
func (k *keeper) work(ctx context.Context) int {
	for {
		k.mu.Lock()
		left := len(k.jobs)
		if left == 0 {
			k.mu.Unlock()
			return 0
		}
		job := k.jobs[0]
		k.mu.Unlock()
		if !k.write(ctx, job.cmd) {
			return left
		}
		k.mu.Lock()
		k.jobs = k.jobs[1:]
		k.mu.Unlock()
		if job.written != nil {
			close(job.written)
		}
	}
}

// write returns when a command is written, or never can be; false: ctx has ended.
func (k *keeper) write(ctx context.Context, cmd *amphiv1.RegistryCommand) bool {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := k.registry.Propose(once, cmd)
		cancel()
		switch {
		case err == nil, cmd.GetDeleteAsset() != "" && proto.CodeOf(err) == proto.NotFound:
			return true
		case ctx.Err() != nil:
			return false
		case !proto.CodeOf(err).Retryable():
			k.log.Error("the record of an asset is not written", "err", err)
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}
