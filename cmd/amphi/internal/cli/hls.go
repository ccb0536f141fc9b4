package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/hls/validate"
)

func hlsCommand() *cobra.Command {
	a := &app{}
	return group("hls", "What a stream serves: check it by the rules of RFC 8216bis", a, hlsCheck(a))
}

// breach is a fault as the command prints it.
type breach struct {
	Where   string `json:"where"`
	Text    string `json:"text"`
	Rule    string `json:"rule"`
	Section string `json:"section"`
	Wants   string `json:"wants"`
}

// judgement is what came out.
type judgement struct {
	Playlists int      `json:"playlists"`
	Objects   int      `json:"objects"`
	Bytes     int64    `json:"bytes"`
	Total     int      `json:"faults"`
	Faults    []breach `json:"list"`
}

func hlsCheck(a *app) *cobra.Command {
	var length time.Duration
	var lists bool
	cmd := &cobra.Command{
		Use: "check URL", Short: "Play a stream for a while and say which rules of RFC 8216bis it breaks", Args: exactly(1),
		Long: "Follows all media playlists of the multivariant playlist at URL as a low-latency player does, fetches what they list,\n" +
			"and says which rules of RFC 8216bis are broken. The stream may be anybody's. Ends with status 1 when there are faults.",
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := url.Parse(args[0])
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return usage(fmt.Errorf("%q is not the address of a playlist", args[0]))
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), length)
			defer cancel()
			client := a.httpClient()
			defer client.CloseIdleConnections()
			c, err := validate.Follow(ctx, validate.Config{URL: args[0], Client: client, PlaylistsOnly: lists})
			if err != nil {
				return &problem{err: err, advice: "Is the stream on? amphi stream list ROOM says, and gives its address.", exit: exitUnreachable}
			}
			j := judged(c)
			if err := a.printValue(cmd, j, j.print); err != nil {
				return err
			}
			if j.Total > 0 {
				return &problem{err: errors.New("the stream breaks rules"), exit: exitFailed}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&length, "for", 30*time.Second, "how long to play")
	cmd.Flags().BoolVar(&lists, "playlists", false, "look at playlists only")
	return cmd
}

func judged(c *validate.Checker) judgement {
	list, total := c.Faults()
	s := c.Stats()
	j := judgement{Playlists: s.Playlists, Objects: s.Parts + s.Segments + s.Inits + s.Captions, Bytes: s.Bytes, Total: total, Faults: []breach{}}
	for _, f := range list {
		j.Faults = append(j.Faults, breach{f.Where, f.Text, string(f.Rule), f.Rule.Section(), f.Rule.Text()})
	}
	return j
}

func (j *judgement) print(w io.Writer) {
	for _, f := range j.Faults {
		row(w, "§ "+f.Section, f.Rule, f.Where, f.Text)
	}
	fmt.Fprintf(w, "%d playlists and %d objects (%d kB) looked at, %d faults\n", j.Playlists, j.Objects, j.Bytes/1000, j.Total)
}
