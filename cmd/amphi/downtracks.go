package main

import (
	"github.com/amphi-sfu/amphi/media"
)

// layers is a pair of spatial layers of one DownTrack.
type layers struct{ max, current int }

// estimateBounds are the histogram's, in bits per second.
var estimateBounds = [...]float64{100e3, 250e3, 500e3, 1e6, 2e6, 4e6, 8e6, 16e6}

// eachDownTrack calls f for every track that a client receives or should.
func (s *scrape) eachDownTrack(f func(*media.DownTrackStats)) {
	for i := range s.media.Routers {
		for j := range s.media.Routers[i].Endpoints {
			list := s.media.Routers[i].Endpoints[j].DownTracks
			for k := range list {
				f(&list[k])
			}
		}
	}
}

func downTracksByReason(s *scrape) map[string]uint64 {
	counts := map[string]uint64{}
	s.eachDownTrack(func(d *media.DownTrackStats) { counts[string(d.Reason)]++ })
	return counts
}

func (s *scrape) videoLayers() map[layers]int {
	counts := map[layers]int{}
	s.eachDownTrack(func(d *media.DownTrackStats) {
		if d.Kind == media.Video {
			counts[layers{int(d.Max.Spatial), int(d.Current.Spatial)}]++
		}
	})
	return counts
}

// estimates makes a histogram of the clients' bandwidths.
func (s *scrape) estimates() (clients uint64, sum float64, buckets map[float64]uint64) {
	buckets = map[float64]uint64{}
	for _, b := range estimateBounds {
		buckets[b] = 0
	}
	for i := range s.media.Routers {
		for j := range s.media.Routers[i].Endpoints {
			bps := float64(s.media.Routers[i].Endpoints[j].Estimate)
			if bps == 0 {
				continue
			}
			clients++
			sum += bps
			for _, b := range estimateBounds {
				if bps <= b {
					buckets[b]++
				}
			}
		}
	}
	return clients, sum, buckets
}
