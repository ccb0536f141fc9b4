package fmp4_test

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	mp4 "github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/hlstest"
)

func clip(t testing.TB) *hlstest.Clip {
	t.Helper()
	c, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// video packages the clip into an init section and four parts of 15 pictures.
func video(t testing.TB) (fmp4.Init, [][]byte) {
	t.Helper()
	var init fmp4.Init
	var parts [][]byte
	var samples []fmp4.Sample
	for i, b := range clip(t).Video {
		au, err := fmp4.ParseAnnexB(b)
		if err != nil {
			t.Fatal(err)
		}
		if au.Key != (i == 0) {
			t.Fatalf("picture %d: key %v", i, au.Key)
		}
		if i == 0 {
			if init, err = fmp4.VideoInit(au.SPS, au.PPS, 90000, 300_000); err != nil {
				t.Fatal(err)
			}
		}
		samples = append(samples, fmp4.Sample{Data: au.Data, Duration: 3000, Key: au.Key})
		if len(samples) == 15 {
			p, err := fmp4.Part(uint32(len(parts)+1), uint64(i-14)*3000+900_000, samples)
			if err != nil {
				t.Fatal(err)
			}
			parts, samples = append(parts, p), nil
		}
	}
	return init, parts
}

func TestVideo(t *testing.T) {
	t.Parallel()
	init, parts := video(t)
	if init.Codecs != "avc1.64000d" || init.Width != hlstest.Width || init.Height != hlstest.Height || init.Timescale != 90000 {
		t.Errorf("init %+v", init)
	}
	var in mp4.Init
	if err := in.Unmarshal(bytes.NewReader(init.Data)); err != nil || len(in.Tracks) != 1 {
		t.Fatalf("init: %v", err)
	}
	for i, p := range parts {
		var read mp4.Parts
		if err := read.Unmarshal(p); err != nil || len(read) != 1 {
			t.Fatalf("part %d: %v", i, err)
		}
		track := read[0].Tracks[0]
		if track.BaseTime != 900_000+uint64(i)*45000 || len(track.Samples) != 15 || track.Samples[0].IsNonSyncSample != (i > 0) {
			t.Errorf("part %d: base %d, %d samples", i, track.BaseTime, len(track.Samples))
		}
	}
}

// An independent demuxer and decoder take init and parts.
func TestVideoDecodes(t *testing.T) {
	t.Parallel()
	init, parts := video(t)
	out := ffprobe(t, append([][]byte{init.Data}, parts...), "frame=pts_time,pict_type")
	if n := strings.Count(out, "frame,"); n != hlstest.Frames || !strings.Contains(out, "frame,10.000000,I") || !strings.Contains(out, "frame,11.966667,P") {
		t.Errorf("%d frames:\n%s", n, out)
	}
}

func TestAudioDecodes(t *testing.T) {
	t.Parallel()
	init, err := fmp4.AudioInit(hlstest.AudioConfig(), 64_000)
	if err != nil || init.Codecs != "mp4a.40.2" || init.Timescale != 48000 {
		t.Fatalf("%+v, %v", init, err)
	}
	var samples []fmp4.Sample
	for _, b := range clip(t).Audio[:94] {
		samples = append(samples, fmp4.Sample{Data: b, Duration: 1024, Key: true})
	}
	part, err := fmp4.Part(1, 480_000, samples)
	if err != nil {
		t.Fatal(err)
	}
	out := ffprobe(t, [][]byte{init.Data, part}, "frame=pts_time,nb_samples")
	if n := strings.Count(out, ",1024"); n != 94 || !strings.Contains(out, "frame,10.000000,1024") {
		t.Errorf("%d frames:\n%s", n, out)
	}
}

// Silence decodes, and is silent.
func TestSilence(t *testing.T) {
	t.Parallel()
	for channels, config := range map[string][]byte{"mono": {0x11, 0x88}, "stereo": {0x11, 0x90}} {
		init, err := fmp4.AudioInit(config, 64_000)
		if err != nil {
			t.Fatal(err)
		}
		samples := make([]fmp4.Sample, 50)
		for i := range samples {
			samples[i] = fmp4.Sample{Data: fmp4.SilentAAC(config), Duration: 1024, Key: true}
		}
		part, err := fmp4.Part(1, 0, samples)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("ffmpeg", "-v", "error", "-i", "-", "-f", "s16le", "-")
		cmd.Stdin = bytes.NewReader(append(init.Data, part...))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		pcm, err := cmd.Output()
		if err != nil || stderr.Len() > 0 || len(pcm) < 49*1024*2 || len(bytes.Trim(pcm, "\x00")) != 0 {
			t.Errorf("%s: %d bytes, %d of them not 0, %v\n%s", channels, len(pcm), len(bytes.Trim(pcm, "\x00")), err, &stderr)
		}
	}
	if fmp4.SilentAAC([]byte{0x11, 0xb0}) != nil || fmp4.SilentAAC(nil) != nil {
		t.Error("silence for what is not mono or stereo")
	}
}

func ffprobe(t *testing.T, files [][]byte, show string) string {
	t.Helper()
	cmd := exec.Command("ffprobe", "-v", "error", "-show_entries", show, "-of", "csv", "-")
	cmd.Stdin = bytes.NewReader(bytes.Join(files, nil))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe: %v\n%s", err, out)
	}
	return string(out)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	if _, err := fmp4.VideoInit(nil, nil, 90000, 1); !errors.Is(err, fmp4.ErrNoParameterSets) {
		t.Errorf("no parameter sets: %v", err)
	}
	if _, err := fmp4.VideoInit([]byte{0x67, 1, 2, 3}, []byte{0x68}, 90000, 1); err == nil {
		t.Error("broken SPS accepted")
	}
	if _, err := fmp4.AudioInit([]byte{0xff}, 1); err == nil {
		t.Error("broken audio configuration accepted")
	}
	if _, err := fmp4.Part(1, 0, nil); err == nil {
		t.Error("empty part accepted")
	}
	if _, err := fmp4.ParseAnnexB([]byte{0, 0, 0, 1, 9, 0xf0}); err == nil {
		t.Error("access unit without a slice accepted")
	}
}

func FuzzParseAnnexB(f *testing.F) {
	c := clip(f)
	f.Add(c.Video[0])
	f.Add(c.Video[1])
	f.Add([]byte{0, 0, 1, 0x67, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		au, err := fmp4.ParseAnnexB(b)
		if err != nil {
			return
		}
		if len(au.Data) < 5 {
			t.Fatal("no slice")
		}
		if _, err := fmp4.VideoInit(au.SPS, au.PPS, 90000, 1000); err != nil {
			return
		}
		if _, err := fmp4.Part(1, 0, []fmp4.Sample{{Data: au.Data, Duration: 1}}); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkPart(b *testing.B) {
	samples := make([]fmp4.Sample, 15)
	for i := range samples {
		samples[i] = fmp4.Sample{Data: make([]byte, 10_000), Duration: 3000, Key: i == 0}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fmp4.Part(1, 0, samples); err != nil {
			b.Fatal(err)
		}
	}
}
