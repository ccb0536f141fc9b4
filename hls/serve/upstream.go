package serve

import (
	"net/http"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/playlist"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// pastKnown is the query parameter by which an edge says that it knows the segments that a delta skips, and needs no whole.
const pastKnown = "_past"

// PastKnown is what an edge adds to its query then.
const PastKnown = pastKnown + "=known"

func knowsPast(r *http.Request) bool {
	_, n := playlist.Parameter(r.URL.RawQuery, pastKnown)
	return n > 0
}

// upstreamType is that of media playlists for edges.
const upstreamType = "application/x-protobuf"

// Upstream answers the same paths to nodes that serve players (hls/edge): nobody is asked whether they may, and media
// playlists are EdgePlaylist messages. Only nodes of the deployment may reach it.
func (h *Handler) Upstream() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.count(h.serve(w, r, true)) })
}

// forEdge is the playlist as edges take it.
func (h *Handler) forEdge(w http.ResponseWriter, r *http.Request, m *packager.Media, p *packager.Published) Outcome {
	at := p.Position()
	list := &amphiv1.EdgePlaylist{
		Empty: at.Empty, Ended: at.Ended, OpenMsn: at.OpenMSN, OpenParts: uint32(at.OpenParts),
		PrevParts: uint32(at.PrevParts), AdvanceParts: uint32(at.AdvanceParts), WaitMs: uint32(h.patience(m).Milliseconds()),
	}
	full, delta, v2 := p.Form(playlist.SkipNone), p.Form(playlist.SkipSegments), p.Form(playlist.SkipRanges)
	if delta != full {
		list.Delta = delta.Gzip()
	}
	if v2 != delta {
		list.DeltaV2 = v2.Gzip()
	}
	if delta == full || !knowsPast(r) {
		list.Full = full.Gzip()
	}
	b, err := protobuf.Marshal(list)
	if err != nil { // of bytes and numbers: it cannot
		return ComeBack(w, TimedOut)
	}
	return h.give(w, r, Answer{ContentType: upstreamType, Cache: cacheNever, Chunks: [][]byte{b}})
}
