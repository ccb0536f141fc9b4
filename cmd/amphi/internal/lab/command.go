package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/wire"
)

// options are the command's flags.
type options struct {
	topology, name, dir, program, json string
	seed                               uint64
	only                               []string
	short, list, verbose, sound        bool
	runs                               int
	limit                              time.Duration
}

// Command is "amphi lab".
func Command() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Rehearse failures on a cluster of this machine's own",
		Long: `Runs a cluster of real nodes in network namespaces of this machine, joined by an emulated network,
with peers that send, watch, talk and write; breaks it by script; and tells what they noticed. Needs root and Linux.

A topology is "solo", "three" (three regions of two nodes, 80 ms apart), "eight", or a JSON file like that
which "amphi lab topology three" prints.`,
		Example: "  amphi lab --short\n  amphi lab --only 'kill -9: gateway' --runs 30\n  amphi lab up --topology three",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.topology, "topology", "three", "solo, three, eight, or a JSON file")
	f.StringVar(&o.name, "name", "lab", "letters and digits; labs of different names may run at the same time")
	f.StringVar(&o.dir, "dir", "", "directory for the nodes' configurations, data and logs (default: amphi-NAME in the temporary directory)")
	f.StringVar(&o.program, "program", "", "the amphi binary that the nodes run (default: this one)")
	f.Uint64Var(&o.seed, "seed", 1, "decides what the network loses")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what happens to each peer")
	own := cmd.Flags()
	own.StringSliceVar(&o.only, "only", nil, "only scenarios whose name contains one of these")
	own.BoolVar(&o.sound, "sound", false, "fail only for what is lost, doubled, out of order or gone for good: for machines that are busy")
	own.BoolVar(&o.short, "short", false, "fewer and shorter scenarios: minutes instead of an hour")
	own.BoolVar(&o.list, "list", false, "list the scenarios")
	own.IntVar(&o.runs, "runs", 1, "how often to run each")
	own.StringVar(&o.json, "json", "", "also write all results to this file")
	own.DurationVar(&o.limit, "limit", 4*time.Hour, "end after so long, with the results so far")
	cmd.AddCommand(o.upCommand(), o.topologyCommand(), networkCommand())
	return cmd
}

// networkCommand is the network's process; the lab starts it.
func networkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "network", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return wire.Serve(cmd.Context(), os.Stdin, os.Stdout) },
	}
}

func (o *options) topologyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "topology NAME", Short: "Print a topology as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := ReadTopology(args[0])
			if err != nil {
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(t)
		},
	}
}

func (o *options) upCommand() *cobra.Command {
	return &cobra.Command{
		Use: "up", Short: "Start the cluster and leave it to you, until Ctrl-C", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := o.open(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			err = l.Start(cmd.Context())
			if err == nil {
				l.describe(cmd.OutOrStdout())
				<-cmd.Context().Done()
			}
			return errors.Join(err, l.Close())
		},
	}
}

// describe tells an operator where everything is.
func (l *Lab) describe(w io.Writer) {
	fmt.Fprintf(w, "The cluster is up. Nodes, with their directories below %s:\n\n", l.cfg.Dir)
	for _, p := range l.nodes {
		fmt.Fprintf(w, "  %-8s %-6s %v  %s   ip netns exec %s%s COMMAND\n", p.ID, p.Region, p.Roles, p.url, l.cfg.Prefix, p.ID)
	}
	fmt.Fprintf(w, "\nClients of a region: ip netns exec %s COMMAND\nKey: %s   Secret: %s\nEnd: Ctrl-C\n",
		l.cfg.Prefix+clientsOf("REGION"), l.key, l.secret)
}

// open makes the lab that the flags ask for.
func (o *options) open(ctx context.Context, logs io.Writer) (*Lab, error) {
	t, err := ReadTopology(o.topology)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if strings.IndexFunc(o.name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) >= 0 || o.name == "" {
		return nil, fmt.Errorf("--name %q: want letters and digits", o.name)
	}
	if o.dir == "" {
		o.dir = filepath.Join(os.TempDir(), "amphi-"+o.name)
	}
	cfg := Config{
		Topology: t, Seed: o.seed, Program: o.program, Dir: o.dir, Prefix: "amphi-" + o.name + "-", Switch: func() *exec.Cmd { return exec.Command(self, "lab", "network") },
	}
	if cfg.Program == "" {
		cfg.Program = self
	}
	if o.verbose {
		cfg.Logger = slog.New(slog.NewTextHandler(logs, nil))
	}
	return New(ctx, cfg)
}

func (o *options) run(ctx context.Context, out, logs io.Writer) error {
	t, err := ReadTopology(o.topology)
	if err != nil {
		return err
	}
	scenarios := Choose(Matrix(o.short), o.short, t.Alone, o.only)
	if o.list {
		for _, sc := range scenarios {
			fmt.Fprintln(out, sc.Name())
		}
		return nil
	}
	if len(scenarios) == 0 || o.runs < 1 {
		return fmt.Errorf("no scenario has %q in its name; see --list", o.only)
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	l, err := o.open(ctx, logs)
	if err != nil {
		return err
	}
	rep := l.Run(ctx, scenarios, o.runs, func(r *Result) {
		fmt.Fprintf(logs, "%s %-36s %-6s %s\n", time.Now().Format("15:04:05"), r.Scenario, r.Node, r.verdict())
	})
	if err := l.Close(); err != nil {
		fmt.Fprintln(logs, "closing the lab:", err)
	}
	if o.json != "" {
		err = errors.Join(err, writeFile(o.json, rep))
	}
	if err = errors.Join(err, rep.WriteText(out)); err != nil {
		return err
	}
	for i := range rep.Results {
		r := &rep.Results[i]
		if o.sound && !r.Sound() {
			return fmt.Errorf("the cluster failed at %q", r.Scenario)
		}
		if !o.sound && !r.Passed() {
			return errors.New("the cluster missed targets")
		}
	}
	return nil
}

func writeFile(name string, rep *Report) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return errors.Join(rep.WriteJSON(f), f.Close())
}

// Run plays scenarios one after the other, each a number of times, until ctx ends. After one that left
// the cluster broken, all nodes are started anew, so that the next is judged on its own.
func (l *Lab) Run(ctx context.Context, scenarios []*Scenario, runs int, each func(*Result)) *Report {
	rep := &Report{Topology: l.cfg.Topology.Name, Seed: l.cfg.Seed}
	for i, sc := range scenarios {
		for n := range runs {
			if ctx.Err() != nil {
				return rep
			}
			playing, cancel := context.WithTimeout(ctx, sc.fault.hold+sc.lasts+longest)
			r := l.Play(playing, sc, n+1, fmt.Sprintf("lab-%d-%d", i+1, n+1))
			cancel()
			rep.Results = append(rep.Results, r)
			each(&r)
			if st, err := l.net.wire.Stats(); err == nil {
				rep.Wire = st
			}
			if r.Failed != "" {
				l.reset()
			}
		}
	}
	return rep
}

// longest bounds a scenario besides its own duration.
const longest = 5 * time.Minute

// reset ends all nodes; the next scenario starts them.
func (l *Lab) reset() {
	_ = l.net.Mend(faultName) // nothing may be broken
	for _, p := range l.nodes {
		p.kill()
	}
}
