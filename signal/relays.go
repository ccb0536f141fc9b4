package signal

import (
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// relay states the room's plan and tracks to what carries media between nodes, when either has changed.
func (e *edge) relay(tracks bool) {
	plan := e.room.Plan()
	if e.server.deps.Relays == nil || plan == e.plan && !tracks {
		return
	}
	e.plan, e.relayed = plan, true
	var list []RelayTrack
	for _, by := range e.onStage() {
		for _, t := range by.GetTracks() {
			list = append(list, RelayTrack{ID: t.GetId(), PeerID: by.GetId(), Kind: kindNames[t.GetKind()], Source: t.GetSource(), Muted: t.GetMuted()})
		}
	}
	e.server.deps.Relays.Update(e.room.Name(), plan, list)
}

var kindNames = map[amphiv1.Kind]string{amphiv1.Kind_KIND_AUDIO: "audio", amphiv1.Kind_KIND_VIDEO: "video"}
