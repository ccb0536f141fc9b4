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

func webhookCommand() *cobra.Command {
	a := &app{}
	return group("webhook", "Webhooks of a node: targets, list, replay", a, webhookTargets(a), webhookList(a), webhookReplay(a))
}

func (a *app) webhooks() (amphiv1connect.WebhookServiceClient, error) {
	return service(a, amphiv1connect.NewWebhookServiceClient)
}

func webhookTargets(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "targets", Short: "List who is told, and how that goes", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hooks, err := a.webhooks()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, hooks.ListWebhookTargets, &amphiv1.ListWebhookTargetsRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				row(w, "URL", "WAITING", "DELIVERED", "FAILING SINCE", "FAILURE")
				for _, t := range res.GetTargets() {
					row(w, t.GetUrl(), t.GetWaiting(), t.GetDelivered(), when(t.GetFailingSinceMs()), t.GetFailure())
				}
			})
		},
	}
}

// choice is the flags that choose events.
type choice struct {
	query amphiv1.WebhookQuery
	since time.Duration
}

func (c *choice) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&c.query.Room, "room", "", "only those of this room")
	flags.StringSliceVar(&c.query.Types, "type", nil, "only these types, such as recording.*")
	flags.DurationVar(&c.since, "since", 0, "only those of the last, such as 1h")
	flags.BoolVar(&c.query.Undelivered, "undelivered", false, "only those that a target has not taken")
}

func (c *choice) chosen() *amphiv1.WebhookQuery {
	if c.since > 0 {
		c.query.SinceMs = time.Now().Add(-c.since).UnixMilli()
	}
	return &c.query
}

func webhookList(a *app) *cobra.Command {
	c := &choice{}
	req := &amphiv1.ListWebhookEventsRequest{}
	cmd := &cobra.Command{
		Use: "list", Short: "List the events that the node keeps, the oldest first", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Query = c.chosen()
			hooks, err := a.webhooks()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, hooks.ListWebhookEvents, req)
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) {
				row(w, "ID", "TYPE", "ROOM", "TIME", "WAITING FOR")
				for _, e := range res.GetEvents() {
					row(w, e.GetId(), e.GetType(), e.GetRoom(), when(e.GetTimeMs()), strings.Join(e.GetWaiting(), " "))
				}
				if res.GetNext() != "" {
					fmt.Fprintf(w, "more: --after %s\n", clean(res.GetNext()))
				}
			})
		},
	}
	c.flags(cmd)
	cmd.Flags().Uint32Var(&req.Limit, "limit", 50, "how many, at most 100")
	cmd.Flags().StringVar(&req.After, "after", "", "go on behind the page before")
	return cmd
}

func webhookReplay(a *app) *cobra.Command {
	c := &choice{}
	cmd := &cobra.Command{
		Use: "replay [ID...]", Short: "Send events once more, by id or since a time", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := c.chosen()
			q.Ids = args
			hooks, err := a.webhooks()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, hooks.ReplayWebhookEvents, &amphiv1.ReplayWebhookEventsRequest{Query: q})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { row(w, "deliveries", res.GetDeliveries()) })
		},
	}
	c.flags(cmd)
	return cmd
}
