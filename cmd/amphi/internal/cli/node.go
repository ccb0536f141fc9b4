package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func nodeCommand() *cobra.Command {
	a := &app{}
	return group("node", "Nodes: list, show", a, nodeList(a), nodeShow(a))
}

func nodeTable(w io.Writer, nodes ...*amphiv1.NodeInfo) {
	row(w, "NODE", "REGION", "ROLES", "ADDRESS", "STARTED", "VERSION")
	for _, n := range nodes {
		row(w, n.GetId(), n.GetRegion(), strings.Join(n.GetRoles(), ", "), n.GetAddress(), when(n.GetStartedMs()), n.GetVersion())
	}
}

func nodeList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the nodes of the cluster", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			nodes, err := a.nodes()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, nodes.ListNodes, &amphiv1.ListNodesRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { nodeTable(w, res.GetNodes()...) })
		},
	}
}

func nodeShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show [NODE]", Short: "Show a node: rooms, peers, tracks with their layers, streams, drops", Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := a.nodes()
			if err != nil {
				return err
			}
			s, err := call(cmd.Context(), a, nodes.GetNode, &amphiv1.GetNodeRequest{Id: optional(args, 0)})
			if err != nil {
				return err
			}
			return a.print(cmd, s, func(w io.Writer) { nodeStatus(w, s) })
		},
	}
}

func nodeStatus(w io.Writer, s *amphiv1.NodeStatus) {
	nodeTable(w, s.GetInfo())
	fmt.Fprintln(w)
	row(w, "cpu", fmt.Sprintf("%.2f cores, compositors %.2f", s.GetCpuCores(), s.GetCompositorCpuCores()))
	row(w, "memory", fmt.Sprintf("%.1f MiB", float64(s.GetRssBytes())/(1<<20)))
	row(w, "clients", s.GetClients())
	row(w, "packets in / out", fmt.Sprintf("%d / %d", s.GetPacketsIn(), s.GetPacketsOut()))
	for _, reason := range slices.Sorted(maps.Keys(s.GetDrops())) {
		row(w, "dropped: "+reason, s.GetDrops()[reason])
	}
	for _, r := range s.GetRooms() {
		fmt.Fprintln(w)
		levels := r.GetPeersByLevel()
		row(w, "room "+r.GetName(), fmt.Sprintf("session %s, owner %s, epoch %d, levels 1/2/3: %d/%d/%d",
			r.GetSessionId(), r.GetOwner(), r.GetEpoch(), levels[1], levels[2], levels[3]))
		row(w, "PEER", "NAME", "ROLE", "LEVEL", "TRANSPORT", "RTT ms", "LOSS %", "ESTIMATE kbit/s")
		for _, p := range r.GetPeers() {
			row(w, p.GetPeerId(), p.GetName(), p.GetRole(), p.GetLevel(), p.GetTransport(),
				fmt.Sprintf("%.1f", p.GetRttMs()), fmt.Sprintf("%.2f", 100*p.GetLoss()), p.GetEstimateKbps())
		}
		downTracks(w, r.GetPeers())
	}
	for _, st := range s.GetStreams() {
		fmt.Fprintln(w)
		row(w, "stream "+st.GetRoom()+"/"+st.GetStream().GetName(), fmt.Sprintf(
			"%s, latency %.0f ms, %.2f cores, %d tiles, %d players, %d restarts, %d late ticks",
			enum(st.GetStream().GetState(), "STREAM_STATE_"), st.GetLatencyMs(), st.GetCpuCores(),
			st.GetTiles(), st.GetPlayers(), st.GetRestarts(), st.GetLateTicks()))
	}
}

func downTracks(w io.Writer, peers []*amphiv1.PeerStatus) {
	head := false
	for _, p := range peers {
		for _, d := range p.GetDown() {
			if !head {
				row(w, "DOWNTRACK TO", "TRACK", "FROM", "MAX", "TARGET", "CURRENT", "REASON", "kbit/s")
				head = true
			}
			row(w, p.GetPeerId(), d.GetTrackId(), d.GetPublisher(), d.GetMax(), d.GetTarget(), d.GetCurrent(),
				d.GetReason(), d.GetBitrateKbps())
		}
	}
}
