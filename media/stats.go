package media

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media/alloc"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/icetcp"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/udp"
)

// Reason says why a DownTrack is at its current layer.
type Reason string

// Reasons.
const (
	ReasonOK         Reason = "ok"
	ReasonSize       Reason = "size"             // as much as its size on the screen needs
	ReasonPreference Reason = "preference"       // the client asked for no more
	ReasonNotLoudest Reason = "not_loudest"      // others are spoken into, see Router.SetLoudest
	ReasonHidden     Reason = "hidden"           // the client does not show it
	ReasonMuted      Reason = "muted"            // by the server
	ReasonCodec      Reason = "codec"            // the client has no decoder for it
	ReasonLowestOnly Reason = "codec_layers"     // the client cannot be sent higher layers of this codec, as it did not offer the dependency descriptor
	ReasonNoMedia    Reason = "no_media"         // the publisher sends nothing
	ReasonNoLayer    Reason = "layer_not_sent"   // the publisher does not send the wanted encoding
	ReasonKeyframe   Reason = "waiting_keyframe" // it begins with the next keyframe, or the publisher was just asked for it
	ReasonBandwidth  Reason = "bandwidth"        // the client's link does not carry more
	ReasonNoSlot     Reason = "no_slot"          // the client has no free receiving section
	ReasonNoPath     Reason = "not_connected"
)

// DownTrackStats is the state of one subscribed track at one endpoint.
type DownTrackStats struct {
	TrackID string
	Mid     string
	Kind    codec.Kind
	Codec   string
	// Max is what the subscription asks for, Target what the allocator decided,
	// Current what is forwarded now.
	Max, Target, Current layer.Layer
	Reason               Reason
	Bitrate              uint64 // bits per second of what is forwarded now
	Packets, Bytes       uint64
	Retransmitted        uint64
	NACKMissed           uint64 // asked for, but not to be had any more
	Lost                 uint32 // as the client reports
	FractionLost         float64
	Jitter               time.Duration
	RTT                  time.Duration
	// Redundancy is how many earlier frames go with each packet of audio (RFC 2198).
	Redundancy int
}

// EncodingStats is the state of one stream of a publisher.
type EncodingStats struct {
	RID              string
	Spatial          int
	Codec            string
	Width, Height    int
	Bitrate          uint64 // bits per second
	Packets, Bytes   uint64
	Keyframes        uint64
	KeyframeRequests uint64
	Duplicates       uint64
	Recovered        uint64 // by retransmission
	Restarts         uint64 // of its sequence numbers or timestamps
	Live             bool
}

// UpTrackStats is the state of one published track.
type UpTrackStats struct {
	ID, Source, Origin string
	Kind               codec.Kind
	Muted              bool
	// Wanted is up to which encoding the publisher was told to send, -1 for none; it may
	// exceed the highest.
	Wanted    int
	Encodings []EncodingStats
}

// EndpointStats is the state of one endpoint.
type EndpointStats struct {
	ID                 string
	State              string
	Transport          string // udp, tcp, or empty
	RemoteAddr         string
	PacketsIn, BytesIn uint64
	// Drops counts what was dropped of what the client sent, by reason.
	Drops                map[string]uint64
	PacketsOut, BytesOut uint64
	Retransmitted        uint64
	Estimate             uint64 // bits per second towards the client, 0 when unknown
	DownTracks           []DownTrackStats
}

// RouterStats is the state of a room on this node.
type RouterStats struct {
	Room      string
	UpTracks  []UpTrackStats
	Endpoints []EndpointStats
	Speakers  []Speaker
}

// EngineStats is the state of the node's data plane.
type EngineStats struct {
	Routers   []RouterStats
	Endpoints int
	// Drops counts dropped packets by reason, those that never occurred too.
	Drops map[string]uint64
	// Pooled is how many packet buffers are in use.
	Pooled int64
	Socket udp.Stats
	// TCP is ICE-TCP's, zero without it.
	TCP icetcp.Stats
}

// outSnapshot is what the worker tells about an endpoint, a few times per second.
type outSnapshot struct {
	counts   sendCounts
	tracks   []DownTrackStats
	estimate uint64
}

// publish copies the worker's state for Stats.
func (ep *Endpoint) publish(o *outbound) {
	tracks := make([]DownTrackStats, 0, len(o.tracks))
	for _, dt := range o.tracks {
		if dt.track != nil {
			tracks = append(tracks, dt.stats())
		}
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	ep.changed = true
	ep.snapshot = outSnapshot{counts: o.sent, tracks: tracks, estimate: o.bw.estimate()}
}

func (dt *DownTrack) stats() DownTrackStats {
	c := &dt.counts
	s := DownTrackStats{
		TrackID: dt.track.id, Mid: dt.mid, Kind: dt.kind,
		Max: dt.share.Max, Target: dt.named(dt.sel.Target()), Current: dt.named(dt.sel.Current()),
		Packets: c.packets, Bytes: c.bytes, Retransmitted: c.retransmitted, NACKMissed: c.missed,
		Lost: c.lost, FractionLost: float64(c.fraction) / 256, RTT: c.rtt,
	}
	rate := time.Duration(90000)
	if dt.kind == codec.Audio {
		rate = 48000
	}
	if dt.wire.redundant() {
		s.Redundancy = dt.redundancy.depth
	}
	s.Jitter = time.Duration(c.jitter) * time.Second / rate
	if dt.source != nil {
		s.Codec = codec.ByPayloadType(dt.sourcePT).String()
	}
	now := dt.out.w.e.now()
	if dt.source != nil && dt.source.live(now) {
		_, l := dt.sel.Current()
		s.Bitrate = dt.source.rate(l)
	}
	s.Reason = dt.reason(s, now)
	return s
}

func (dt *DownTrack) reason(s DownTrackStats, now int64) Reason {
	switch {
	case dt.share.Reason == alloc.Hidden:
		return ReasonHidden
	case dt.track.muted.Load():
		return ReasonMuted
	case dt.track.quiet.Load():
		return ReasonNotLoudest
	case dt.counts.noCodec:
		return ReasonCodec
	case dt.share.Reason == alloc.Paused:
		return ReasonBandwidth
	case dt.track.best(maxEncodings, now) == nil && !dt.track.coming(now):
		return ReasonNoMedia
	case s.Current.Spatial != s.Target.Spatial || dt.source != nil && !dt.source.live(now) && dt.track.coming(now):
		return ReasonKeyframe
	}
	if dt.counts.lowestOnly {
		return ReasonLowestOnly
	}
	switch dt.share.Reason {
	case alloc.Bandwidth, alloc.Settling:
		return ReasonBandwidth
	case alloc.Unavailable:
		if dt.track.coming(now) {
			return ReasonKeyframe
		}
		return ReasonNoLayer
	case alloc.Size:
		return ReasonSize
	case alloc.Preference:
		return ReasonPreference
	}
	return ReasonOK
}

// Stats returns a snapshot, at most a quarter of a second old.
func (ep *Endpoint) Stats() EndpointStats {
	ep.in.mu.Lock()
	in := ep.in.counts
	ep.in.mu.Unlock()
	s := EndpointStats{ID: ep.id, PacketsIn: in.packets, BytesIn: in.bytes, Drops: in.drops()}
	if p := ep.path.Load(); p != nil {
		s.Transport = "udp"
		s.RemoteAddr = p.addr.String()
		if p.stream != nil {
			s.Transport = "tcp"
		}
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	out := ep.snapshot.counts
	s.State = ep.state.String()
	s.PacketsOut, s.BytesOut, s.Retransmitted = out.packets, out.bytes, out.retransmitted
	s.Estimate = ep.snapshot.estimate
	s.DownTracks = ep.downTracksLocked()
	return s
}

// downTracksLocked completes the worker's snapshot with what it does not know of:
// subscriptions without a slot, and tracks bound since.
func (ep *Endpoint) downTracksLocked() []DownTrackStats {
	var list []DownTrackStats
	for _, t := range ep.snapshot.tracks {
		if slices.ContainsFunc(ep.slots, func(sl *slot) bool { return sl.track != nil && sl.track.id == t.TrackID && sl.mid == t.Mid }) {
			list = append(list, t)
		}
	}
	for _, u := range ep.wantedLocked() {
		if slices.ContainsFunc(list, func(t DownTrackStats) bool { return t.TrackID == u.id }) {
			continue
		}
		t := DownTrackStats{
			TrackID: u.id, Kind: u.kind, Max: layer.None(), Target: layer.None(), Current: layer.None(), Reason: ReasonNoSlot,
		}
		if i := slices.IndexFunc(ep.slots, func(sl *slot) bool { return sl.track == u }); i >= 0 {
			t.Mid, t.Reason = ep.slots[i].mid, ReasonNoPath
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b DownTrackStats) int { return compareStrings(a.TrackID, b.TrackID) })
	return list
}

// tellQuality tells the observer about layers and reasons that changed.
func (ep *Endpoint) tellQuality() {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.closed || !ep.changed {
		return
	}
	ep.changed = false
	list := ep.downTracksLocked()
	same := func(a, b DownTrackStats) bool {
		return a.TrackID == b.TrackID && a.Max == b.Max && a.Target == b.Target && a.Current == b.Current && a.Reason == b.Reason
	}
	if slices.EqualFunc(list, ep.told.quality, same) {
		return
	}
	ep.told.quality = list
	ep.tell(func(o Observer) { o.TracksQuality(slices.Clone(list)) })
}

// Stats returns the state of the track.
func (u *UpTrack) Stats() UpTrackStats {
	s := UpTrackStats{ID: u.id, Source: u.source, Origin: u.origin, Kind: u.kind, Muted: u.Muted(), Wanted: int(u.demand.told.Load())}
	now := u.router.e.now()
	for _, enc := range u.Encodings() {
		s.Encodings = append(s.Encodings, enc.stats(now))
	}
	return s
}

func (e *Encoding) stats(now int64) EncodingStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	size := e.inspect.Size(layer.Top)
	live, rate := e.live(now), uint64(0)
	if live {
		rate = e.rates.Total()
	}
	return EncodingStats{
		RID: e.rid, Spatial: int(e.index), Codec: e.codec.String(), Width: size.Width, Height: size.Height,
		Bitrate: rate, Packets: e.counts.packets, Bytes: e.counts.bytes,
		Keyframes: e.counts.keyframes, KeyframeRequests: e.gate.Count(),
		Duplicates: e.counts.duplicates, Recovered: e.counts.recovered, Restarts: e.counts.restarts, Live: live,
	}
}

// Stats returns the state of the room on this node.
func (r *Router) Stats() RouterStats {
	s := RouterStats{Room: r.room}
	for _, u := range r.UpTracks() {
		s.UpTracks = append(s.UpTracks, u.Stats())
	}
	r.mu.Lock()
	endpoints := make([]*Endpoint, 0, len(r.endpoints))
	for ep := range r.endpoints {
		endpoints = append(endpoints, ep)
	}
	r.mu.Unlock()
	for _, ep := range endpoints {
		s.Endpoints = append(s.Endpoints, ep.Stats())
	}
	slices.SortFunc(s.Endpoints, func(a, b EndpointStats) int { return compareStrings(a.ID, b.ID) })
	r.speakers.mu.Lock()
	s.Speakers = slices.Clone(r.speakers.last)
	r.speakers.mu.Unlock()
	return s
}

// Stats returns the state of everything.
func (e *Engine) Stats() EngineStats {
	s := EngineStats{Drops: e.drops.snapshot(), Pooled: e.pool.Live(), Socket: e.conn.Stats()}
	if e.connector.tcp != nil {
		s.TCP = e.connector.tcp.Stats()
	}
	for _, r := range e.allRouters() {
		s.Routers = append(s.Routers, r.Stats())
	}
	slices.SortFunc(s.Routers, func(a, b RouterStats) int { return compareStrings(a.Room, b.Room) })
	e.mu.Lock()
	s.Endpoints = len(e.endpoints)
	e.mu.Unlock()
	return s
}

// drop is a reason for dropping a packet; its name is the metric label.
type drop uint8

const (
	dropUnknownSource drop = iota
	dropMalformed
	dropSRTPAuth
	dropSRTPReplay
	dropNoKeys
	dropUnknownSSRC
	dropTooManySSRCs
	dropMuted
	dropPayloadType
	dropPayload
	dropOversize
	dropDuplicate
	dropTooLate
	dropQueueFull
	dropRTCP
	dropSeal
	dropReuse
	dropNotConnected
	dropNACKMiss
	dropResendLimit
	dropJump
	dropDescriptor
	dropRateLimit
	dropRTCPFlood
	dropNACKFlood
	dropKeyframeFlood
	dropCollision
	dropFeedbackSSRC
	dropReport
	dropSTUN
	dropSTUNAuth
	dropSTUNSession
	drops
)

func (d drop) String() string {
	return [drops]string{
		"unknown_source", "malformed_rtp", "srtp_auth", "srtp_replay", "no_keys", "unknown_ssrc", "too_many_ssrcs",
		"muted", "payload_type", "payload", "oversize", "duplicate", "too_late", "queue_full", "malformed_rtcp",
		"seal", "nonce_reuse", "not_connected", "nack_miss", "resend_limit",
		"sequence_jump", "descriptor", "rate_limit", "rtcp_flood", "nack_flood", "keyframe_flood", "ssrc_collision",
		"feedback_ssrc", "sender_report",
		"malformed_stun", "stun_integrity", "stun_session",
	}[d]
}

// dropCounters counts drops by reason; safe for concurrent use.
type dropCounters [drops]atomic.Uint64

func (c *dropCounters) add(d drop) { c[d].Add(1) }

// snapshot returns the counts by reason, zero ones too.
func (c *dropCounters) snapshot() map[string]uint64 {
	m := make(map[string]uint64, drops)
	for i := range c {
		m[drop(i).String()] = c[i].Load()
	}
	return m
}
