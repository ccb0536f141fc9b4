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
