package signal

import (
	"context"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

// Rooms tells of every room that this node follows who is in it, without their media. It waits for each room's
// turn; a room that is not ready by the end of ctx is left out.
func (s *Server) Rooms(ctx context.Context) []*amphiv1.RoomStatus {
	var rooms []*amphiv1.RoomStatus
	for _, name := range s.replicas.Names() {
		r, err := s.replicas.Open(name)
		if err != nil {
			continue
		}
		status := &amphiv1.RoomStatus{Name: name, PeersByLevel: map[uint32]uint32{}}
		if owner, epoch, err := s.deps.Directory.Owner(name); err == nil {
			status.Owner, status.Epoch = owner, epoch
		}
		err = r.View(ctx, func(rep *room.Replica) {
			status.SessionId = rep.SessionID()
			for _, p := range rep.Peers() {
				level := proto.Level(rep.Role(p.GetRole()))
				status.PeersByLevel[level]++
				status.Peers = append(status.Peers, &amphiv1.PeerStatus{
					PeerId: p.GetId(), Name: p.GetName(), Role: p.GetRole(), Level: level, Transport: "none"})
			}
		})
		r.Release()
		if err == nil {
			rooms = append(rooms, status)
		}
	}
	return rooms
}
