package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// leftToDo is what revoking a certificate does not do.
const leftToDo = `
Its certificates count no more. Whoever has the key may also have:
- the key of gossip: add a new one to every node's file ("amphi keys new --gossip"), then move it to the first line, then take the old one out;
- API keys, which every node knows: give applications new ones, and disable the old ones;
- the secret that signs resume tokens and tickets of clients, for which there is no new one but with a new registry.
The node comes back with a certificate issued after this second ("amphi ca issue --ca DIR --node %s").
`

func nodeRevoke(a *app) *cobra.Command {
	var since string
	var force bool
	cmd := &cobra.Command{
		Use: "revoke NODE", Short: "Shut out a node whose key was stolen, until it has a new certificate", Args: exactly(1),
		Long: "Makes the node's certificates that were issued before now, or before --since, count no more, at every node: they are\n" +
			"refused, and connections that were made with them end. It cannot be taken back; a new certificate lets the node in again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &amphiv1.RevokeNodeRequest{Id: args[0], Force: force}
			if since != "" {
				t, err := time.Parse(time.RFC3339, since)
				if err != nil {
					return usage(fmt.Errorf("--since: %q is no time as 2006-01-02T15:04:05Z", since))
				}
				req.IssuedBeforeMs = t.UnixMilli()
			}
			nodes, err := a.nodes()
			if err != nil {
				return err
			}
			info, err := call(cmd.Context(), a, nodes.RevokeNode, req)
			if err != nil {
				return err
			}
			return a.print(cmd, info, func(w io.Writer) {
				nodeTable(w, info)
				fmt.Fprintf(w, leftToDo, args[0])
			})
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "certificates issued before this time count no more, as 2006-01-02T15:04:05Z (default: now)")
	cmd.Flags().BoolVar(&force, "force", false, "also the node that is asked, one that nobody knows, or one without which too few voters are left")
	return cmd
}
