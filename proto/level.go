package proto

import amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"

// Level is the circle that a role stands in, as PROTOCOL.md section 4 has it: 1 publishes, 2 receives
// over WebRTC or nothing, 3 watches a stream. Role.level is ignored: the level follows from the rest.
func Level(r *amphiv1.Role) uint32 {
	p := r.GetPublish()
	switch {
	case p.GetAudio() || p.GetVideo() || p.GetScreen():
		return 1
	case r.GetSubscribe().GetDelivery() == amphiv1.Delivery_DELIVERY_HLS:
		return 3
	}
	return 2
}
