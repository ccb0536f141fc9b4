package movie

import (
	"encoding/binary"
	"time"
)

// ntpEpoch is 1900-01-01 in Unix seconds, negative.
const ntpEpoch = -2208988800

// AppendReference appends a box (prft, ISO 14496-12 section 8.16.5) that goes in front of a fragment and says when, by the
// wall clock, the sample of a track was there that has a time of the track.
func AppendReference(b []byte, track uint32, wall time.Time, at int64) []byte {
	return appendFull(b, "prft", 1, 0x18, func(b []byte) []byte {
		ns := uint64(wall.Nanosecond())
		b = u64(u32(b, track), uint64(wall.Unix()-ntpEpoch)<<32|ns<<32/uint64(time.Second))
		return u64(b, uint64(at))
	})
}

// parseReference reads a prft; the zero time when it is none.
func parseReference(body []byte) (wall time.Time) {
	_, _, b, err := full(body, 16)
	if err != nil {
		return time.Time{}
	}
	ntp := binary.BigEndian.Uint64(b[4:])
	ns := (ntp&0xffffffff*uint64(time.Second) + 1<<31) >> 32
	return time.Unix(int64(ntp>>32)+ntpEpoch, int64(ns)).UTC()
}
