package tracks

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/packet"
)

func ntp(wall int64) uint64 {
	return uint64(wall/int64(time.Second)-ntpEpoch)<<32 | uint64(wall%int64(time.Second))<<32/uint64(time.Second)
}

// Over an hour in which a timestamp wraps and the publisher's clock runs 100 ppm fast, times stay within 10 ms of the reports.
func TestClock(t *testing.T) {
	t.Parallel()
	c := clock{rate: 90000}
	begin := int64(1_800_000_000) * int64(time.Second)
	worst := int64(0)
	for i := range int64(36000) { // every 100 ms
		real := i * int64(100*time.Millisecond)
		ts := uint32(1<<32-1000) + uint32(i*9000*10001/10000)
		if i%50 == 3 { // every 5 s
			c.report(packet.SenderReport{NTP: ntp(begin + real), RTP: ts}, i > 3)
		}
		arrived := begin + real + int64(50*time.Millisecond)
		c.begin(ts, arrived)
		off := c.at(ts, arrived) - begin - real
		if i > 3 {
			worst = max(worst, off, -off)
		}
	}
	if worst > int64(10*time.Millisecond) {
		t.Errorf("%v off", time.Duration(worst))
	}
}

// Timestamps that go on somewhere else keep their distance to the arrival.
func TestClockOfAnotherStream(t *testing.T) {
	t.Parallel()
	c := clock{rate: 48000}
	c.report(packet.SenderReport{NTP: ntp(int64(100 * time.Second)), RTP: 5000}, false)
	c.begin(5000, 0)
	if at := c.at(5000+48000, int64(101*time.Second+300*time.Millisecond)); at != int64(101*time.Second) {
		t.Errorf("at %v", time.Duration(at))
	}
	if at := c.at(4_000_000_000, int64(102*time.Second+300*time.Millisecond)); at != int64(102*time.Second) || c.locked {
		t.Errorf("at %v", time.Duration(at))
	}
	if at := c.at(4_000_048_000, int64(103*time.Second+300*time.Millisecond)); at != int64(103*time.Second) {
		t.Errorf("at %v", time.Duration(at))
	}
}
