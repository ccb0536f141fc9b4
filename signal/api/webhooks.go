package api

import (
	"context"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/webhook"
)

// Webhooks is the node's outbox.
type Webhooks interface {
	List(webhook.Query) []webhook.Kept
	Replay(webhook.Query) int
	Targets() []webhook.TargetState
}

type webhooks struct{ *services }

// maxChoices bounds each list of a WebhookQuery.
const maxChoices = 100

func (s webhooks) query(q *amphiv1.WebhookQuery) (webhook.Query, error) {
	if s.Webhooks == nil {
		return webhook.Query{}, proto.Errorf(proto.Unavailable, "this node has no webhooks")
	}
	if len(q.GetIds()) > maxChoices || len(q.GetTypes()) > maxChoices {
		return webhook.Query{}, proto.Errorf(proto.InvalidArgument, "more than %d ids or types", maxChoices)
	}
	out := webhook.Query{IDs: q.GetIds(), Room: key(q.GetRoom()), Types: q.GetTypes(), Undelivered: q.GetUndelivered()}
	if q.GetSinceMs() != 0 {
		out.Since = time.UnixMilli(q.GetSinceMs())
	}
	if q.GetUntilMs() != 0 {
		out.Until = time.UnixMilli(q.GetUntilMs())
	}
	return out, nil
}

// ListWebhookEvents answers a page of the events that this node keeps, the oldest first.
func (s webhooks) ListWebhookEvents(_ context.Context, req *connect.Request[amphiv1.ListWebhookEventsRequest]) (*connect.Response[amphiv1.ListWebhookEventsResponse], error) {
	q, err := s.query(req.Msg.GetQuery())
	if err != nil {
		return nil, err
	}
	if after := req.Msg.GetAfter(); after != "" {
		if q.After, err = strconv.ParseUint(after, 10, 64); err != nil {
			return nil, proto.Errorf(proto.InvalidArgument, "after is not what a page gave as next")
		}
	}
	n := page(req.Msg.GetLimit())
	q.Limit = n + 1
	kept := s.Webhooks.List(q)
	res := &amphiv1.ListWebhookEventsResponse{}
	if len(kept) > n {
		kept = kept[:n]
		res.Next = strconv.FormatUint(kept[n-1].Number, 10)
	}
	for _, k := range kept {
		res.Events = append(res.Events, &amphiv1.WebhookEvent{Id: k.ID, Type: k.Type, Room: k.Room, TimeMs: k.Time.UnixMilli(),
			Body: string(k.Body), Waiting: k.Waiting})
	}
	return connect.NewResponse(res), nil
}

// ReplayWebhookEvents sends kept events once more.
func (s webhooks) ReplayWebhookEvents(_ context.Context, req *connect.Request[amphiv1.ReplayWebhookEventsRequest]) (*connect.Response[amphiv1.ReplayWebhookEventsResponse], error) {
	q, err := s.query(req.Msg.GetQuery())
	if err != nil {
		return nil, err
	}
	if len(q.IDs) == 0 && q.Since.IsZero() {
		return nil, proto.Errorf(proto.InvalidArgument, "name ids, or a time since when")
	}
	return connect.NewResponse(&amphiv1.ReplayWebhookEventsResponse{Deliveries: uint32(s.Webhooks.Replay(q))}), nil
}

// ListWebhookTargets tells how the targets do.
func (s webhooks) ListWebhookTargets(context.Context, *connect.Request[amphiv1.ListWebhookTargetsRequest]) (*connect.Response[amphiv1.ListWebhookTargetsResponse], error) {
	res := &amphiv1.ListWebhookTargetsResponse{}
	if s.Webhooks == nil {
		return connect.NewResponse(res), nil
	}
	for _, t := range s.Webhooks.Targets() {
		out := &amphiv1.WebhookTarget{Url: t.URL, Waiting: uint32(t.Waiting), Delivered: t.Delivered, Failure: t.Failure}
		if !t.Failing.IsZero() {
			out.FailingSinceMs = t.Failing.UnixMilli()
		}
		res.Targets = append(res.Targets, out)
	}
	return connect.NewResponse(res), nil
}
