package main

import (
	"maps"
	"testing"

	"github.com/amphi-sfu/amphi/media"
)

func TestDownTracksAreCounted(t *testing.T) {
	t.Parallel()
	down := func(kind media.Kind, max, current int8, reason media.Reason) media.DownTrackStats {
		return media.DownTrackStats{Kind: kind, Max: media.Layer{Spatial: max}, Current: media.Layer{Spatial: current}, Reason: reason}
	}
	s := &scrape{media: media.EngineStats{Routers: []media.RouterStats{
		{Endpoints: []media.EndpointStats{
			{Estimate: 400_000, DownTracks: []media.DownTrackStats{down(media.Video, 2, 0, media.ReasonBandwidth), down(media.Audio, 0, 0, media.ReasonOK)}},
			{DownTracks: []media.DownTrackStats{down(media.Video, -1, -1, media.ReasonHidden)}},
		}},
		{Endpoints: []media.EndpointStats{{Estimate: 3_000_000, DownTracks: []media.DownTrackStats{down(media.Video, 2, 0, media.ReasonBandwidth)}}}},
	}}}
	if got := downTracksByReason(s); !maps.Equal(got, map[string]uint64{"bandwidth": 2, "ok": 1, "hidden": 1}) {
		t.Errorf("reasons %v", got)
	}
	if got := s.videoLayers(); !maps.Equal(got, map[layers]int{{2, 0}: 2, {-1, -1}: 1}) {
		t.Errorf("layers %v", got)
	}
	n, sum, buckets := s.estimates()
	if n != 2 || sum != 3_400_000 || buckets[250e3] != 0 || buckets[500e3] != 1 || buckets[2e6] != 1 || buckets[4e6] != 2 || buckets[16e6] != 2 {
		t.Errorf("%d estimates, sum %v, %v", n, sum, buckets)
	}
}
