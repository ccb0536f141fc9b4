package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

func recordCommand() *cobra.Command {
	a := &app{}
	return group("record", "Recordings: start, stop, pause, resume, list, and the files that they left", a,
		recordStart(a),
		recordChange(a, "stop ROOM [ID]", "Stop a recording, or all of the room; its files are finished afterwards", amphiv1connect.RecordingServiceClient.StopRecording),
		recordChange(a, "pause ROOM [ID]", "Leave out what happens from now on", amphiv1connect.RecordingServiceClient.PauseRecording),
		recordChange(a, "resume ROOM [ID]", "Go on with what was paused", amphiv1connect.RecordingServiceClient.ResumeRecording),
		recordList(a), assetsCommand(a))
}

func (a *app) recordings() (amphiv1connect.RecordingServiceClient, error) {
	return service(a, amphiv1connect.NewRecordingServiceClient)
}

func outputTable(w io.Writer, outputs ...*amphiv1.Output) {
	row(w, "ID", "KIND", "STREAM", "STATE", "SINCE", "SIZE", "RETRIES", "TARGET", "FAILURE")
	for _, o := range outputs {
		target := o.GetUrl()
		if o.GetDestination() != "" {
			target = strings.TrimSpace(o.GetDestination() + " " + target)
		}
		row(w, o.GetId(), enum(o.GetKind(), "OUTPUT_KIND_"), strings.TrimSpace(o.GetStream()+" "+o.GetVariant()), enum(o.GetState(), "OUTPUT_STATE_"),
			when(o.GetStateMs()), size(o.GetBytes()), o.GetRetries(), target, o.GetFailure())
	}
}

// size is a number of bytes as people read it.
func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func recordStart(a *app) *cobra.Command {
	req := &amphiv1.StartRecordingRequest{Filter: &amphiv1.TrackFilter{}}
	cmd := &cobra.Command{
		Use: "start ROOM [STREAM]", Short: "Record a stream, or tracks", Args: between(1, 2),
		Long: "Records a stream's program; a stream that does not run is started. With --tracks it records\nwhat people publish, a file for each track, without a stream.",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Room, req.Stream = args[0], optional(args, 1)
			f := req.Filter
			if !req.Tracks {
				if len(f.Roles)+len(f.Peers)+len(f.Sources) > 0 {
					return usage(errors.New("--role, --peer and --source go with --tracks"))
				}
				req.Filter = nil
			}
			recordings, err := a.recordings()
			if err != nil {
				return err
			}
			o, err := call(cmd.Context(), a, recordings.StartRecording, req)
			if err != nil {
				return err
			}
			return a.print(cmd, o, func(w io.Writer) { outputTable(w, o) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Variant, "variant", "", "record this variant only (default: all)")
	flags.StringVar(&req.Destination, "destination", "", "start what the room's template provides for under this name")
	flags.BoolVar(&req.Tracks, "tracks", false, "record tracks as they are published")
	flags.StringSliceVar(&req.Filter.Roles, "role", nil, "only tracks of these roles")
	flags.StringSliceVar(&req.Filter.Peers, "peer", nil, "only tracks of these peers")
	flags.StringSliceVar(&req.Filter.Sources, "source", nil, "only these sources, such as mic")
	return cmd
}

// changeOutputs is the method of a service that changes one output, or all.
type changeOutputs[T any] func(T, context.Context, *connect.Request[amphiv1.OutputRequest]) (*connect.Response[amphiv1.OutputsResponse], error)

// outputChange is a command that changes one output, or all.
func outputChange[T any](a *app, use, short string, client func() (T, error), method changeOutputs[T]) *cobra.Command {
	var stream string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := client()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, func(ctx context.Context, r *connect.Request[amphiv1.OutputRequest]) (*connect.Response[amphiv1.OutputsResponse], error) {
				return method(c, ctx, r)
			}, &amphiv1.OutputRequest{Room: args[0], Id: optional(args, 1), Stream: stream})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { outputTable(w, res.GetOutputs()...) })
		},
	}
	cmd.Flags().StringVar(&stream, "stream", "", "only those of this stream")
	return cmd
}

func recordChange(a *app, use, short string, method changeOutputs[amphiv1connect.RecordingServiceClient]) *cobra.Command {
	return outputChange(a, use, short, a.recordings, method)
}

func recordList(a *app) *cobra.Command {
	req := &amphiv1.ListOutputsRequest{}
	cmd := &cobra.Command{
		Use: "list ROOM", Short: "List the recordings of the session that runs", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Room = args[0]
			recordings, err := a.recordings()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, recordings.ListRecordings, req)
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { outputTable(w, res.GetOutputs()...) })
		},
	}
	cmd.Flags().BoolVar(&req.ActiveOnly, "active", false, "only those that have not ended")
	return cmd
}
