package hls

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/record"
	"github.com/amphi-sfu/amphi/hls/storage"
)

// A recording of the real compositor's program in which the compositor is killed: no hole in it, picture and sound as long as each other, a thumbnail of a
// picture, and everything in the storage.
func TestRealRecordingThroughAKill(t *testing.T) {
	t.Parallel()
	path := buildCompositor(t)
	s := runOrigin(t, &room{}, func(c *Config) { c.CompositorPath, c.CompositorEnv = path, nil })
	disk, err := storage.NewDisk(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var stored, thumbnails, length atomic.Int64
	var phase atomic.Value
	var recorder *record.Recorder
	recorder, err = record.New(record.Config{
		Dir: t.TempDir(), Source: s.Origin,
		Thumbnail: func(ctx context.Context, b []byte) ([]byte, error) { return compose.Thumbnail(ctx, path, 320, b) },
		OnState:   func(_ string, st record.State) { phase.Store(st.Phase); length.Store(int64(st.Length)) },
		OnAsset: func(a record.Asset) {
			j, err := recorder.Job(a)
			if err != nil {
				t.Error(err)
				return
			}
			for _, f := range j.Files {
				if err := disk.Put(context.Background(), &storage.Upload{Key: f.Key, Path: f.Path}); err != nil {
					t.Error(err)
				}
			}
			if a.Type == record.Thumbnail {
				thumbnails.Add(1)
			}
			stored.Add(int64(len(j.Files)))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = recorder.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	s.start(StartRequest{Room: "demo", Stream: "main", Settings: Settings{Width: 320, Height: 180}})
	eventually(t, "a recording", func() bool {
		return recorder.Start(record.Request{ID: "rec", Room: "demo", Stream: "main"}) == nil
	})
	recorded := func() time.Duration { st, _ := recorder.State("rec"); return st.Length }
	eventually(t, "3 s", func() bool { return recorded() > 3*time.Second })
	skipped := skippedTicks(s)
	if err := syscall.Kill(s.Programs()[0].Composer.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	before := recorded()
	eventually(t, "3 s of another compositor", func() bool { return recorded() > before+3*time.Second })
	if s.Programs()[0].Composer.Exits != 1 {
		t.Errorf("%+v", s.Programs()[0].Composer)
	}
	if err := recorder.Stop("rec"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "files", func() bool { return phase.Load() == record.Stopped })
	if stored.Load() < 4 || thumbnails.Load() == 0 {
		t.Errorf("%d files stored, %d thumbnails", stored.Load(), thumbnails.Load())
	}
	file := filepath.Join(recorder.Dir("rec"), "180p.mp4")
	if out, err := exec.Command("ffmpeg", "-v", "warning", "-xerror", "-i", file, "-f", "null", "-").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("ffmpeg: %v\n%s", err, out)
	}
	out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "packet=codec_type,pts_time", "-of", "json", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Packets []struct {
			Type string  `json:"codec_type"`
			Time float64 `json:"pts_time,string"`
		}
	}
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	last, longest := map[string]float64{}, map[string]float64{}
	for _, k := range p.Packets {
		longest[k.Type] = max(longest[k.Type], k.Time-last[k.Type])
		last[k.Type] = k.Time
	}
	t.Logf("%.3f s of pictures, %.3f s of sound; longest from one to the next %.0f and %.0f ms", last["video"], last["audio"], longest["video"]*1000, longest["audio"]*1000)
	if d := last["video"] - last["audio"]; d > 0.1 || d < -0.1 || longest["audio"] > 0.065 { // up to two access units at the seam
		t.Errorf("pictures up to %v, sound up to %v; longest %v", last["video"], last["audio"], longest)
	}
	if longest["video"] > 0.2 && skipped+skippedTicks(s) == 0 { // a machine that is too busy leaves half a second or more out
		t.Errorf("%v between pictures", longest["video"])
	}
}

// skippedTicks is how many pictures the program's compositor left out for lack of time.
func skippedTicks(s *station) int64 {
	for _, p := range s.Programs() {
		return p.Drops()["compositor_tick_skipped"] + p.Drops()["compositor_tick_spared"]
	}
	return 0
}
