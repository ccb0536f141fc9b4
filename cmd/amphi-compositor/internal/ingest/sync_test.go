package ingest

import (
	"testing"
	"time"
)

func TestSyncIsOneForAllStreams(t *testing.T) {
	t.Parallel()
	s := NewSync()
	audio, video := s.join(), s.join()
	s.observe(video, int64(90*ms), true, 0)
	s.observe(audio, int64(40*ms), true, 0)
	if a, v := s.due(audio, 0), s.due(video, 0); a != v || a != 160*ms {
		t.Fatalf("audio %v, video %v", a, v)
	}
	s.leave(audio)
	for now := time.Duration(0); now < time.Minute; now += 100 * ms {
		s.observe(video, int64(90*ms), true, now)
	}
	if v := s.due(video, 0); v != 210*ms {
		t.Fatalf("the one that is left: %v", v)
	}
}

func TestSyncDistrustsNonsense(t *testing.T) {
	t.Parallel()
	s := NewSync()
	audio, video := s.join(), s.join()
	s.observe(audio, int64(40*ms), true, 0)
	s.observe(video, int64(time.Hour), true, 0) // its sender reports are from another clock
	if a, v := s.due(audio, 0), s.due(video, int64(-time.Hour)); a != 160*ms || v != 120*ms {
		t.Fatalf("audio %v, video %v", a, v)
	}
}

func TestSyncWithoutReports(t *testing.T) {
	t.Parallel()
	s := NewSync()
	a, v := s.join(), s.join()
	s.observe(a, int64(40*ms), true, 0)
	s.observe(v, int64(7*time.Second), false, 0)
	if at := s.due(v, 0); at != 7*time.Second+MinDelay {
		t.Fatalf("plays by arrival: %v", at)
	}
	if at := s.due(a, 0); at != 160*ms {
		t.Fatalf("and disturbs nobody: %v", at)
	}
	s.observe(v, int64(50*ms), true, ms) // the first report
	if at := s.due(v, 0); at != 160*ms {
		t.Fatalf("joins the others at once: %v", at)
	}
}

func TestDelayAdapts(t *testing.T) {
	t.Parallel()
	s := NewSync()
	now := time.Duration(0)
	run := func(d time.Duration, spare func(i int) time.Duration) {
		for i := range int(d / (20 * ms)) {
			now += 20 * ms
			s.arrived(spare(i), now)
		}
	}
	run(time.Minute, func(int) time.Duration { return 100 * ms })
	if s.Delay() != MinDelay {
		t.Fatalf("a calm network: %v", s.Delay())
	}
	run(11*time.Second, func(i int) time.Duration {
		if i%20 == 0 {
			return -5 * ms
		}
		return 80 * ms
	})
	if s.Delay() != MinDelay+2*delayStep {
		t.Fatalf("5 %% late for two windows: %v", s.Delay())
	}
	run(2*time.Minute, func(i int) time.Duration { return -5 * ms })
	if s.Delay() != MaxDelay {
		t.Fatalf("never more than %v: %v", MaxDelay, s.Delay())
	}
	run(20*time.Minute, func(int) time.Duration { return 200 * ms })
	if s.Delay() != MinDelay {
		t.Fatalf("calm again: %v", s.Delay())
	}
	run(time.Minute, func(int) time.Duration { return -10 * time.Second })
	if s.Delay() != MinDelay {
		t.Fatalf("no delay helps against stuck frames: %v", s.Delay())
	}
}
