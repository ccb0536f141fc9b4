package hls

import (
	"slices"

	"github.com/amphi-sfu/amphi/hls/layout"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Stage is who a program shows and lets be heard. It replaces the one before as a whole.
type Stage struct {
	Peers []StagePeer // in order of their coming; ids are unique
	// Speakers are who speaks, loudest first: ids of peers or of their audio tracks.
	Speakers []string
}

// StagePeer is a peer on stage with what it publishes.
type StagePeer struct {
	ID   string
	Name string
	// The tracks; an empty id stands for none.
	Audio, Video, Screen, ScreenAudio StageTrack
}

// StageTrack is one published track.
type StageTrack struct {
	ID    string
	Muted bool
}

// on says that there is something to see or hear.
func (t StageTrack) on() bool { return t.ID != "" && !t.Muted }

// MaxPeers is how many peers of a stage are considered; the rest is left out.
const MaxPeers = 64

func (s Stage) clone() Stage {
	s.Peers = slices.Clone(s.Peers[:min(len(s.Peers), MaxPeers)])
	s.Speakers = slices.Clone(s.Speakers[:min(len(s.Speakers), MaxPeers)])
	return s
}

// arranged is the stage as the layout sees it.
func (s *Stage) arranged(mode layout.Mode, o *amphiv1.LayoutOptions) layout.Stage {
	out := layout.Stage{Mode: mode, Spotlight: o.GetPinnedPeer(), Options: tiling(o)}
	byTrack := map[string]string{}
	for _, p := range s.Peers {
		out.Peers = append(out.Peers, layout.Peer{ID: p.ID, Name: p.Name, Screen: p.Screen.on(), Muted: !p.Audio.on()})
		byTrack[p.ID] = p.ID
		if p.Audio.ID != "" {
			byTrack[p.Audio.ID] = p.ID
		}
	}
	for _, id := range s.Speakers {
		if peer, ok := byTrack[id]; ok && !slices.Contains(out.Speakers, peer) {
			out.Speakers = append(out.Speakers, peer)
		}
	}
	return out
}

func (s *Stage) peer(id string) *StagePeer {
	for i := range s.Peers {
		if s.Peers[i].ID == id {
			return &s.Peers[i]
		}
	}
	return nil
}
