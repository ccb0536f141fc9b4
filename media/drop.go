package media

import "sync/atomic"

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
	dropNotConnected
	dropNACKMiss
	dropResendLimit
	drops
)

func (d drop) String() string {
	return [drops]string{
		"unknown_source", "malformed_rtp", "srtp_auth", "srtp_replay", "no_keys", "unknown_ssrc", "too_many_ssrcs",
		"muted", "payload_type", "payload", "oversize", "duplicate", "too_late", "queue_full", "malformed_rtcp",
		"seal", "not_connected", "nack_miss", "resend_limit",
	}[d]
}

// dropCounters counts drops by reason; safe for concurrent use.
type dropCounters [drops]atomic.Uint64

func (c *dropCounters) add(d drop) { c[d].Add(1) }

// snapshot returns the reasons that occurred.
func (c *dropCounters) snapshot() map[string]uint64 {
	m := map[string]uint64{}
	for i := range c {
		if n := c[i].Load(); n > 0 {
			m[drop(i).String()] = n
		}
	}
	return m
}
