package tracks

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ffmpeg(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("ffmpeg", append([]string{"-v", "error"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, &stderr)
	}
	return out
}

// encoded are the access units of 4 s of a picture that moves, a keyframe each second, 30 a second; or of a tone, 50 a second.
func encoded(t testing.TB, name codec.Name, size string) [][]byte {
	t.Helper()
	in := []string{"-f", "lavfi", "-i", "testsrc2=s=" + size + ":r=30:d=4", "-g", "30", "-b:v", "300k"}
	switch name {
	case codec.Opus:
		return ogg(ffmpeg(t, "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=4", "-c:a", "libopus", "-f", "ogg", "-"))
	case codec.VP8:
		return ivf(ffmpeg(t, append(in, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0", "-f", "ivf", "-")...))
	case codec.VP9:
		return ivf(ffmpeg(t, append(in, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0", "-f", "ivf", "-")...))
	case codec.AV1:
		return ivf(ffmpeg(t, append(in, "-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-lag-in-frames", "0", "-f", "ivf", "-")...))
	case codec.H264:
		b := ffmpeg(t, append(in, "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-x264-params", "scenecut=0:aud=1:repeat-headers=1", "-f", "h264", "-")...)
		var units [][]byte
		for _, u := range bytes.Split(b, []byte{0, 0, 0, 1, 9}) {
			if len(u) > 2 {
				units = append(units, u[1:]) // behind the delimiter's own byte
			}
		}
		return units
	}
	t.Fatal("no such codec")
	return nil
}

func ivf(b []byte) (units [][]byte) {
	for b = b[32:]; len(b) > 12; {
		size := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		units = append(units, b[12:12+size])
		b = b[12+size:]
	}
	return units
}

// ogg reads the packets of a stream, without the two that are heads.
func ogg(b []byte) (units [][]byte) {
	var open []byte
	for len(b) > 27 {
		table := b[27 : 27+int(b[26])]
		data := b[27+len(table):]
		for _, n := range table {
			open = append(open, data[:n]...)
			data = data[n:]
			if n < 255 {
				units, open = append(units, open), nil
			}
		}
		b = data
	}
	return units[2:]
}

// publisher makes the packets of one track, as an encoding hands them to its sinks.
type publisher struct {
	t       testing.TB
	codec   codec.Codec
	pay     rtp.Payloader
	look    codec.Inspector
	pool    *packet.Pool
	ext     uint64
	base    uint32 // RTP timestamp of time 0
	skew    time.Duration
	latency time.Duration
	begin   time.Time // wall clock of time 0
}

func newPublisher(t testing.TB, pool *packet.Pool, name codec.Name, begin time.Time) *publisher {
	t.Helper()
	p := &publisher{t: t, pool: pool, begin: begin, ext: 1000 + uint64(rand.Uint32()), base: rand.Uint32()}
	for _, c := range codec.Supported() {
		if c.Name == name && p.codec == (codec.Codec{}) {
			p.codec = c
		}
	}
	switch name {
	case codec.Opus:
		p.pay = &codecs.OpusPayloader{}
	case codec.VP8:
		p.pay = &codecs.VP8Payloader{EnablePictureID: true}
	case codec.VP9:
		p.pay = &codecs.VP9Payloader{}
	case codec.AV1:
		p.pay = &codecs.AV1Payloader{}
	case codec.H264:
		p.pay = &codecs.H264Payloader{}
	}
	return p
}

// packets of an access unit that was sampled at a time.
func (p *publisher) packets(unit []byte, at time.Duration) (list []*packet.Packet) {
	p.t.Helper()
	payloads := p.pay.Payload(1100, unit)
	for i, payload := range payloads {
		k := p.pool.Get()
		n := copy(k.Buffer(), payload)
		k.Payload = k.Buffer()[:n]
		k.ExtSeq, k.PayloadType, k.SSRC = p.ext, p.codec.PayloadType, 7
		k.Timestamp = p.stamp(at)
		k.Marker = i == len(payloads)-1 && p.codec.Name != codec.Opus
		k.ArrivalNS = int64(at + p.latency)
		if err := p.look.Inspect(p.codec, k); err != nil {
			p.t.Fatal(err)
		}
		p.ext++
		list = append(list, k)
	}
	return list
}

func (p *publisher) stamp(at time.Duration) uint32 {
	return p.base + uint32(int64(at)*int64(p.codec.ClockRate)/int64(time.Second))
}

// report of a time.
func (p *publisher) report(at time.Duration) packet.SenderReport {
	wall := p.begin.Add(at + p.skew)
	return packet.SenderReport{SSRC: 7, RTP: p.stamp(at), ArrivalNS: int64(at + p.latency),
		NTP: uint64(wall.Unix()-ntpEpoch)<<32 | uint64(wall.Nanosecond())<<32/uint64(time.Second)}
}

// stream is what ffprobe says of a file.
type stream struct {
	video, audio []float64 // times of frames
	codecs       []string
	width        int
	length       float64
}

func probe(t *testing.T, path string) stream {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "format=duration:stream=codec_name,width:packet=codec_type,pts_time", "-of", "json", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe %s: %v\n%s", filepath.Base(path), err, out)
	}
	var p struct {
		Format struct {
			Duration float64 `json:",string"`
		}
		Streams []struct {
			Codec string `json:"codec_name"`
			Width int
		}
		Packets []struct {
			Type string  `json:"codec_type"`
			Time float64 `json:"pts_time,string"`
		}
	}
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	s := stream{length: p.Format.Duration}
	for _, k := range p.Streams {
		s.codecs = append(s.codecs, k.Codec)
		s.width = max(s.width, k.Width)
	}
	for _, k := range p.Packets {
		if k.Type == "video" {
			s.video = append(s.video, k.Time)
		} else {
			s.audio = append(s.audio, k.Time)
		}
	}
	return s
}

// decodes has everything decoded, without a complaint.
func decodes(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-v", "warning", "-xerror", "-i", path, "-f", "null", "-").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("ffmpeg %s: %v\n%s", filepath.Base(path), err, out)
	}
}
