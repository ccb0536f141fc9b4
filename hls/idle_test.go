package hls

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/validate"
	"github.com/amphi-sfu/amphi/media/codec"
)

// A variant that nobody asks for idles, by the real compositor; it is back soon after the first request, and a stream with all of
// this, and a kill while it idles, keeps the rules.
func TestIdleVariants(t *testing.T) {
	t.Parallel()
	r := &room{}
	cam := &encoding{codec: codec.ByPayloadType(102), ssrc: 7, w: 320, h: 180}
	r.set("cam", cam)
	path := buildCompositor(t)
	s := runOrigin(t, r, func(c *Config) { c.CompositorPath, c.CompositorEnv, c.IdleAfter = path, nil, 2*time.Second })
	ctx, cancel := context.WithCancel(context.Background())
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		camera(ctx, t, cam)
	}()
	t.Cleanup(func() { cancel(); <-sent })
	s.start(StartRequest{
		Room: "demo", Stream: "main", Settings: Settings{Width: 480, Height: 270, Segment: time.Second, Window: 6, Variants: []packager.Variant{
			{Name: "high", Bitrate: 600_000}, {Name: "mid", Width: 320, Height: 180, Bitrate: 400_000}, {Name: "low", Width: 160, Height: 90, Bitrate: 200_000},
		}},
		Stage: Stage{Peers: []StagePeer{{ID: "p", Name: "Pia", Video: StageTrack{ID: "cam"}}}},
	})
	const list = "/v1/hls/demo/main/"
	watched := func(names ...string) func() bool {
		return func() bool {
			s.playlist(list + "low/index.m3u8")
			return slices.Equal(s.Programs()[0].Idle, names)
		}
	}
	eventually(t, "all idle but the lowest", watched("high", "mid"))
	rates := func() []float64 {
		before := s.Programs()[0].Composer.Compositor
		after := before
		eventually(t, "later statistics", func() bool {
			s.playlist(list + "low/index.m3u8")
			after = s.Programs()[0].Composer.Compositor
			return after != nil && before != nil && after.Tick >= before.Tick+60
		})
		var out []float64
		for i := range after.Variants {
			out = append(out, float64(after.Variants[i].Frames-before.Variants[i].Frames)/float64(after.Ticks-before.Ticks))
		}
		return out
	}
	rates()                                                           // the first statistics may be from before
	if got := rates(); got[0] > 0.3 || got[1] > 0.3 || got[2] < 0.7 { // one in 15; encoders may be some pictures behind
		t.Errorf("pictures a tick: %v", got)
	}
	s.wakes(t, list+"high/")
	eventually(t, "idle again", watched("high", "mid"))
	if err := syscall.Kill(s.Programs()[0].Composer.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next compositor", func() bool {
		s.playlist(list + "low/index.m3u8")
		st := s.Programs()[0]
		return st.Composer.Exits == 1 && st.Composer.Compositor != nil && st.Composer.Compositor.Ticks > 30 && len(st.Idle) == 2
	})
	follow, stop := context.WithTimeout(context.Background(), 6*time.Second)
	defer stop()
	c, err := validate.Follow(follow, validate.Config{URL: s.url + list + "index.m3u8"})
	if err != nil {
		t.Fatal(err)
	}
	faults, _ := c.Faults()
	for _, f := range faults {
		t.Error(f)
	}
	t.Logf("%+v", c.Stats())
	if st := s.Programs()[0]; len(st.Idle) > 0 || st.Malformed > 0 || st.Packager.Gaps > 0 {
		t.Errorf("idle %v, %d malformed, %d gaps", st.Idle, st.Malformed, st.Packager.Gaps)
	}
}

// wakes measures from the first request of an idle playlist to its first whole part, which must be one of the next few.
func (s *station) wakes(t *testing.T, path string) {
	t.Helper()
	begun := time.Now()
	seen := map[string]bool{}
	first := time.Duration(0)
	poor := 0 // parts that came meanwhile
	eventually(t, "a part with all its pictures", func() bool {
		p := s.playlist(path + "index.m3u8")
		if p == nil || p.Map == nil {
			return false
		}
		_, b := s.get(path + p.Map.URI)
		init, err := validate.ParseInit([]byte(b))
		if err != nil {
			t.Fatal(err)
		}
		before := first == 0
		if before {
			first = time.Since(begun)
		}
		for i := range p.Parts {
			uri := p.Parts[i].URI
			if seen[uri] || strings.Contains(uri, "init") {
				continue
			}
			seen[uri] = true
			if before {
				continue
			}
			_, b := s.get(path + uri)
			frags, err := validate.ParseFragments([]byte(b), init)
			if err != nil {
				t.Fatal(err)
			}
			if frags[0].Samples >= 14 {
				return true
			}
			poor++
		}
		return false
	})
	t.Logf("the playlist was there after %v, a whole part after %v and %d others", first, time.Since(begun), poor)
	if poor > 5 {
		t.Errorf("a whole part after %d others", poor)
	}
}
