package signal

import (
	"fmt"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/api"
	"github.com/amphi-sfu/amphi/signal/webhook"
)

// Webhooks tells applications what happens, by HTTP; a webhook.Sender is one.
type Webhooks interface {
	api.Webhooks
	// Emit queues an event, and does not block.
	Emit(webhook.Event)
}

// hooks tells the world what the rooms do that this node owns.
type hooks struct{ *Server }

// Happened implements owner.Events.
func (h hooks) Happened(room, session string, ev *amphiv1.Event, who *amphiv1.Attendance) {
	if m := ev.GetMessage(); m != nil {
		if h.deps.Chat != nil {
			h.deps.Chat(room, m)
		}
		return
	}
	if h.deps.Webhooks == nil {
		return
	}
	kind, data := hookOf(ev, who)
	if kind == "" {
		return
	}
	data["room"], data["session_id"], data["node"], data["seq"] = room, session, h.cfg.Node, ev.GetSeq()
	// The same from every node that tells it.
	id := fmt.Sprintf("%s%s_%d", proto.HookPrefix, strings.TrimPrefix(session, proto.SessionPrefix), ev.GetSeq())
	h.deps.Webhooks.Emit(webhook.Event{ID: id, Type: kind, Room: room, Time: time.UnixMilli(ev.GetTimeMs()), Data: data})
}

// hookOf is an event as applications are told; an empty kind: they are not.
func hookOf(ev *amphiv1.Event, who *amphiv1.Attendance) (kind string, data map[string]any) {
	switch b := ev.GetBody().(type) {
	case *amphiv1.Event_SessionStarted:
		return "session.started", map[string]any{}
	case *amphiv1.Event_RoomEnded:
		return "session.ended", map[string]any{"reason": b.RoomEnded.GetReason(), "by": b.RoomEnded.GetBy()}
	case *amphiv1.Event_PeerJoined:
		return "peer.joined", peerData(b.PeerJoined.GetPeer())
	case *amphiv1.Event_PeerUpdated:
		if b.PeerUpdated.GetWhat() != amphiv1.PeerUpdated_WHAT_ROLE {
			return "", nil
		}
		data = peerData(b.PeerUpdated.GetPeer())
		data["previous_role"], data["by"] = b.PeerUpdated.GetPeer().GetPreviousRole(), b.PeerUpdated.GetBy()
		return "peer.role_changed", data
	case *amphiv1.Event_PeerLeft:
		data = map[string]any{"peer_id": b.PeerLeft.GetPeerId(), "reason": word(b.PeerLeft.GetReason(), "LEAVE_REASON_"), "by": b.PeerLeft.GetBy()}
		if who != nil {
			data["name"], data["user_id"], data["joined_ms"] = who.GetName(), who.GetUserId(), who.GetJoinedMs()
		}
		return "peer.left", data
	case *amphiv1.Event_StreamChanged:
		return streamHook(b.StreamChanged.GetStream())
	case *amphiv1.Event_OutputChanged:
		if b.OutputChanged.GetFiguresOnly() {
			return "", nil
		}
		return outputHook(ev, b.OutputChanged.GetOutput())
	}
	return "", nil
}

func peerData(p *amphiv1.Peer) map[string]any {
	return map[string]any{"peer_id": p.GetId(), "name": p.GetName(), "user_id": p.GetUserId(), "role": p.GetRole(), "joined_ms": p.GetJoinedMs()}
}

// word is an enum value's name in lower case without its prefix.
func word(v fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(v.String(), prefix))
}

var streamHooks = map[amphiv1.StreamState]string{
	amphiv1.StreamState_STREAM_STATE_STARTING: "stream.started", amphiv1.StreamState_STREAM_STATE_LIVE: "stream.live",
	amphiv1.StreamState_STREAM_STATE_STOPPED: "stream.stopped", amphiv1.StreamState_STREAM_STATE_FAILED: "stream.failed",
}

// streamHook tells states. Another layout is told as the state again, that a stream which starts has its address is not.
func streamHook(s *amphiv1.Stream) (string, map[string]any) {
	if s.GetState() == amphiv1.StreamState_STREAM_STATE_STARTING && s.GetUrl() != "" {
		return "", nil
	}
	return streamHooks[s.GetState()], map[string]any{"stream": s.GetName(), "url": s.GetUrl(), "failure": s.GetFailure(),
		"layout": word(s.GetLayout(), "LAYOUT_KIND_"), "started_by": s.GetStartedBy()}
}

func outputHook(ev *amphiv1.Event, o *amphiv1.Output) (string, map[string]any) {
	data := map[string]any{"output_id": o.GetId(), "kind": word(o.GetKind(), "OUTPUT_KIND_"), "stream": o.GetStream(), "state": word(o.GetState(), "OUTPUT_STATE_"),
		"destination": o.GetDestination(), "failure": o.GetFailure(), "bytes": o.GetBytes(), "started_by": o.GetStartedBy()}
	if o.GetKind() == amphiv1.OutputKind_OUTPUT_KIND_PUSH {
		data["url"], data["retries"] = o.GetUrl(), o.GetRetries()
		if o.GetState() == amphiv1.OutputState_OUTPUT_STATE_ACTIVE {
			return "push.live", data
		}
		return "push." + word(o.GetState(), "OUTPUT_STATE_"), data
	}
	switch {
	case o.GetState() == amphiv1.OutputState_OUTPUT_STATE_STARTING:
		return "", nil
	case o.GetState() == amphiv1.OutputState_OUTPUT_STATE_ACTIVE && o.GetActiveMs() != ev.GetTimeMs():
		return "recording.resumed", data
	case o.GetState() == amphiv1.OutputState_OUTPUT_STATE_ACTIVE:
		return "recording.started", data
	}
	return "recording." + word(o.GetState(), "OUTPUT_STATE_"), data
}
