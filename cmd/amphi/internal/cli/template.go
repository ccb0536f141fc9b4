package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func templateCommand() *cobra.Command {
	a := &app{}
	return group("template", "Templates: get, set, list", a,
		templateList(a), templateGet(a), templateSet(a), templateDelete(a))
}

func templateTable(templates ...*amphiv1.Template) func(io.Writer) {
	return func(w io.Writer) {
		row(w, "TEMPLATE", "ROLES", "STREAMS", "REVISION", "DESCRIPTION")
		for _, t := range templates {
			roles, streams := "", ""
			for _, r := range t.GetRoles() {
				roles += r.GetName() + " "
			}
			for _, s := range t.GetStreams() {
				streams += s.GetName() + " "
			}
			row(w, t.GetName(), roles, streams, t.GetRevision(), t.GetDescription())
		}
	}
}

func templateList(a *app) *cobra.Command {
	req := &amphiv1.ListTemplatesRequest{}
	cmd := &cobra.Command{
		Use: "list", Short: "List templates", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			templates, err := a.templates()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, templates.ListTemplates, req)
			if err != nil {
				return err
			}
			return a.print(cmd, res, templateTable(res.GetTemplates()...))
		},
	}
	cmd.Flags().BoolVar(&req.Presets, "presets", false, "the built-in presets instead of the stored ones")
	return cmd
}

func templateGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Print a template as JSON, as template set reads it", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			templates, err := a.templates()
			if err != nil {
				return err
			}
			t, err := call(cmd.Context(), a, templates.GetTemplate, &amphiv1.GetTemplateRequest{Name: args[0]})
			if err != nil {
				return err
			}
			data, err := protojson.Marshal(t)
			if err != nil {
				return fmt.Errorf("encoding the template: %w", err)
			}
			return writeJSON(cmd.OutOrStdout(), json.RawMessage(data))
		},
	}
}

func templateSet(a *app) *cobra.Command {
	var name string
	var check bool
	cmd := &cobra.Command{
		Use: "set FILE", Short: "Create or replace a template from JSON; - reads the standard input", Args: exactly(1),
		Long: "Creates or replaces a template. Sessions that run keep what they began with.\n" +
			"With --if-unchanged it is refused when somebody changed the template since the file's revision.",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readInput(cmd, args[0])
			if err != nil {
				return err
			}
			req := &amphiv1.SetTemplateRequest{Template: &amphiv1.Template{}}
			if err := protojson.Unmarshal(data, req.Template); err != nil {
				return usage(fmt.Errorf("%s is not a template: %w", args[0], err))
			}
			if name != "" {
				req.Template.Name = name
			}
			if check {
				req.IfRevision = new(req.GetTemplate().GetRevision())
			}
			templates, err := a.templates()
			if err != nil {
				return err
			}
			t, err := call(cmd.Context(), a, templates.SetTemplate, req)
			if err != nil {
				return err
			}
			return a.print(cmd, t, templateTable(t))
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "store it under this name instead of the file's")
	cmd.Flags().BoolVar(&check, "if-unchanged", false, "refuse when the stored revision is not the file's")
	return cmd
}

func templateDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a template", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			templates, err := a.templates()
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), a, templates.DeleteTemplate, &amphiv1.DeleteTemplateRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, res, func(w io.Writer) { fmt.Fprintln(w, "deleted") })
		},
	}
}
