package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func roomCommand() *cobra.Command {
	a := &app{}
	return group("room", "Rooms: create, show, lock, end, codes", a,
		roomCreate(a), roomList(a), roomShow(a), roomEnd(a), roomDelete(a), roomCodes(a), roomState(a), roomSend(a),
		roomUpdate(a, "lock", "Let nobody new join", func(r *amphiv1.UpdateRoomRequest) { r.Locked = new(true) }),
		roomUpdate(a, "unlock", "Let people join again", func(r *amphiv1.UpdateRoomRequest) { r.Locked = new(false) }),
		roomUpdate(a, "disable", "Refuse every join until it is enabled", func(r *amphiv1.UpdateRoomRequest) { r.Disabled = new(true) }),
		roomUpdate(a, "enable", "Allow joins again", func(r *amphiv1.UpdateRoomRequest) { r.Disabled = new(false) }),
	)
}

func roomTable(rooms ...*amphiv1.Room) func(io.Writer) {
	return func(w io.Writer) {
		row(w, "ROOM", "TEMPLATE", "PEERS", "STATE", "CREATED", "DESCRIPTION")
		for _, r := range rooms {
			state := "idle"
			switch {
			case r.GetDisabled():
				state = "disabled"
			case r.GetLocked():
				state = "locked"
			case r.GetActive():
				state = "active"
			}
			row(w, r.GetName(), r.GetTemplate(), r.GetPeerCount(), state, when(r.GetCreatedMs()), r.GetDescription())
		}
	}
}

func roomCreate(a *app) *cobra.Command {
	req := &amphiv1.CreateRoomRequest{}
	cmd := &cobra.Command{
		Use: "create [ROOM]", Short: "Create a room; without a name the server makes one up", Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.Name = args[0]
			}
			rooms, err := a.rooms()
			if err != nil {
				return err
			}
			room, err := call(cmd.Context(), a, rooms.CreateRoom, req)
			if err != nil {
				return err
			}
			return a.print(cmd, room, roomTable(room))
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Template, "template", "", "template (default: the server's)")
	f.StringVar(&req.Description, "description", "", "what it is for")
	f.StringVar(&req.Region, "region", "", "region whose nodes own it")
	f.StringVar(&req.Metadata, "metadata", "", "data of the application's own")
	return cmd
}

func roomList(a *app) *cobra.Command {
	req := &amphiv1.ListRoomsRequest{}
	cmd := &cobra.Command{
		Use: "list", Short: "List rooms", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rooms, err := a.rooms()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, rooms.ListRooms, req)
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				roomTable(res.GetRooms()...)(w)
				more(w, res.GetNext())
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&req.ActiveOnly, "active", false, "only rooms with a running session")
	f.Uint32Var(&req.Limit, "limit", 50, "at most so many, 1 to 100")
	f.StringVar(&req.After, "after", "", "go on where the list before ended")
	return cmd
}

func more(w io.Writer, next string) {
	if next != "" {
		fmt.Fprintf(w, "There are more: --after %s\n", clean(next))
	}
}

func roomShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ROOM", Short: "Show a room", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rooms, err := a.rooms()
			if err != nil {
				return err
			}
			room, err := call(cmd.Context(), a, rooms.GetRoom, &amphiv1.GetRoomRequest{Room: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, room, roomTable(room))
		},
	}
}

func roomEnd(a *app) *cobra.Command {
	req := &amphiv1.EndRoomRequest{}
	cmd := &cobra.Command{
		Use: "end ROOM", Short: "End the running session", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Room = args[0]
			rooms, err := a.rooms()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, rooms.EndRoom, req)
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { fmt.Fprintln(w, "ended") })
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "shown to the peers")
	cmd.Flags().BoolVar(&req.Lock, "lock", false, "let nobody join afterwards")
	return cmd
}

func roomDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete ROOM", Short: "End the session and forget the room", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rooms, err := a.rooms()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, rooms.DeleteRoom, &amphiv1.DeleteRoomRequest{Room: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { fmt.Fprintln(w, "deleted") })
		},
	}
}

func roomUpdate(a *app, verb, short string, change func(*amphiv1.UpdateRoomRequest)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ROOM", Short: short, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rooms, err := a.rooms()
			if err != nil {
				return err
			}
			req := &amphiv1.UpdateRoomRequest{Room: args[0]}
			change(req)
			room, err := call(cmd.Context(), a, rooms.UpdateRoom, req)
			if err != nil {
				return err
			}
			return a.print(cmd, room, roomTable(room))
		},
	}
}

func roomCodes(a *app) *cobra.Command {
	var create bool
	var roles []string
	var disable, enable string
	cmd := &cobra.Command{
		Use: "codes ROOM", Short: "List a room's codes, make new ones, disable or enable one", Args: exactly(1),
		Long: "Lists the codes of a room: each joins it with one role through http://NODE/m/CODE.\n" +
			"--create makes one for each role that has none; with --role one more for each role named.",
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := codes(cmd.Context(), a, args[0], create || len(roles) > 0, roles, disable, enable)
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				row(w, "CODE", "ROLE", "STATE", "LINK")
				for _, c := range res.GetCodes() {
					state := "enabled"
					if c.GetDisabled() {
						state = "disabled"
					}
					row(w, c.GetCode(), c.GetRole(), state, a.url+"/m/"+c.GetCode())
				}
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&create, "create", false, "make a code for each role that has none")
	f.StringSliceVar(&roles, "role", nil, "make one more code for this role")
	f.StringVar(&disable, "disable", "", "disable this code")
	f.StringVar(&enable, "enable", "", "enable this code")
	return cmd
}

func codes(ctx context.Context, a *app, room string, create bool, roles []string, disable, enable string) (*amphiv1.CodesResponse, error) {
	rooms, err := a.rooms()
	if err != nil {
		return nil, err
	}
	for _, u := range []*amphiv1.UpdateCodeRequest{{Code: disable, Disabled: true}, {Code: enable}} {
		if u.GetCode() == "" {
			continue
		}
		if _, err := call(ctx, a, rooms.UpdateCode, u); err != nil {
			return nil, err
		}
	}
	if create {
		if _, err := call(ctx, a, rooms.CreateCodes, &amphiv1.CreateCodesRequest{Room: room, Roles: roles}); err != nil {
			return nil, err
		}
	}
	return call(ctx, a, rooms.ListCodes, &amphiv1.ListCodesRequest{Room: room})
}

func roomState(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "state ROOM", Short: "Show the running session as its owner has it", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rooms, err := a.rooms()
			if err != nil {
				return err
			}
			s, err := call(cmd.Context(), a, rooms.GetState, &amphiv1.GetStateRequest{Room: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, s, func(w io.Writer) {
				row(w, "session", s.GetSessionId())
				row(w, "started", when(s.GetStartedMs()))
				row(w, "event", s.GetSeq())
				row(w, "locked", s.GetLocked())
				fmt.Fprintln(w)
				peerTable(w, s.GetPeers())
				if len(s.GetStore()) > 0 {
					fmt.Fprintln(w)
					row(w, "KEY", "VALUE", "REVISION", "BY")
					for _, e := range s.GetStore() {
						row(w, e.GetKey(), e.GetValue(), e.GetRevision(), e.GetUpdatedBy())
					}
				}
				if len(s.GetStreams()) > 0 {
					fmt.Fprintln(w)
					streamTable(w, a.url, s.GetStreams()...)
				}
			})
		},
	}
}

func roomSend(a *app) *cobra.Command {
	msg := &amphiv1.SendMessage{To: &amphiv1.Recipients{}}
	cmd := &cobra.Command{
		Use: "send ROOM TEXT", Short: "Send a message to the room", Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			msg.Text = args[1]
			rooms, err := a.rooms()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, rooms.SendMessage, &amphiv1.SendMessageRequest{Room: args[0], Message: msg})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { row(w, "message", res.GetId()) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&msg.Type, "type", "chat", "chat, reaction or the application's own")
	f.StringSliceVar(&msg.To.Roles, "role", nil, "to these roles only")
	f.StringSliceVar(&msg.To.Peers, "peer", nil, "to these peers only")
	return cmd
}
