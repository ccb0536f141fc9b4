package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func sessionCommand() *cobra.Command {
	a := &app{}
	return group("session", "Sessions of rooms, with attendance", a, sessionList(a), sessionShow(a))
}

func sessionTable(w io.Writer, sessions ...*amphiv1.Session) {
	row(w, "SESSION", "ROOM", "TEMPLATE", "STARTED", "ENDED", "PEAK")
	for _, s := range sessions {
		ended := when(s.GetEndedMs())
		if ended == "" {
			ended = "running"
		}
		row(w, s.GetId(), s.GetRoom(), s.GetTemplate(), when(s.GetStartedMs()), ended, s.GetPeakPeers())
	}
}

func sessionList(a *app) *cobra.Command {
	req := &amphiv1.ListSessionsRequest{}
	cmd := &cobra.Command{
		Use: "list", Short: "List sessions", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			sessions, err := a.sessions()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, sessions.ListSessions, req)
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				sessionTable(w, res.GetSessions()...)
				more(w, res.GetNext())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Room, "room", "", "only of this room")
	f.BoolVar(&req.ActiveOnly, "active", false, "only running ones")
	f.Uint32Var(&req.Limit, "limit", 50, "at most so many, 1 to 100")
	f.StringVar(&req.After, "after", "", "go on where the list before ended")
	return cmd
}

func sessionShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show SESSION", Short: "Show a session and who was there", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sessions, err := a.sessions()
			if err != nil {
				return err
			}
			s, err := call(cmd.Context(), a, sessions.GetSession, &amphiv1.GetSessionRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, s, func(w io.Writer) {
				sessionTable(w, s)
				fmt.Fprintln(w)
				row(w, "PEER", "NAME", "USER", "ROLES", "JOINED", "LEFT", "WHY")
				for _, p := range s.GetAttendance() {
					why := ""
					if p.GetLeftMs() != 0 {
						why = enum(p.GetReason(), "LEAVE_REASON_")
					}
					row(w, p.GetPeerId(), p.GetName(), p.GetUserId(), strings.Join(p.GetRoles(), ", "),
						when(p.GetJoinedMs()), when(p.GetLeftMs()), why)
				}
			})
		},
	}
}
