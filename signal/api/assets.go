package api

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Assets reaches the files that outputs left.
type Assets interface {
	// URL is an address at which whoever has it can fetch the file, for so long.
	URL(ctx context.Context, a *amphiv1.Asset, ttl time.Duration) (string, error)
	// Delete takes the file away; one that is not there is no error.
	Delete(ctx context.Context, a *amphiv1.Asset) error
}

const (
	defaultTTL = time.Hour
	maxTTL     = 7 * 24 * time.Hour
)

type assets struct{ *services }

func (s assets) asset(id string) (*amphiv1.Asset, error) {
	var found *amphiv1.Asset
	s.Registry.Read(func(r *amphiv1.Registry) { found = r.GetAssets()[id] })
	if found == nil {
		return nil, proto.Errorf(proto.NotFound, "there is no such asset")
	}
	return found, nil
}

// newestFirst orders assets; equal times go by id, so that pages fit together.
func newestFirst(a, b *amphiv1.Asset) int {
	return cmp.Or(cmp.Compare(b.GetCreatedMs(), a.GetCreatedMs()), cmp.Compare(a.GetId(), b.GetId()))
}

func wanted(a *amphiv1.Asset, q *amphiv1.ListAssetsRequest) bool {
	return (q.GetRoom() == "" || strings.EqualFold(q.GetRoom(), a.GetRoom())) &&
		(q.GetSessionId() == "" || q.GetSessionId() == a.GetSessionId()) &&
		(q.GetOutputId() == "" || q.GetOutputId() == a.GetOutputId()) &&
		(q.GetType() == 0 || q.GetType() == a.GetType()) && (q.GetState() == 0 || q.GetState() == a.GetState())
}

// ListAssets answers a page of assets, the newest first. A page goes on behind the asset that the one before ended with, also
// when that has been deleted since.
func (s assets) ListAssets(_ context.Context, req *connect.Request[amphiv1.ListAssetsRequest]) (*connect.Response[amphiv1.ListAssetsResponse], error) {
	after, err := assetMark(req.Msg.GetAfter())
	if err != nil {
		return nil, err
	}
	var all []*amphiv1.Asset
	s.Registry.Read(func(r *amphiv1.Registry) {
		for _, a := range r.GetAssets() {
			if wanted(a, req.Msg) && (after == nil || newestFirst(a, after) > 0) {
				all = append(all, a)
			}
		}
	})
	slices.SortFunc(all, newestFirst)
	res := &amphiv1.ListAssetsResponse{Assets: all}
	if n := page(req.Msg.GetLimit()); len(all) > n {
		last := all[n-1]
		res.Assets, res.Next = all[:n], time.UnixMilli(last.GetCreatedMs()).UTC().Format(markTime)+" "+last.GetId()
	}
	return connect.NewResponse(res), nil
}

const markTime = "20060102T150405.000"

// assetMark reads what a page gave as next; nil: there was no page before.
func assetMark(next string) (*amphiv1.Asset, error) {
	if next == "" {
		return nil, nil
	}
	at, id, _ := strings.Cut(next, " ")
	t, err := time.Parse(markTime, at)
	if err != nil {
		return nil, proto.Errorf(proto.InvalidArgument, "after is not what a page gave as next")
	}
	return &amphiv1.Asset{Id: id, CreatedMs: t.UnixMilli()}, nil
}

// GetAsset answers an asset's record.
func (s assets) GetAsset(_ context.Context, req *connect.Request[amphiv1.GetAssetRequest]) (*connect.Response[amphiv1.Asset], error) {
	a, err := s.asset(req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(a), nil
}

// DeleteAsset takes away the file, then its record.
func (s assets) DeleteAsset(ctx context.Context, req *connect.Request[amphiv1.DeleteAssetRequest]) (*connect.Response[amphiv1.DeleteAssetResponse], error) {
	a, err := s.asset(req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	switch a.GetState() {
	case amphiv1.AssetState_ASSET_STATE_RECORDING, amphiv1.AssetState_ASSET_STATE_PROCESSING, amphiv1.AssetState_ASSET_STATE_UPLOADING:
		return nil, proto.Errorf(proto.Conflict, "the asset is still being made; stop its recording and wait until it is ready")
	}
	if s.Assets == nil {
		return nil, proto.Errorf(proto.Unavailable, "this node has no storage")
	}
	if err := s.Assets.Delete(ctx, a); err != nil {
		return nil, err
	}
	if err := s.propose(ctx, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_DeleteAsset{DeleteAsset: a.GetId()}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.DeleteAssetResponse{}), nil
}

// PresignAsset answers an address at which whoever has it can fetch the file for a while.
func (s assets) PresignAsset(ctx context.Context, req *connect.Request[amphiv1.PresignAssetRequest]) (*connect.Response[amphiv1.PresignAssetResponse], error) {
	a, err := s.asset(req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	ttl := time.Duration(req.Msg.GetTtlS()) * time.Second
	switch {
	case ttl > maxTTL:
		return nil, proto.Errorf(proto.InvalidArgument, "ttl_s is at most %d", int(maxTTL.Seconds()))
	case a.GetState() != amphiv1.AssetState_ASSET_STATE_READY:
		return nil, proto.Errorf(proto.Conflict, "the asset is not ready")
	case s.Assets == nil:
		return nil, proto.Errorf(proto.Unavailable, "this node has no storage")
	}
	ttl = cmp.Or(ttl, defaultTTL)
	url, err := s.Assets.URL(ctx, a, ttl)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.PresignAssetResponse{Url: url, ExpiresMs: time.Now().Add(ttl).UnixMilli()}), nil
}
