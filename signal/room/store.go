package room

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// storeView is the session store as its events tell it.
type storeView struct {
	entries map[string]*pb.StoreEntry
	// bytes counts keys and values.
	bytes int
	// revision is the highest one ever given.
	revision uint64
}

func newStoreView(entries []*pb.StoreEntry) storeView {
	v := storeView{entries: make(map[string]*pb.StoreEntry, len(entries))}
	for _, e := range entries {
		v.set(e)
	}
	return v
}

func (v *storeView) set(e *pb.StoreEntry) {
	v.remove(e.GetKey())
	v.entries[e.GetKey()] = e
	v.bytes += size(e)
	v.revision = max(v.revision, e.GetRevision())
}

func (v *storeView) remove(key string) {
	if e := v.entries[key]; e != nil {
		v.bytes -= size(e)
		delete(v.entries, key)
	}
}

func size(e *pb.StoreEntry) int { return len(e.GetKey()) + len(e.GetValue()) }

func (v *storeView) apply(e *pb.StoreChanged) {
	if e.GetDeleted() {
		v.remove(e.GetEntry().GetKey())
		v.revision = max(v.revision, e.GetEntry().GetRevision())
		return
	}
	v.set(e.GetEntry())
}

// list is the whole store by key.
func (v *storeView) list() []*pb.StoreEntry {
	var all []*pb.StoreEntry
	for _, e := range v.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *pb.StoreEntry) int { return strings.Compare(a.GetKey(), b.GetKey()) })
	return all
}

// setStore writes or deletes one key. A durable key stays durable until it is deleted.
func (c *call) setStore(w *pb.SetStore) (*pb.Result, error) {
	if k := w.GetKey(); k == "" || len(k) > proto.MaxStoreKey || !utf8.ValidString(k) {
		return nil, proto.Errorf(proto.InvalidArgument, "a key is 1 to %d bytes of UTF-8", proto.MaxStoreKey)
	}
	if !slices.ContainsFunc(c.may.GetWriteStore(), func(p string) bool { return strings.HasPrefix(w.GetKey(), p) }) {
		return nil, denied("write this key")
	}
	old := c.store.entries[w.GetKey()]
	if w.IfRevision != nil && w.GetIfRevision() != old.GetRevision() {
		return nil, proto.Errorf(proto.Conflict, "the key is at revision %d", old.GetRevision())
	}
	if w.Value == nil {
		return deleteKey(c, old), nil
	}
	if err := checkValue(c, w, old); err != nil {
		return nil, err
	}
	return changeKey(c, &pb.StoreEntry{Key: w.GetKey(), Value: w.GetValue(), Durable: w.GetDurable() || old.GetDurable()}, false), nil
}

func checkValue(c *call, w *pb.SetStore, old *pb.StoreEntry) error {
	limits := c.template.GetLimits()
	if most := orDefault(limits.GetMaxStoreValueBytes(), defaultStoreValue); len(w.GetValue()) > most {
		return proto.Errorf(proto.MessageTooLarge, "the value is longer than %d bytes", most)
	}
	if !utf8.ValidString(w.GetValue()) || !json.Valid([]byte(w.GetValue())) {
		return proto.Errorf(proto.InvalidArgument, "the value is not JSON")
	}
	if most := orDefault(limits.GetMaxStoreKeys(), defaultStoreKeys); old == nil && len(c.store.entries) >= most {
		return proto.Errorf(proto.LimitExceeded, "the store has its %d keys", most)
	}
	grown := c.store.bytes + len(w.GetKey()) + len(w.GetValue())
	if old != nil {
		grown -= size(old)
	}
	if most := orDefault(limits.GetMaxStoreBytes(), defaultStoreBytes); grown > most {
		return proto.Errorf(proto.LimitExceeded, "the store would be larger than %d bytes", most)
	}
	return nil
}

func orDefault(limit uint32, otherwise int) int {
	if limit == 0 {
		return otherwise
	}
	return int(limit)
}

func deleteKey(c *call, old *pb.StoreEntry) *pb.Result {
	if old == nil {
		return &pb.Result{Body: &pb.Result_Store{Store: &pb.StoreResult{}}}
	}
	return changeKey(c, &pb.StoreEntry{Key: old.GetKey(), Durable: old.GetDurable()}, true)
}

// changeKey gives an entry its revision, which no other entry ever had, and says that it changed.
func changeKey(c *call, e *pb.StoreEntry, deleted bool) *pb.Result {
	e.Revision = max(c.seq, c.store.revision) + 1
	e.UpdatedBy, e.UpdatedMs = c.by(), c.now.UnixMilli()
	c.emit(&pb.Event{Body: &pb.Event_StoreChanged{StoreChanged: &pb.StoreChanged{Entry: e, Deleted: deleted}}})
	return &pb.Result{Body: &pb.Result_Store{Store: &pb.StoreResult{Revision: e.GetRevision()}}}
}
