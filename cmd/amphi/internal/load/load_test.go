package load

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

func testConfig(url string) Config {
	return Config{
		URL: url, Room: testRoom, Publishers: 1, Subscribers: 3, ChatRate: 20, Duration: 2 * time.Second, Settle: 500 * time.Millisecond,
		JoinRate: 50, Token: token, Roles: Roles{Publish: "speaker", Subscribe: "audience", Watch: "viewer"},
		ServerPID: os.Getpid(),
	}
}

func TestLoadMeasuresARealNode(t *testing.T) {
	t.Parallel()
	for _, traffic := range []string{Simulcast, Single, Steady, Audio} {
		t.Run(traffic, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			cfg := testConfig(startNode(t))
			cfg.Traffic = traffic
			rep, err := Run(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := rep.Text(&text); err != nil {
				t.Fatal(err)
			}
			t.Log("\n" + text.String())
			checkReport(t, rep)
			if _, err := json.Marshal(rep); err != nil {
				t.Error(err)
			}
		})
	}
}

func checkReport(t *testing.T, rep *Report) {
	t.Helper()
	if rep.Failed > 0 {
		t.Errorf("failures: %v", rep.Failures)
	}
	m := rep.Media
	least := uint64(3 * 50) // audio for half of the time
	if rep.Traffic != Audio {
		least = 3 * 150
		if rep.Join.Decodable.Count != 3 || rep.Join.Decodable.P95 > 10_000 {
			t.Errorf("joins: %+v", rep.Join)
		}
		if m.Delay.Count < 100 || m.Delay.P50 <= 0 || m.Delay.P50 > 500 {
			t.Errorf("delay: %+v", m.Delay)
		}
		if m.Frames < 3*20 {
			t.Errorf("frames: %+v", m)
		}
	}
	if m.Packets < least || m.LostPercent > 5 {
		t.Errorf("media: %+v", m)
	}
	// Four peers hear every message, but for those under way at the ends.
	if c := rep.Chat; c.Sent < 20 || c.Refused > 0 || c.Received < (c.Sent-10)*4 || c.Latency.P50 <= 0 || c.Latency.P50 > 1000 {
		t.Errorf("chat: %+v", c)
	}
	if s := rep.Server; s.Cores <= 0 || s.RSSMiB < 1 || s.PerPacketUS <= 0 {
		t.Errorf("server: %+v", s)
	}
}

func TestLoadReportsWhoCouldNotJoin(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := testConfig(startNode(t))
	cfg.Publishers, cfg.ChatRate, cfg.Settle = 0, 0, time.Millisecond
	cfg.Roles.Subscribe = "nobody"
	rep, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Failed != 3 || len(rep.Failures) != 3 || !strings.Contains(rep.Failures[0], "subscriber") {
		t.Errorf("%d failures: %v", rep.Failed, rep.Failures)
	}
}

func TestLoadRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*Config){
		func(c *Config) { c.Publishers = maxPublishers + 1 },
		func(c *Config) { c.Subscribers = -1 },
		func(c *Config) { c.Publishers, c.Subscribers, c.ChatRate = 0, 0, 0 },
		func(c *Config) { c.Duration = 0 },
		func(c *Config) { c.Traffic = "smoke" },
		func(c *Config) { c.Token = nil },
		func(c *Config) { c.Players = 1 },
		func(c *Config) { c.Pace = time.Second },
		func(c *Config) { c.URL = "http://127.0.0.1:1" },
	} {
		cfg := testConfig("http://127.0.0.1:1")
		cfg.Duration = time.Second
		change(&cfg)
		if _, err := Run(context.Background(), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestProcessIsRead(t *testing.T) {
	t.Parallel()
	if rss, err := parseStatm([]byte("9000 2000 30 4 0 5 0\n"), 4096); err != nil || rss != 2000*4096 {
		t.Errorf("%d, %v", rss, err)
	}
	for _, bad := range []string{"", "1", "1 x", "1 -2"} {
		if _, err := parseStatm([]byte(bad), 4096); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
	cpu, rss, err := process(os.Getpid())
	if err != nil || cpu <= 0 || rss < 1<<20 {
		t.Errorf("%v, %d, %v", cpu, rss, err)
	}
	if _, _, err := process(1 << 29); err == nil {
		t.Error("a process that is not there was read")
	}
}

func TestStampsTellWhenAPacketCame(t *testing.T) {
	t.Parallel()
	s := newStamps()
	pkt := []byte{0x80, 96, 0x12, 0x34, 0, 0, 0, 0, 1, 2, 3, 4, 0}
	s.note(pkt, 777)
	if got := s.take(0x01020304, 0x1234); got.UnixNano() != 777 {
		t.Errorf("came at %v", got)
	}
	if got := s.take(0x01020304, 0x1235); time.Since(got) > time.Second {
		t.Errorf("an unknown packet came at %v", got)
	}
	for _, other := range [][]byte{nil, {0x80}, append([]byte{0x80, 200}, pkt[2:]...), append([]byte{0x16}, pkt[1:]...)} {
		s.note(other, 888)
	}
	if got := s.take(0x01020304, 0x1234); got.UnixNano() != 777 {
		t.Errorf("what is no RTP changed it to %v", got)
	}
}
