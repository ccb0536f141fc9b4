package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func nodeCommand() *cobra.Command {
	a := &app{}
	return group("node", "Nodes: list, show, drain, undrain, revoke", a, nodeList(a), nodeShow(a), nodeDrain(a), nodeUndrain(a), nodeRevoke(a))
}

func nodeTable(w io.Writer, nodes ...*amphiv1.NodeInfo) {
	row(w, "NODE", "REGION", "ZONE", "ROLES", "STATE", "LOAD", "RTT ms", "ADDRESS", "STARTED", "VERSION")
	for _, n := range nodes {
		state := n.GetState()
		if n.GetLeader() {
			state += ", leader"
		}
		if ms := n.GetRevokedBeforeMs(); ms != 0 {
			state += ", revoked before " + when(ms)
		}
		row(w, n.GetId(), n.GetRegion(), n.GetZone(), strings.Join(n.GetRoles(), ", "), state, fmt.Sprintf("%d %%", n.GetLoad()*100/255),
			fmt.Sprintf("%.1f", n.GetRttMs()), n.GetAddress(), when(n.GetStartedMs()), n.GetVersion())
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
	clusterStatus(w, s)
	for _, r := range s.GetRooms() {
		fmt.Fprintln(w)
		levels := r.GetPeersByLevel()
		row(w, "room "+r.GetName(), fmt.Sprintf("session %s, owner %s, standby %s, epoch %d, %s, levels 1/2/3: %d/%d/%d",
			r.GetSessionId(), r.GetOwner(), dash(r.GetStandby()), r.GetEpoch(), dash(r.GetMode()), levels[1], levels[2], levels[3]))
		for _, l := range r.GetRelays() {
			row(w, "relay "+l.GetTrackId(), fmt.Sprintf("%s to %s, layer %d, %d kbit/s", l.GetFrom(), l.GetTo(), l.GetLayer(), l.GetBitrateKbps()))
		}
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
			"%s, latency %.0f ms, %.2f cores, %.3g fps, %d tiles, %d players, %d restarts, %d late ticks",
			enum(st.GetStream().GetState(), "STREAM_STATE_"), st.GetLatencyMs(), st.GetCpuCores(), st.GetFramerate(),
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

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// clusterStatus shows what a node of a cluster has besides.
func clusterStatus(w io.Writer, s *amphiv1.NodeStatus) {
	if c := s.GetCluster(); c != nil {
		fmt.Fprintln(w)
		row(w, "raft", fmt.Sprintf("%s, leader %s, term %d, applied %d of %d, voters %s",
			c.GetRaftState(), dash(c.GetLeader()), c.GetTerm(), c.GetAppliedIndex(), c.GetCommitIndex(), strings.Join(c.GetVoters(), ", ")))
		row(w, "gossip", fmt.Sprintf("%d alive, %d suspect, %d dead", c.GetAlive(), c.GetSuspect(), c.GetDead()))
		row(w, "lease", map[bool]string{true: "valid", false: "gone: this node decides nothing"}[c.GetLeased()])
		for _, reason := range slices.Sorted(maps.Keys(c.GetRefused())) {
			row(w, "refused: "+reason, c.GetRefused()[reason])
		}
	}
	if d := s.GetDrain(); d != nil {
		row(w, "drain", fmt.Sprintf("until %s; left: %d rooms, %d clients, %d relays", when(d.GetUntilMs()), d.GetRoomsLeft(), d.GetClientsLeft(), d.GetRelaysLeft()))
	}
	if len(s.GetTrunks()) > 0 {
		fmt.Fprintln(w)
		row(w, "TRUNK TO", "STATE", "RTT ms", "LOSS %", "IN kbit/s", "OUT kbit/s", "BUDGET kbit/s", "QUEUE ms", "RELAYS in/out", "SINCE")
	}
	for _, t := range s.GetTrunks() {
		row(w, t.GetNode(), t.GetState(), fmt.Sprintf("%.1f", t.GetRttMs()), fmt.Sprintf("%.2f", 100*t.GetLoss()), t.GetInKbps(), t.GetOutKbps(),
			t.GetBudgetKbps(), fmt.Sprintf("%.1f", t.GetQueueMs()), fmt.Sprintf("%d/%d", t.GetRelaysIn(), t.GetRelaysOut()), when(t.GetUpSinceMs()))
	}
}

func nodeDrain(a *app) *cobra.Command {
	var deadline time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Move rooms, relays and clients away from a node, which then ends", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := a.nodes()
			if err != nil {
				return err
			}
			info, err := call(cmd.Context(), a, nodes.DrainNode, &amphiv1.DrainNodeRequest{Id: args[0], DeadlineS: uint32(deadline.Seconds())})
			if err != nil {
				return err
			}
			if wait {
				return watchDrain(cmd, a, args[0])
			}
			return a.print(cmd, info, func(w io.Writer) { nodeTable(w, info) })
		},
	}
	cmd.Flags().DurationVar(&deadline, "deadline", 0, "when the node ends at the latest (default: its own)")
	cmd.Flags().BoolVar(&wait, "wait", false, "show how it goes until the node has ended")
	return cmd
}

// watchDrain prints a line whenever something of it has changed, until the node cannot be asked any more.
func watchDrain(cmd *cobra.Command, a *app, id string) error {
	nodes, err := a.nodes()
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last string
	for {
		s, err := call(cmd.Context(), a, nodes.GetNode, &amphiv1.GetNodeRequest{Id: id})
		if err != nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s has ended\n", id)
			return nil
		}
		d := s.GetDrain()
		if d == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s does not drain any more\n", id)
			return nil
		}
		if line := fmt.Sprintf("left: %d rooms, %d clients, %d relays", d.GetRoomsLeft(), d.GetClientsLeft(), d.GetRelaysLeft()); line != last {
			fmt.Fprintln(cmd.OutOrStdout(), line)
			last = line
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

func nodeUndrain(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "undrain NODE", Short: "Take back a drain that has not ended", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := a.nodes()
			if err != nil {
				return err
			}
			info, err := call(cmd.Context(), a, nodes.UndrainNode, &amphiv1.UndrainNodeRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, info, func(w io.Writer) { nodeTable(w, info) })
		},
	}
}
