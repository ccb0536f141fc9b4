package cli

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	gproto "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// look are the flags of a layout's options. Those that are given change what is in force.
type look struct {
	file, pin, fit, highlight, background, picture, logo, corner string
	tiles, gap, margin, logoSize, logoOpacity, fade              uint32
	names, reset                                                 bool
}

const (
	fitWords    = "cover, contain"
	cornerWords = "top-left, top-right, bottom-left, bottom-right"
)

func (l *look) flags(f *pflag.FlagSet) {
	f.StringVar(&l.file, "options", "", "file with all options as JSON, in place of those in force")
	f.BoolVar(&l.reset, "reset", false, "go back to the default options first")
	f.StringVar(&l.pin, "pin", "", `peer that is large instead of who speaks, "" for none`)
	f.Uint32Var(&l.tiles, "tiles", 0, "the most tiles at once, 1 to 16; 0 is as many as fit")
	f.Uint32Var(&l.gap, "gap", 0, "between tiles, in thousandths of the shorter side")
	f.Uint32Var(&l.margin, "margin", 0, "around all tiles, in thousandths of the shorter side")
	f.StringVar(&l.fit, "fit", "", "cameras: "+fitWords)
	f.BoolVar(&l.names, "names", true, "names on tiles")
	f.StringVar(&l.highlight, "highlight", "", `border around who speaks: #rrggbb, "none", "" for the default`)
	f.StringVar(&l.background, "background", "", "#rrggbb")
	f.StringVar(&l.picture, "background-picture", "", `uploaded picture that fills the background, "" for none`)
	f.StringVar(&l.logo, "logo", "", `uploaded picture on top of everything, "" for none`)
	f.StringVar(&l.corner, "logo-corner", "", cornerWords)
	f.Uint32Var(&l.logoSize, "logo-size", 0, "height, in thousandths of the shorter side; 0 is the default")
	f.Uint32Var(&l.logoOpacity, "logo-opacity", 0, "per cent; 0 is the default")
	f.Uint32Var(&l.fade, "fade", 0, "how long changes fade, in ms")
}

// given tells whether any of the flags is there.
func (l *look) given(f *pflag.FlagSet) bool {
	given := false
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(look).flags(own)
	f.Visit(func(x *pflag.Flag) { given = given || own.Lookup(x.Name) != nil })
	return given
}

// apply changes options as the flags say.
func (l *look) apply(f *pflag.FlagSet, o *amphiv1.LayoutOptions) error {
	if l.reset {
		gproto.Reset(o)
	}
	if l.file != "" {
		b, err := os.ReadFile(l.file)
		if err != nil {
			return usage(err)
		}
		gproto.Reset(o)
		if err := protojson.Unmarshal(b, o); err != nil {
			return usage(fmt.Errorf("reading %s: %w", l.file, err))
		}
	}
	for name, set := range map[string]func() error{
		"pin":                func() error { o.PinnedPeer = l.pin; return nil },
		"tiles":              func() error { o.MaxTiles = l.tiles; return nil },
		"gap":                func() error { o.Gap = &l.gap; return nil },
		"margin":             func() error { o.Margin = l.margin; return nil },
		"names":              func() error { o.Names = &l.names; return nil },
		"highlight":          func() error { o.Highlight = l.highlight; return nil },
		"background":         func() error { o.Background = l.background; return nil },
		"background-picture": func() error { o.BackgroundPicture = l.picture; return nil },
		"fade":               func() error { o.FadeMs = &l.fade; return nil },
		"fit": func() (err error) {
			o.Fit, err = word[amphiv1.TileFit]("fit", l.fit, "TILE_FIT_", fitWords, amphiv1.TileFit_value)
			return err
		},
	} {
		if f.Changed(name) {
			if err := set(); err != nil {
				return err
			}
		}
	}
	if err := l.applyLogo(f, o); err != nil {
		return err
	}
	if err := proto.CheckLayout(o); err != nil {
		return usage(err)
	}
	return nil
}

func (l *look) applyLogo(f *pflag.FlagSet, o *amphiv1.LayoutOptions) error {
	if f.Changed("logo") && l.logo == "" {
		o.Logo = nil
		return nil
	}
	if !slices.ContainsFunc([]string{"logo", "logo-corner", "logo-size", "logo-opacity"}, f.Changed) {
		return nil
	}
	if o.Logo == nil {
		o.Logo = &amphiv1.Logo{}
	}
	if l.logo != "" {
		o.Logo.Picture = l.logo
	}
	if f.Changed("logo-size") {
		o.Logo.Size = l.logoSize
	}
	if f.Changed("logo-opacity") {
		o.Logo.Opacity = l.logoOpacity
	}
	if !f.Changed("logo-corner") {
		return nil
	}
	var err error
	o.Logo.Corner, err = word[amphiv1.Corner]("corner", l.corner, "CORNER_", cornerWords, amphiv1.Corner_value)
	return err
}

func streamLayout(a *app) *cobra.Command {
	var stream string
	var l look
	cmd := &cobra.Command{
		Use: "layout ROOM [LAYOUT]", Short: "Change a stream's layout while it runs", Args: between(1, 2),
		Long: "Changes the layout of a stream: " + layoutWords + ", and how it looks. Options that are not named stay as they are.",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := layout(optional(args, 1))
			if err != nil {
				return err
			}
			options := l.given(cmd.Flags())
			if kind == amphiv1.LayoutKind_LAYOUT_KIND_UNSPECIFIED && !options {
				return usage(fmt.Errorf("name a layout (%s) or an option", layoutWords))
			}
			streams, err := a.streams()
			if err != nil {
				return err
			}
			req := &amphiv1.SetLayoutRequest{Room: args[0], Stream: stream, Layout: kind}
			if options {
				list, err := call(cmd.Context(), a, streams.ListStreams, &amphiv1.ListStreamsRequest{Room: args[0]})
				if err != nil {
					return err
				}
				req.LayoutOptions = inForce(list.GetStreams(), stream)
				if err := l.apply(cmd.Flags(), req.LayoutOptions); err != nil {
					return err
				}
			}
			s, err := call(cmd.Context(), a, streams.SetLayout, req)
			if err != nil {
				return err
			}
			return a.print(cmd, s, func(w io.Writer) { streamTable(w, a.url, s) })
		},
	}
	cmd.Flags().StringVar(&stream, "stream", "", "stream (default main)")
	l.flags(cmd.Flags())
	return cmd
}

// inForce finds the options that a stream has.
func inForce(list []*amphiv1.Stream, name string) *amphiv1.LayoutOptions {
	if name == "" {
		name = "main"
	}
	for _, s := range list {
		if s.GetName() == name && s.GetLayoutOptions() != nil {
			return s.GetLayoutOptions()
		}
	}
	return &amphiv1.LayoutOptions{}
}

func streamPicture(a *app) *cobra.Command {
	return group("picture", "Pictures for backgrounds and logos: put, list, delete", a,
		&cobra.Command{
			Use: "put NAME FILE", Short: "Upload a PNG or JPEG of at most 2 MiB", Args: exactly(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				data, err := os.ReadFile(args[1])
				if err != nil {
					return usage(err)
				}
				streams, err := a.streams()
				if err != nil {
					return err
				}
				p, err := call(cmd.Context(), a, streams.PutPicture, &amphiv1.PutPictureRequest{Name: args[0], Data: data})
				if err != nil {
					return err
				}
				return a.print(cmd, p, func(w io.Writer) { pictureTable(w, p) })
			},
		},
		&cobra.Command{
			Use: "list", Short: "List the uploaded pictures", Args: exactly(0),
			RunE: func(cmd *cobra.Command, _ []string) error {
				streams, err := a.streams()
				if err != nil {
					return err
				}
				res, err := call(cmd.Context(), a, streams.ListPictures, &amphiv1.ListPicturesRequest{})
				if err != nil {
					return err
				}
				return a.print(cmd, res, func(w io.Writer) { pictureTable(w, res.GetPictures()...) })
			},
		},
		&cobra.Command{
			Use: "delete NAME", Short: "Delete a picture", Args: exactly(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				streams, err := a.streams()
				if err != nil {
					return err
				}
				_, err = call(cmd.Context(), a, streams.DeletePicture, &amphiv1.DeletePictureRequest{Name: args[0]})
				return err
			},
		})
}

func pictureTable(w io.Writer, pictures ...*amphiv1.Picture) {
	row(w, "PICTURE", "PIXELS", "BYTES", "UPDATED")
	for _, p := range pictures {
		row(w, p.GetName(), fmt.Sprintf("%dx%d", p.GetWidth(), p.GetHeight()), p.GetBytes(), when(p.GetUpdatedMs()))
	}
}
