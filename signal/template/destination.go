package template

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// destinations checks the outputs that a template provides for. Whether a push may go to its URL is for the node to say that
// takes the template.
func (c *checker) destinations(t *pb.Template) {
	if n := len(t.GetDestinations()); n > maxDestinations {
		c.failf("destinations", "%d destinations; at most %d are possible", n, maxDestinations)
		return
	}
	seen := map[string]bool{}
	pushes, records := 0, 0
	for i, d := range t.GetDestinations() {
		c.in(fmt.Sprintf("destinations[%d]", i), func() {
			c.destination(t, d)
			if seen[d.GetName()] {
				c.failf("name", "%q is taken by another destination", clip(d.GetName()))
			}
			seen[d.GetName()] = true
		})
		if !d.GetAutoStart() {
			continue
		}
		if d.GetKind() == pb.OutputKind_OUTPUT_KIND_PUSH {
			pushes++
		} else {
			records++
		}
	}
	if pushes > maxAutoPushes || records > maxAutoRecords {
		c.failf("destinations", "more than %d pushes or %d recordings start by themselves", maxAutoPushes, maxAutoRecords)
	}
}

func (c *checker) destination(t *pb.Template, d *pb.Destination) {
	c.named("name", d.GetName(), lowerDigits, 32)
	stream := cmp.Or(d.GetStream(), defaultStreamName)
	i := slices.IndexFunc(t.GetStreams(), func(s *pb.StreamSettings) bool { return s.GetName() == stream })
	if i < 0 {
		c.failf("stream", "%q is not a stream of this template", clip(stream))
		return
	}
	variants := t.GetStreams()[i].GetVariants()
	if v := d.GetVariant(); v != "" && !slices.ContainsFunc(variants, func(s *pb.StreamVariant) bool { return s.GetName() == v }) {
		c.failf("variant", "%q is not a variant of the stream %q", clip(v), stream)
	}
	if d.GetKind() != pb.OutputKind_OUTPUT_KIND_PUSH && d.GetUrl() != "" {
		c.failf("url", "only a push has one")
	}
	if d.GetKind() != pb.OutputKind_OUTPUT_KIND_TRACKS && d.GetTracks() != nil {
		c.failf("tracks", "only a recording of tracks has them")
	}
	switch d.GetKind() {
	case pb.OutputKind_OUTPUT_KIND_RECORDING:
	case pb.OutputKind_OUTPUT_KIND_TRACKS:
		if n := max(len(d.GetTracks().GetRoles()), len(d.GetTracks().GetSources())); n > maxFilter {
			c.failf("tracks", "%d entries; at most %d are possible", n, maxFilter)
			return
		}
		c.roleNames(t, "tracks.roles", d.GetTracks().GetRoles())
		for _, s := range d.GetTracks().GetSources() {
			c.text("tracks.sources", s, maxName)
		}
		if len(d.GetTracks().GetPeers()) > 0 {
			c.failf("tracks.peers", "a template knows no peers")
		}
	case pb.OutputKind_OUTPUT_KIND_PUSH:
		c.text("url", d.GetUrl(), proto.MaxPushURL)
		scheme, rest, ok := strings.Cut(d.GetUrl(), "://")
		if !ok || rest == "" || !slices.Contains([]string{"rtmp", "rtmps", "srt"}, strings.ToLower(scheme)) {
			c.failf("url", "is not an rtmp, rtmps or srt URL")
		}
	default:
		c.failf("kind", "is unknown")
	}
}
