package main

import (
	"context"
	"runtime"
	"slices"
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"

	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/proto"
)

// statusTimeout bounds how long a status waits for rooms that are busy.
const statusTimeout = 2 * time.Second

// Nodes implements signal.Nodes.
func (n *Node) Nodes() []*amphiv1.NodeInfo {
	if n.mesh != nil {
		return n.mesh.nodes()
	}
	return []*amphiv1.NodeInfo{n.info()}
}

// Drain implements signal.Nodes.
func (n *Node) Drain(ctx context.Context, id string, within time.Duration) (*amphiv1.NodeInfo, error) {
	if n.mesh == nil {
		return nil, errAlone()
	}
	return n.mesh.askDrain(ctx, id, true, within)
}

// Undrain implements signal.Nodes.
func (n *Node) Undrain(ctx context.Context, id string) (*amphiv1.NodeInfo, error) {
	if n.mesh == nil {
		return nil, errAlone()
	}
	return n.mesh.askDrain(ctx, id, false, 0)
}

func errAlone() error {
	return proto.Errorf(proto.Unavailable, "this node is alone: there is none that its rooms could move to")
}

func (n *Node) info() *amphiv1.NodeInfo {
	info := &amphiv1.NodeInfo{
		Id: n.cfg.ID, Region: n.cfg.Region, Roles: []string{roleStage, roleAudience, roleOrigin}, State: "alive",
		Version: version(), StartedMs: n.started.UnixMilli(), Address: n.URL(), Load: uint32(loadOf(n.usage.CPU(), runtime.NumCPU())),
	}
	if n.mesh != nil {
		n.mesh.complete(info)
	}
	return info
}

// Status implements signal.Nodes: everything that the ops dashboard shows.
func (n *Node) Status(id string) *amphiv1.NodeStatus {
	if id != "" && id != n.cfg.ID {
		if n.mesh == nil {
			return nil
		}
		return n.mesh.askStatus(id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	stats := n.media.Stats()
	status := &amphiv1.NodeStatus{
		Info: n.info(), TimeMs: n.cfg.Now().UnixMilli(),
		CpuCores: n.usage.CPU(), RssBytes: residentBytes(), Goroutines: goroutines(),
		Rooms: n.signal.Rooms(ctx), Drops: occurred(stats),
		Clients: uint32(n.signal.Stats().Clients.Open),
	}
	routers := make(map[string]*media.RouterStats, len(stats.Routers))
	for i := range stats.Routers {
		r := &stats.Routers[i]
		routers[r.Room] = r
		for _, e := range r.Endpoints {
			status.PacketsIn += e.PacketsIn
			status.PacketsOut += e.PacketsOut
			status.BytesIn += e.BytesIn
			status.BytesOut += e.BytesOut
		}
	}
	for _, room := range status.Rooms {
		if r := routers[room.GetName()]; r != nil {
			addMedia(room, r)
		}
	}
	n.addStreams(status)
	n.addOutputs(status)
	if n.mesh != nil {
		n.mesh.addCluster(status)
	}
	return status
}

// occurred adds up what was dropped in the data plane and at its sockets, by reasons that occurred.
func occurred(s media.EngineStats) map[string]uint64 {
	drops := map[string]uint64{}
	for _, counts := range []map[string]uint64{s.Drops, named(s.Socket.Drops), s.TCP.Drops} {
		for reason, n := range counts {
			if n > 0 {
				drops[reason] += n
			}
		}
	}
	return drops
}

// addMedia fills in what the data plane knows of a room's peers.
func addMedia(room *amphiv1.RoomStatus, stats *media.RouterStats) {
	peers := make(map[string]*amphiv1.PeerStatus, len(room.GetPeers()))
	for _, p := range room.GetPeers() {
		peers[p.GetPeerId()] = p
	}
	publisher := make(map[string]string, len(stats.UpTracks))
	for _, u := range stats.UpTracks {
		publisher[u.ID] = u.Origin
		if p := peers[u.Origin]; p != nil {
			// Signalling has announced the track; media knows what arrives of it.
			p.Up = slices.DeleteFunc(p.Up, func(known *amphiv1.UpTrackStatus) bool { return known.GetTrackId() == u.ID })
			p.Up = append(p.Up, upStatus(&u))
		}
	}
	for _, e := range stats.Endpoints {
		p := peers[e.ID]
		if p == nil {
			continue
		}
		p.Transport = e.State
		if e.Transport != "" && e.State == media.Connected.String() {
			p.Transport = e.Transport
		}
		p.Remote = e.RemoteAddr
		p.EstimateKbps = uint32(e.Estimate / 1000)
		for _, d := range e.DownTracks {
			p.Down = append(p.Down, downStatus(&d, publisher[d.TrackID]))
			p.RttMs = max(p.RttMs, float64(d.RTT.Microseconds())/1000)
			p.Loss = max(p.Loss, d.FractionLost)
		}
	}
}

func upStatus(u *media.UpTrackStats) *amphiv1.UpTrackStatus {
	status := &amphiv1.UpTrackStatus{TrackId: u.ID, Source: u.Source, Muted: u.Muted, Wanted: int32(u.Wanted)}
	for _, e := range u.Encodings {
		// Layers that were never sent have no codec yet.
		if status.Codec == "" || e.Packets > 0 {
			status.Codec = e.Codec
		}
		status.Encodings = append(status.Encodings, &amphiv1.EncodingStatus{
			Rid: e.RID, Width: uint32(e.Width), Height: uint32(e.Height), BitrateKbps: uint32(e.Bitrate / 1000),
			Packets: e.Packets, KeyframeRequests: e.KeyframeRequests,
		})
	}
	return status
}

func downStatus(d *media.DownTrackStats, publisher string) *amphiv1.DownTrackStatus {
	return &amphiv1.DownTrackStatus{
		TrackId: d.TrackID, Mid: d.Mid, Publisher: publisher, Reason: string(d.Reason),
		Max: int32(d.Max.Spatial), Target: int32(d.Target.Spatial), Current: int32(d.Current.Spatial),
		BitrateKbps: uint32(d.Bitrate / 1000), Packets: d.Packets, Retransmitted: d.Retransmitted,
	}
}

// addStreams fills in the node's programs.
func (n *Node) addStreams(status *amphiv1.NodeStatus) {
	for _, p := range n.origin.Programs() {
		s := p.Status()
		status.CompositorCpuCores += s.GetCpuCores()
		status.Streams = append(status.Streams, s)
	}
}
