package reception

import (
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	t.Parallel()
	const ms = int64(time.Millisecond)
	var s State
	if s.Started() {
		t.Fatal("started before the first packet")
	}
	now := 1000 * ms
	for i := range 100 { // across the wrap, every tenth lost, evenly spaced
		now += 20 * ms
		if i%10 != 5 {
			s.Note(uint16(65500+i), uint32(i)*960, now, 48000)
		}
	}
	s.SenderReport(0x0000_1234_5678_0000, now)
	r := s.Report(7, now+500*ms)
	if r.SSRC != 7 || r.TotalLost != 10 || r.FractionLost != 25 || r.LastSequenceNumber != 1<<16+(65500+99)&0xffff {
		t.Fatalf("%+v", r)
	}
	if r.LastSenderReport != 0x12345678 || r.Delay != 1<<15 {
		t.Fatalf("last report %x, delay %d", r.LastSenderReport, r.Delay)
	}
	if r.Jitter > 1 {
		t.Fatalf("jitter %d of a stream without any", r.Jitter)
	}
	for i := range 100 { // now with 10 ms of jitter, nothing lost
		now += 20 * ms
		s.Note(uint16(65600+i), uint32(100+i)*960, now+int64(i%2)*10*ms, 48000)
	}
	r = s.Report(7, now)
	if r.FractionLost != 0 || r.TotalLost != 10 {
		t.Fatalf("%+v", r)
	}
	if r.Jitter < 400 || r.Jitter > 500 { // 480 in units of the clock
		t.Fatalf("jitter %d", r.Jitter)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	var c Clock
	at := time.Date(2026, 1, 2, 3, 4, 5, 500_000_000, time.UTC)
	if got := c.Translate(1<<32, at); got != NTP(at) {
		t.Fatalf("first: %x, want %x", got, NTP(at))
	}
	// A report that took longer does not move the clock.
	if got := Between(c.Translate(2<<32, at.Add(1200*time.Millisecond)), NTP(at)); got != int64(time.Second) {
		t.Fatalf("second: %v later", time.Duration(got))
	}
	if d := Between(NTP(at), NTP(at.Add(250*time.Millisecond))); d != -int64(250*time.Millisecond) {
		t.Fatalf("between: %v", time.Duration(d))
	}
}

func TestReportAfterJumps(t *testing.T) {
	t.Parallel()
	var s State
	now := int64(time.Second)
	note := func(seq uint16) {
		now += int64(20 * time.Millisecond)
		s.Note(seq, uint32(now*48/1e6), now, 48000)
	}
	for i := range 100 {
		note(uint16(i))
		note(uint16(i) + 1<<15) // lies
	}
	if r := s.Report(7, now); r.TotalLost != 0 || r.FractionLost != 0 || uint16(r.LastSequenceNumber) != 99 {
		t.Fatalf("after numbers that lie: %+v", r)
	}
	for i := range 100 {
		note(uint16(i) + 30000) // a new sequence
	}
	if r := s.Report(7, now); r.TotalLost > 1 || r.FractionLost > 3 || uint16(r.LastSequenceNumber) != 30099 {
		t.Fatalf("after a new beginning: %+v", r)
	}
	s.Note(30100, 1<<31, now, 48000)
	if r := s.Report(7, now); r.Jitter > maxTransit/16+1 {
		t.Fatalf("jitter %d after one timestamp that lies", r.Jitter)
	}
}

func TestClockThatIsSet(t *testing.T) {
	t.Parallel()
	var c Clock
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, ntp := range []uint64{0, 1 << 63, 1<<64 - 1, 5 << 32, 1, NTP(at)} {
		at = at.Add(time.Second)
		if d := Between(c.Translate(ntp, at), NTP(at)); d > maxClockError || d < -maxClockError {
			t.Fatalf("%x is translated to a time %v off", ntp, time.Duration(d))
		}
	}
}

func FuzzReception(f *testing.F) {
	f.Add(uint16(1), uint32(2), int64(3), uint64(4))
	f.Add(uint16(65535), uint32(1<<31), int64(1)<<40, uint64(1)<<63)
	f.Fuzz(func(t *testing.T, seq uint16, ts uint32, passed int64, ntp uint64) {
		var s State
		var c Clock
		now := int64(time.Second)
		for i := range 20 {
			now += passed & 0xffffffff
			s.Note(seq*uint16(i), ts*uint32(i*i), now, 90000)
			s.SenderReport(ntp*uint64(i), now)
			arrival := time.Unix(0, now)
			if d := Between(c.Translate(ntp*uint64(i), arrival), NTP(arrival)); d > maxClockError || d < -maxClockError {
				t.Fatalf("time is %v off", time.Duration(d))
			}
			if r := s.Report(1, now); r.TotalLost >= 1<<23 {
				t.Fatalf("%+v", r)
			}
		}
	})
}
