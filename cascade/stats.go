package cascade

import (
	"cmp"
	"slices"
)

// RelayStats is one track that this node sends to another one.
type RelayStats struct {
	Room, Track, From, To string
	// Home is the node of the track's publisher.
	Home string
	// Layer is the highest encoding sent, -1: the trunk carries none.
	Layer int
	// Bitrate is that of the last second, in bits per second.
	Bitrate        uint64
	Packets, Bytes uint64
	// Shed are encodings that the trunk does not carry now.
	Shed int
}

// ParentStats says from whom this node takes the tracks of a home.
type ParentStats struct {
	Room, Home string
	// Parent is empty when nobody can be reached.
	Parent string
	// Path are the nodes that the tracks pass, the home first.
	Path   []string
	Tracks int
}

// Stats is the state of a Manager.
type Stats struct {
	Relays  []RelayStats
	Parents []ParentStats
	// Reparented is how often the tracks of a home went over to another node.
	Reparented uint64
	// Refused counts what was refused of other nodes, by reason.
	Refused map[string]uint64
}

// Stats returns what is carried for one room, or for all if room is empty.
func (m *Manager) Stats(room string) Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Stats{Refused: map[string]uint64{}, Reparented: m.reparented}
	for d := range drops {
		s.Refused[d.String()] = m.drops.counts[d].Load()
	}
	for name, r := range m.rooms {
		if room != "" && name != room {
			continue
		}
		for _, of := range r.serves {
			for _, x := range of {
				if x.sends() {
					s.Relays = append(s.Relays, x.stats())
				}
			}
		}
		for home, f := range r.feeds {
			p := ParentStats{Room: name, Home: home, Path: slices.Clone(f.path), Tracks: len(f.intakes)}
			if f.link != nil {
				p.Parent = f.link.node
			}
			s.Parents = append(s.Parents, p)
		}
	}
	slices.SortFunc(s.Relays, func(a, b RelayStats) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Track, b.Track), cmp.Compare(a.To, b.To))
	})
	slices.SortFunc(s.Parents, func(a, b ParentStats) int { return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Home, b.Home)) })
	return s
}

// sends says that something of the track is sent, not only told.
func (s *serve) sends() bool {
	return slices.ContainsFunc(s.relays[:], func(r *relay) bool { return r != nil })
}

func (s *serve) stats() RelayStats {
	out := RelayStats{Room: s.room.name, Track: s.track, From: s.room.m.cfg.Node, To: s.node, Home: s.room.homes[s.track], Layer: -1}
	for i, r := range s.relays {
		if r == nil {
			continue
		}
		out.Bitrate += r.rate.Load()
		out.Packets += r.packets.Load()
		out.Bytes += r.bytes.Load()
		if r.shed.Load() {
			out.Shed++
		} else {
			out.Layer = i
		}
	}
	return out
}
