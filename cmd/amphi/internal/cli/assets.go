package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

func assetsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "assets", Short: "Files that recordings left: list, show, url, delete",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("%q is not a command of assets; see amphi record assets --help", args[0]))
			}
			return cmd.Help()
		}}
	cmd.AddCommand(assetsList(a), assetsShow(a), assetsURL(a), assetsDelete(a))
	for _, c := range cmd.Commands() {
		c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	}
	return cmd
}

func (a *app) assets() (amphiv1connect.AssetServiceClient, error) {
	return service(a, amphiv1connect.NewAssetServiceClient)
}

const (
	assetTypes  = "program, playlist, track, chat, thumbnail"
	assetStates = "recording, processing, uploading, ready, failed"
)

// word reads an enum value's word; empty is none of them.
func word[E ~int32](what, given, prefix, known string, values map[string]int32) (E, error) {
	v, ok := values[prefix+strings.ToUpper(strings.ReplaceAll(given, "-", "_"))]
	if given != "" && (!ok || v == 0) {
		return 0, usage(fmt.Errorf("%s %q is none of %s", what, given, known))
	}
	return E(v), nil
}

func assetTable(w io.Writer, assets ...*amphiv1.Asset) {
	row(w, "ID", "TYPE", "STATE", "ROOM", "STREAM", "PART", "STARTED", "DURATION", "SIZE", "KEY", "FAILURE")
	for _, x := range assets {
		row(w, x.GetId(), enum(x.GetType(), "ASSET_TYPE_"), enum(x.GetState(), "ASSET_STATE_"), x.GetRoom(),
			strings.TrimSpace(x.GetStream()+" "+x.GetVariant()), x.GetPart(), when(x.GetStartedMs()),
			time.Duration(x.GetDurationMs())*time.Millisecond, size(x.GetSize()), x.GetKey(), x.GetFailure())
	}
}

func assetsList(a *app) *cobra.Command {
	var kind, state string
	req := &amphiv1.ListAssetsRequest{}
	cmd := &cobra.Command{
		Use: "list", Short: "List files, the newest first", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Type, err = word[amphiv1.AssetType]("type", kind, "ASSET_TYPE_", assetTypes, amphiv1.AssetType_value); err != nil {
				return err
			}
			if req.State, err = word[amphiv1.AssetState]("state", state, "ASSET_STATE_", assetStates, amphiv1.AssetState_value); err != nil {
				return err
			}
			assets, err := a.assets()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, assets.ListAssets, req)
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				assetTable(w, res.GetAssets()...)
				if res.GetNext() != "" {
					fmt.Fprintf(w, "more: --after '%s'\n", clean(res.GetNext()))
				}
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Room, "room", "", "only those of this room")
	flags.StringVar(&req.SessionId, "session", "", "only those of this session")
	flags.StringVar(&req.OutputId, "recording", "", "only those of this recording")
	flags.StringVar(&kind, "type", "", assetTypes)
	flags.StringVar(&state, "state", "", assetStates)
	flags.Uint32Var(&req.Limit, "limit", 50, "how many, at most 100")
	flags.StringVar(&req.After, "after", "", "go on behind the page before")
	return cmd
}

func assetsShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a file's record", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			assets, err := a.assets()
			if err != nil {
				return err
			}
			x, err := call(cmd.Context(), a, assets.GetAsset, &amphiv1.GetAssetRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, x, func(w io.Writer) {
				assetTable(w, x)
				row(w, "checksum", x.GetChecksum())
				row(w, "session", x.GetSessionId())
				row(w, "recording", x.GetOutputId())
			})
		},
	}
}

func assetsURL(a *app) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "url ID", Short: "Print an address at which whoever has it can fetch the file", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl < time.Second || ttl%time.Second != 0 {
				return usage(fmt.Errorf("--ttl %v: want whole seconds", ttl))
			}
			assets, err := a.assets()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, assets.PresignAsset, &amphiv1.PresignAssetRequest{Id: args[0], TtlS: uint32(ttl / time.Second)})
			if err != nil {
				return err
			}
			res.Url = address(a.url, res.GetUrl())
			return a.print(cmd, res, func(w io.Writer) { fmt.Fprintln(w, clean(res.GetUrl())) })
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "for how long, at most 168h")
	return cmd
}

func assetsDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete ID", Short: "Delete a file and its record", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			assets, err := a.assets()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, assets.DeleteAsset, &amphiv1.DeleteAssetRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { row(w, "deleted", args[0]) })
		},
	}
}
