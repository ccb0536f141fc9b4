package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	protobuf "google.golang.org/protobuf/proto"
)

// print writes msg as JSON, or what text writes for people.
func (a *app) print(cmd *cobra.Command, msg protobuf.Message, text func(w io.Writer)) error {
	out := cmd.OutOrStdout()
	if a.json {
		data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(msg)
		if err != nil {
			return fmt.Errorf("encoding the output: %w", err)
		}
		return writeJSON(out, json.RawMessage(data))
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// printValue is print for what is no protobuf message.
func (a *app) printValue(cmd *cobra.Command, v any, text func(w io.Writer)) error {
	if a.json {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// writeJSON indents by itself: protojson varies its own spacing on purpose.
func writeJSON(out io.Writer, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the output: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", data)
	return err
}

// row writes one line of a table; what could break the table or the terminal is made harmless.
func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, clean(fmt.Sprint(c)))
	}
	fmt.Fprintln(w)
}

func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s
}

// when is a time in milliseconds since 1970 as people read it.
func when(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z")
}

func yes(b bool, word string) string {
	if b {
		return word
	}
	return ""
}

// enum is the short form of an enum value's name: "live" for STREAM_STATE_LIVE.
func enum(v fmt.Stringer, prefix string) string {
	s := strings.ToLower(strings.TrimPrefix(v.String(), prefix))
	return strings.ReplaceAll(s, "_", "-")
}
