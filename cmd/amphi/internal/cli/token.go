package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/proto"
	"github.com/amphi-sfu/amphi/signal/auth"
)

func tokenCommand() *cobra.Command {
	a := &app{}
	var c claims
	var management, play bool
	cmd := a.flags(&cobra.Command{
		Use:   "token --room ROOM --role ROLE",
		Short: "Make a token",
		Long: "Makes an app token, with which a client joins a room with a role. With --management it makes one for the\n" +
			"management API, with --play one for HLS playback. Nothing is sent to the server.",
		Example: "  amphi token --room demo --role host\n  amphi token --management --ttl 1h",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.choose(management, play); err != nil {
				return usage(err)
			}
			key, secret, err := a.credentials()
			if err != nil {
				return err
			}
			token, err := sign(key, secret, c)
			if err != nil {
				return usage(err)
			}
			out := struct {
				Token     string `json:"token"`
				ExpiresMS int64  `json:"expiresMs"`
			}{token, time.Now().Add(c.Life).UnixMilli()}
			return a.printValue(cmd, out, func(w io.Writer) { fmt.Fprintln(w, token) })
		},
	})
	f := cmd.Flags()
	f.StringVar(&c.Room, "room", "", "room to join")
	f.StringVar(&c.Role, "role", "", "role in it")
	f.StringVar(&c.User, "user", "", "user id")
	f.StringVar(&c.Name, "name", "", "shown name")
	f.DurationVar(&c.Life, "ttl", 24*time.Hour, "how long it is valid, up to 2160h")
	f.BoolVar(&management, "management", false, "make a management token")
	f.BoolVar(&play, "play", false, "make a playback token")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	return cmd
}

// claims are what a token says; proto/PROTOCOL.md section 1.
type claims struct {
	Type auth.Type
	Room string
	Role string
	User string
	Name string
	Life time.Duration
}

// choose sets the type and checks what it needs.
func (c *claims) choose(management, play bool) error {
	switch {
	case management && play:
		return errors.New("--management and --play exclude each other")
	case management:
		c.Type = auth.Management
		if c.Room != "" || c.Role != "" {
			return errors.New("a management token has no --room or --role")
		}
		return nil
	case play:
		c.Type = auth.Play
	default:
		c.Type = auth.App
		if c.Role == "" {
			return errors.New("an app token needs --room and --role")
		}
	}
	if !proto.ValidRoomName(c.Room) {
		return fmt.Errorf("--room %q: want 1 to %d of a-z, A-Z, 0-9, \".\", \"-\", \"_\"", c.Room, proto.MaxRoomName)
	}
	return nil
}

// sign makes a token with an API key's secret.
func sign(key, secret string, c claims) (string, error) {
	if c.Life <= 0 || c.Life > auth.MaxLife {
		return "", fmt.Errorf("a token's life of %v is not between 1s and %v", c.Life, auth.MaxLife)
	}
	now := time.Now()
	return auth.Signer{KeyID: key, Secret: secret}.Mint(auth.Grant{
		Type: c.Type, Room: c.Room, Role: c.Role, UserID: c.User, Name: c.Name, IssuedAt: now, ExpiresAt: now.Add(c.Life),
	})
}
