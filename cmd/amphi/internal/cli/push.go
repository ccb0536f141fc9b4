package cli

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

func pushCommand() *cobra.Command {
	a := &app{}
	return group("push", "Pushes to other servers over RTMP, RTMPS or SRT: add, remove, retry, list", a,
		pushAdd(a),
		outputChange(a, "remove ROOM [ID]", "End a push, or all of the room", a.pushes, amphiv1connect.PushServiceClient.RemovePush),
		outputChange(a, "retry ROOM [ID]", "Try a push at once that waits, or one by its id that has failed", a.pushes, amphiv1connect.PushServiceClient.RetryPush),
		pushList(a))
}

func (a *app) pushes() (amphiv1connect.PushServiceClient, error) {
	return service(a, amphiv1connect.NewPushServiceClient)
}

func pushAdd(a *app) *cobra.Command {
	req := &amphiv1.AddPushRequest{}
	cmd := &cobra.Command{
		Use: "add ROOM [URL]", Short: "Push a stream to a server", Args: between(1, 2),
		Long: "Pushes a stream's program to rtmp://, rtmps:// or srt://; a stream that does not run is started.\nThe URL's secrets are shown to nobody afterwards. With - the URL is read from the standard input.",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Room, req.Url = args[0], optional(args, 1)
			if (req.Url == "") == (req.Destination == "") {
				return usage(errors.New("give a URL, or a destination of the template with --destination"))
			}
			if req.Url == "-" {
				data, err := readInput(cmd, "-")
				if err != nil {
					return err
				}
				req.Url = strings.TrimSpace(string(data))
			}
			pushes, err := a.pushes()
			if err != nil {
				return err
			}
			o, err := call(cmd.Context(), a, pushes.AddPush, req)
			if err != nil {
				return err
			}
			return a.print(cmd, o, func(w io.Writer) { outputTable(w, o) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Stream, "stream", "", "stream (default main)")
	flags.StringVar(&req.Variant, "variant", "", "push this variant (default: the best)")
	flags.StringVar(&req.Destination, "destination", "", "start what the room's template provides for under this name")
	return cmd
}

func pushList(a *app) *cobra.Command {
	req := &amphiv1.ListOutputsRequest{}
	cmd := &cobra.Command{
		Use: "list ROOM", Short: "List the pushes of the session that runs", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Room = args[0]
			pushes, err := a.pushes()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, pushes.ListPushes, req)
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { outputTable(w, res.GetOutputs()...) })
		},
	}
	cmd.Flags().BoolVar(&req.ActiveOnly, "active", false, "only those that have not ended")
	return cmd
}
