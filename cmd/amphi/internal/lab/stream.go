package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/peer"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/player"
	"github.com/amphi-sfu/amphi/media/netem"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

const (
	// streamLoss is of what passes between a stream's publisher's node and the node that composes it.
	streamLoss = 0.05
	// streamCalm and streamLossy are how long the stream is watched without and with that loss.
	streamCalm, streamLossy = 10 * time.Second, 20 * time.Second
	// lowest is more than the variants of any stream: the player takes the last.
	lowest = 99
	// pictureRate is the publisher's, per second.
	pictureRate = 30
	// still is for how long a picture stands that counts as frozen: the publisher's are 33 ms apart.
	still = 100 * time.Millisecond
	// freezeLimit is the longest that loss may stop the picture, lostLimit the share of the pictures that it may cost, in percent.
	freezeLimit, lostLimit = time.Second, 5
	// partLimit is how much later loss may bring a part.
	partLimit = 500 * time.Millisecond
)

// streamEnds are the node of a stream's publisher, that which composes it, in another region, and a third for those who play it.
func (l *Lab) streamEnds() (home, composer, edge *process, err error) {
	for _, p := range l.nodes {
		if contains(p.Roles, "origin") {
			composer = p
			break
		}
	}
	if composer == nil {
		return nil, nil, nil, fmt.Errorf("%w: none composes streams", errNoSuchRole)
	}
	for _, p := range l.nodes {
		switch {
		case p == composer || contains(p.Roles, "origin"):
		case p.Region != composer.Region && home == nil:
			home = p
		case p.Region == composer.Region && edge == nil:
			edge = p
		}
	}
	if home == nil || edge == nil {
		return nil, nil, nil, fmt.Errorf("%w: it needs a node beside the origin, and one in another region", errNoSuchRole)
	}
	return home, composer, edge, nil
}

// streamed is a viewer who keeps the room open: who publishes pictures that can be decoded is a process of its own.
func streamed(l *Lab) ([]seat, error) {
	_, _, edge, err := l.streamEnds()
	if err != nil {
		return nil, err
	}
	return []seat{{node: edge.ID}}, nil
}

// measureStream loses packets between a stream's publisher's node and its origin, and tells what somebody sees who plays it elsewhere.
func measureStream(ctx context.Context, r *run) error {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		return fmt.Errorf("%w: without ffmpeg nobody looks at the pictures", errNotOffered)
	}
	home, composer, edge, err := r.lab.streamEnds()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	published := make(chan error, 1)
	wg.Go(func() { published <- r.lab.publishClip(ctx, r.room, home) })
	path, err := r.startStream(ctx, home, composer, published)
	if err != nil {
		return err
	}
	calm, err := r.play(ctx, composer, edge, path, streamCalm, "calm")
	if err != nil {
		return err
	}
	err = r.lab.net.Break(faultName, func(from, to string, p netem.Params) netem.Params {
		if from == home.ID && to == composer.ID || from == composer.ID && to == home.ID {
			return losing(streamLoss)(p)
		}
		return p
	})
	if err != nil {
		return err
	}
	lossy, err := r.play(ctx, composer, edge, path, streamLossy, "lossy")
	if err != nil {
		return err
	}
	for _, w := range []struct {
		when string
		seen seen
	}{{"before", calm}, {"then", lossy}} {
		r.result.figure("longest freeze ms "+w.when, milliseconds(w.seen.longest))
		r.result.figure("pictures lost % "+w.when, w.seen.lost)
		r.result.figure("part after its first picture ms p50 "+w.when, milliseconds(w.seen.Edge.Quantile(0.5)))
	}
	r.result.check("", "parts missing", float64(lossy.Gaps+lossy.Failures), 0)
	r.result.check("", "stalls", float64(lossy.Stalls), 0)
	r.result.checkTime("", "longest freeze", lossy.longest, freezeLimit)
	r.result.check("", "pictures lost, percent", lossy.lost, lostLimit)
	r.result.checkTime("", "parts later by", lossy.Edge.Quantile(0.5)-calm.Edge.Quantile(0.5), partLimit)
	return nil
}

// publishClip has one peer publish real pictures at a node until ctx ends, from where the clients of its region are.
func (l *Lab) publishClip(ctx context.Context, room string, at *process) error {
	cmd := exec.CommandContext(ctx, l.cfg.Program, "load", "--url", at.url, "--key", l.key, "--secret", l.secret, "--room", room, "--publishers", "1", "--duration", "1h")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// The death signal is that of the thread, which stays in the namespace until the program has ended.
	if err := l.net.spaces[clientsOf(at.Region)].Do(cmd.Run); err != nil && ctx.Err() == nil {
		return fmt.Errorf("publishing at %s: %w: %s", at.ID, err, out.String())
	}
	return nil
}

// startStream waits for the publisher, starts the stream, and returns its path when its picture has a tile.
func (r *run) startStream(ctx context.Context, home, composer *process, published <-chan error) (string, error) {
	streams, err := manage(r.lab, home, amphiv1connect.NewStreamServiceClient)
	if err != nil {
		return "", err
	}
	if _, err := streams.StartStream(ctx, connect.NewRequest(&amphiv1.StartStreamRequest{Room: r.room})); err != nil {
		return "", fmt.Errorf("%w: starting a stream: %w", errNotOffered, err)
	}
	err = r.lab.await(ctx, startTimeout, func(ctx context.Context) error {
		select {
		case err := <-published:
			return fmt.Errorf("nobody publishes any more: %w", err)
		default:
		}
		status, err := r.lab.status(ctx, composer)
		if err != nil {
			return err
		}
		for _, s := range status.GetStreams() {
			if s.GetRoom() == r.room && s.GetTiles() > 0 && s.GetFrames() > 0 {
				return nil
			}
		}
		return fmt.Errorf("%s composes no picture of the room", composer.ID)
	})
	if err != nil {
		return "", err
	}
	playback, err := streams.CreatePlaybackUrl(ctx, connect.NewRequest(&amphiv1.CreatePlaybackUrlRequest{Room: r.room}))
	if err != nil {
		return "", fmt.Errorf("asking for the stream's address: %w", err)
	}
	return playback.Msg.GetUrl(), nil
}

// seen is what a player measured, for how long its picture stood still at most, and how many of the publisher's pictures were not shown
// for want of packets, in percent.
type seen struct {
	*player.Result
	longest time.Duration
	lost    float64
}

// play plays the stream's smallest variant at a node for a while, from where the clients of its region are.
func (r *run) play(ctx context.Context, composer, at *process, path string, lasts time.Duration, name string) (seen, error) {
	before, err := r.picturesLost(ctx, composer)
	if err != nil {
		return seen{}, err
	}
	file, err := os.Create(filepath.Join(r.lab.cfg.Dir, r.room+"-"+name+".mp4"))
	if err != nil {
		return seen{}, fmt.Errorf("keeping what is played: %w", err)
	}
	defer file.Close()
	carry := &http.Transport{DialContext: peer.Dial(r.lab.net.spaces[clientsOf(at.Region)])}
	defer carry.CloseIdleConnections()
	playing, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	s := seen{Result: player.Play(playing, player.Config{URL: at.url + path, Client: &http.Client{Transport: carry}, Variant: lowest, Sink: file})}
	if !s.Started {
		return s, fmt.Errorf("the stream does not play at %s: %w", at.ID, s.LastError)
	}
	after, err := r.picturesLost(ctx, composer)
	if err != nil {
		return s, err
	}
	s.lost = 100 * float64(after-before) / (pictureRate * lasts.Seconds())
	s.longest, err = longestFreeze(ctx, file.Name())
	return s, err
}

// picturesLost counts the publisher's pictures that the composer could not show, as they or those before them were not there in time.
func (r *run) picturesLost(ctx context.Context, composer *process) (n uint64, err error) {
	status, err := r.lab.status(ctx, composer)
	if err != nil {
		return 0, err
	}
	for _, s := range status.GetStreams() {
		if s.GetRoom() != r.room {
			continue
		}
		for reason, count := range s.GetDrops() {
			if strings.HasSuffix(reason, "waiting_for_keyframe") || strings.HasSuffix(reason, "incomplete_frame") {
				n += count
			}
		}
	}
	return n, nil
}

// longestFreeze looks at a file's pictures: the longest time that one stands, 0 if that is no longer than still.
func longestFreeze(ctx context.Context, file string) (time.Duration, error) {
	filter := fmt.Sprintf("freezedetect=n=0.0005:d=%g", still.Seconds())
	out, err := exec.CommandContext(ctx, "ffmpeg", "-hide_banner", "-nostats", "-i", file, "-vf", filter, "-an", "-f", "null", "-").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("looking at %s: %w: %s", file, err, out[max(0, len(out)-500):])
	}
	return readFreezes(string(out))
}

var (
	freezeStart    = regexp.MustCompile(`freeze_start: ([0-9.]+)`)
	freezeDuration = regexp.MustCompile(`freeze_duration: ([0-9.]+)`)
)

var errStands = errors.New("the picture stands still at the end")

// readFreezes reads what ffmpeg's freezedetect says: the longest one.
func readFreezes(log string) (longest time.Duration, err error) {
	ended := freezeDuration.FindAllStringSubmatch(log, -1)
	if begun := freezeStart.FindAllString(log, -1); len(begun) > len(ended) {
		return 0, errStands
	}
	for _, m := range ended {
		s, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, fmt.Errorf("reading a freeze: %w", err)
		}
		longest = max(longest, time.Duration(s*float64(time.Second)))
	}
	return longest, nil
}
