package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const layoutWords = "auto, grid, active-speaker, screen, single, picture-in-picture"

func streamCommand() *cobra.Command {
	a := &app{}
	return group("stream", "Composite streams: start, stop, list, layout, picture, url, metadata, caption", a,
		streamStart(a), streamStop(a), streamList(a), streamLayout(a), streamPicture(a), streamURL(a), streamMetadata(a), streamCaption(a))
}

func streamTable(w io.Writer, url string, streams ...*amphiv1.Stream) {
	row(w, "STREAM", "STATE", "LAYOUT", "STARTED", "URL", "FAILURE")
	for _, s := range streams {
		row(w, s.GetName(), enum(s.GetState(), "STREAM_STATE_"), enum(s.GetLayout(), "LAYOUT_KIND_"),
			when(s.GetStartedMs()), address(url, s.GetUrl()), s.GetFailure())
	}
}

// address is where a path of the node is found.
func address(url, path string) string {
	if path == "" || strings.Contains(path, "://") {
		return path
	}
	return strings.TrimSuffix(url, "/") + "/" + strings.TrimPrefix(path, "/")
}

// layout reads a layout's word; empty leaves it as it is.
func layout(given string) (amphiv1.LayoutKind, error) {
	return word[amphiv1.LayoutKind]("layout", given, "LAYOUT_KIND_", layoutWords, amphiv1.LayoutKind_value)
}

func optional(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

func streamStart(a *app) *cobra.Command {
	var word string
	cmd := &cobra.Command{
		Use: "start ROOM [STREAM]", Short: "Start a stream of a room (\"go live\")", Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := layout(word)
			if err != nil {
				return err
			}
			streams, err := a.streams()
			if err != nil {
				return err
			}
			s, err := call(cmd.Context(), a, streams.StartStream,
				&amphiv1.StartStreamRequest{Room: args[0], Stream: optional(args, 1), Layout: kind})
			if err != nil {
				return err
			}
			if err := a.print(cmd, s, func(w io.Writer) { streamTable(w, a.url, s) }); err != nil {
				return err
			}
			return streamFailure(s)
		},
	}
	cmd.Flags().StringVar(&word, "layout", "", layoutWords)
	return cmd
}

// streamFailure is the error of a stream that could not be started.
func streamFailure(s *amphiv1.Stream) error {
	if s.GetState() != amphiv1.StreamState_STREAM_STATE_FAILED {
		return nil
	}
	return &problem{
		err:    proto.Errorf(proto.StreamFailed, "stream %s: %s", s.GetName(), s.GetFailure()),
		advice: advice[proto.StreamFailed], exit: exitRefused,
	}
}

func streamStop(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "stop ROOM [STREAM]", Short: "Stop a stream", Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			streams, err := a.streams()
			if err != nil {
				return err
			}
			s, err := call(cmd.Context(), a, streams.StopStream,
				&amphiv1.StopStreamRequest{Room: args[0], Stream: optional(args, 1)})
			if err != nil {
				return err
			}
			return a.print(cmd, s, func(w io.Writer) { streamTable(w, a.url, s) })
		},
	}
}

func streamList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list ROOM", Short: "List a room's streams", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			streams, err := a.streams()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, streams.ListStreams, &amphiv1.ListStreamsRequest{Room: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { streamTable(w, a.url, res.GetStreams()...) })
		},
	}
}

func streamURL(a *app) *cobra.Command {
	var user string
	var life time.Duration
	cmd := &cobra.Command{
		Use: "url ROOM [STREAM]", Short: "Make a URL with which one viewer plays a stream", Args: between(1, 2),
		Long: "Prints the URL of a stream's playlist, with a playback token of its own for this viewer where the room's template does\n" +
			"not leave the stream open to everybody. The token is good for playing alone.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if life < 0 || life%time.Second != 0 {
				return usage(fmt.Errorf("--ttl %v: want whole seconds", life))
			}
			streams, err := a.streams()
			if err != nil {
				return err
			}
			p, err := call(cmd.Context(), a, streams.CreatePlaybackUrl, &amphiv1.CreatePlaybackUrlRequest{
				Room: args[0], Stream: optional(args, 1), UserId: user, TtlS: uint32(life / time.Second)})
			if err != nil {
				return err
			}
			return a.print(cmd, p, func(w io.Writer) { fmt.Fprintln(w, address(a.url, p.GetUrl())) })
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "the viewer's user id")
	cmd.Flags().DurationVar(&life, "ttl", 0, "how long the URL is good (default 24h, at most 90 days)")
	return cmd
}
