package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func streamMetadata(a *app) *cobra.Command {
	var stream, id, at string
	var length time.Duration
	cmd := &cobra.Command{
		Use: "metadata ROOM TYPE [TEXT]", Short: "Put timed metadata into a stream", Args: between(2, 3),
		Long: "Puts something that happens into a running stream. Players get it as EXT-X-DATERANGE and as an ID3 tag with the picture of its moment.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if length < 0 || length > 24*time.Hour {
				return usage(fmt.Errorf("--duration %v is not within 0 to 24h", length))
			}
			m := &amphiv1.TimedMetadata{Id: id, Type: args[1], Text: optional(args, 2), DurationMs: uint32(length.Milliseconds())}
			if at != "" {
				t, err := time.Parse(time.RFC3339Nano, at)
				if err != nil {
					return usage(fmt.Errorf("--at %q is no time such as %s", at, time.RFC3339))
				}
				m.TimeMs = t.UnixMilli()
			}
			streams, err := a.streams()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, streams.SendTimedMetadata,
				&amphiv1.SendTimedMetadataRequest{Room: args[0], Stream: stream, Metadata: m})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				row(w, "ID", "TYPE", "TIME", "TEXT")
				row(w, res.GetId(), res.GetType(), time.UnixMilli(res.GetTimeMs()).UTC().Format(time.RFC3339Nano), res.GetText())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&stream, "stream", "", "stream (default main)")
	f.StringVar(&id, "id", "", "unique in the stream (default: one is made)")
	f.StringVar(&at, "at", "", "when it happens, as RFC 3339 (default now)")
	f.DurationVar(&length, "duration", 0, "how long it lasts")
	return cmd
}

func streamCaption(a *app) *cobra.Command {
	var stream, language string
	var ago, length time.Duration
	cmd := &cobra.Command{
		Use: "caption ROOM TEXT", Short: "Put a caption under the picture of a stream", Args: exactly(2),
		Long: "Puts a caption under the picture of a running stream whose template has caption_languages.",
		RunE: func(cmd *cobra.Command, args []string) error {
			streams, err := a.streams()
			if err != nil {
				return err
			}
			start := time.Now().Add(-ago)
			res, err := call(cmd.Context(), a, streams.AddCaptions, &amphiv1.AddCaptionsRequest{Room: args[0], Stream: stream, Captions: &amphiv1.Captions{
				Language: language, Captions: []*amphiv1.Caption{{StartMs: start.UnixMilli(), EndMs: start.Add(length).UnixMilli(), Text: args[1]}}}})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { row(w, "added") })
		},
	}
	f := cmd.Flags()
	f.StringVar(&stream, "stream", "", "stream (default main)")
	f.StringVar(&language, "language", "", "one of the stream's (default: its first)")
	f.DurationVar(&ago, "ago", 0, "how long ago the words were said")
	f.DurationVar(&length, "duration", 3*time.Second, "how long it is shown")
	return cmd
}
