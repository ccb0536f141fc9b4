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

func peerCommand() *cobra.Command {
	a := &app{}
	return group("peer", "Peers of a room: list, change role, mute, remove", a,
		peerList(a), peerShow(a), peerRole(a), peerMute(a), peerRemove(a))
}

func peerTable(w io.Writer, peers []*amphiv1.Peer) {
	row(w, "PEER", "NAME", "ROLE", "USER", "JOINED", "TRACKS", "STATE")
	for _, p := range peers {
		var tracks, state []string
		for _, t := range p.GetTracks() {
			name := t.GetSource()
			if t.GetMuted() {
				name += " (muted)"
			}
			tracks = append(tracks, name)
		}
		if p.GetHandRaisedMs() != 0 {
			state = append(state, "hand raised")
		}
		if p.GetLost() {
			state = append(state, "lost")
		}
		if p.GetChatBlocked() {
			state = append(state, "chat blocked")
		}
		row(w, p.GetId(), p.GetName(), p.GetRole(), p.GetUserId(), when(p.GetJoinedMs()),
			strings.Join(tracks, ", "), strings.Join(state, ", "))
	}
}

func peerList(a *app) *cobra.Command {
	list := &amphiv1.ListPeers{}
	cmd := &cobra.Command{
		Use: "list ROOM", Short: "List the peers of a room", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			peers, err := a.peers()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, peers.ListPeers, &amphiv1.ListPeersRequest{Room: args[0], List: list})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				peerTable(w, res.GetPeers())
				more(w, res.GetNext())
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&list.Roles, "role", nil, "only of this role")
	f.StringVar(&list.Search, "search", "", "only names with this in them")
	f.Uint32Var(&list.Limit, "limit", 50, "at most so many, 1 to 100")
	f.StringVar(&list.After, "after", "", "go on where the list before ended")
	return cmd
}

func peerShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ROOM PEER", Short: "Show a peer and its tracks", Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			peers, err := a.peers()
			if err != nil {
				return err
			}
			p, err := call(cmd.Context(), a, peers.GetPeer, &amphiv1.GetPeerRequest{Room: args[0], PeerId: args[1]})
			if err != nil {
				return err
			}
			return a.print(cmd, p, func(w io.Writer) {
				peerTable(w, []*amphiv1.Peer{p})
				fmt.Fprintln(w)
				row(w, "TRACK", "SOURCE", "CODEC", "SIZE", "MUTED")
				for _, t := range p.GetTracks() {
					size := ""
					if t.GetWidth() > 0 {
						size = fmt.Sprintf("%dx%d", t.GetWidth(), t.GetHeight())
					}
					row(w, t.GetId(), t.GetSource(), t.GetCodec(), size, yes(t.GetMuted(), "muted"))
				}
			})
		},
	}
}

func peerRole(a *app) *cobra.Command {
	change := &amphiv1.ChangeRole{}
	cmd := &cobra.Command{
		Use: "role ROOM PEER ROLE", Short: "Ask a peer to take another role, or move it at once", Args: between(2, 3),
		Long: "Asks the peer to take the role; with --force it is moved at once, its new tracks muted.\n" +
			"All peers of a role: amphi peer role ROOM ROLE --from OLD --force",
		RunE: func(cmd *cobra.Command, args []string) error {
			bulk := len(change.GetFromRoles()) > 0
			if bulk != (len(args) == 2) {
				return usage(fmt.Errorf("want: %s, or ROOM ROLE with --from", line(cmd)))
			}
			if !bulk {
				change.Peers = []string{args[1]}
			}
			change.Role = args[len(args)-1]
			peers, err := a.peers()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, peers.ChangeRole, &amphiv1.ChangeRoleRequest{Room: args[0], Change: change})
			if err != nil {
				return err
			}
			if err := a.print(cmd, res, func(w io.Writer) { roleResult(w, res) }); err != nil {
				return err
			}
			return roleFailure(res)
		},
	}
	cmd.Flags().BoolVar(&change.Force, "force", false, "move it without asking")
	cmd.Flags().StringSliceVar(&change.FromRoles, "from", nil, "all peers of this role")
	return cmd
}

func roleResult(w io.Writer, res *amphiv1.ChangeRoleResult) {
	if id := res.GetRequestId(); id != "" {
		row(w, "asked", id)
	}
	for _, p := range res.GetChanged() {
		row(w, "changed", p)
	}
	for _, p := range slices.Sorted(maps.Keys(res.GetFailed())) {
		row(w, "failed", p, res.GetFailed()[p])
	}
}

func roleFailure(res *amphiv1.ChangeRoleResult) error {
	if n := len(res.GetFailed()); n > 0 {
		return &problem{err: fmt.Errorf("%d of %d peers could not be moved", n, n+len(res.GetChanged())), exit: exitRefused}
	}
	return nil
}

func peerMute(a *app) *cobra.Command {
	mute := &amphiv1.MutePeers{}
	var unmute bool
	cmd := &cobra.Command{
		Use: "mute ROOM [PEER...]", Short: "Mute peers, or ask them to unmute", Args: between(1, 100),
		RunE: func(cmd *cobra.Command, args []string) error {
			mute.Peers, mute.Muted = args[1:], !unmute
			if len(mute.Peers)+len(mute.GetRoles()) == 0 {
				return usage(fmt.Errorf("want peers or --role"))
			}
			peers, err := a.peers()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, peers.MutePeers, &amphiv1.MutePeersRequest{Room: args[0], Mute: mute})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				if unmute {
					fmt.Fprintln(w, "asked")
				} else {
					fmt.Fprintln(w, "muted")
				}
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&unmute, "unmute", false, "ask to unmute instead")
	f.StringSliceVar(&mute.Sources, "source", nil, "only this source: mic, camera, screen, screen-audio")
	f.StringSliceVar(&mute.Roles, "role", nil, "all peers of this role")
	return cmd
}

func peerRemove(a *app) *cobra.Command {
	remove := &amphiv1.RemovePeers{}
	cmd := &cobra.Command{
		Use: "remove ROOM [PEER...]", Short: "Remove peers from the room", Args: between(1, 100),
		RunE: func(cmd *cobra.Command, args []string) error {
			remove.Peers = args[1:]
			if len(remove.Peers)+len(remove.GetRoles()) == 0 {
				return usage(fmt.Errorf("want peers or --role"))
			}
			peers, err := a.peers()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, peers.RemovePeers, &amphiv1.RemovePeersRequest{Room: args[0], Remove: remove})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { fmt.Fprintln(w, "removed") })
		},
	}
	f := cmd.Flags()
	f.StringVar(&remove.Reason, "reason", "", "shown to the peers")
	f.BoolVar(&remove.Ban, "ban", false, "refuse the same user ids for the rest of the session")
	f.StringSliceVar(&remove.Roles, "role", nil, "all peers of this role")
	return cmd
}
