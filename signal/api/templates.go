package api

import (
	"context"
	"maps"
	"slices"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/template"
)

type templates struct{ *services }

// ListTemplates answers the stored templates, or the built-in presets, by name.
func (s templates) ListTemplates(_ context.Context, req *connect.Request[amphiv1.ListTemplatesRequest]) (*connect.Response[amphiv1.ListTemplatesResponse], error) {
	res := &amphiv1.ListTemplatesResponse{}
	if req.Msg.GetPresets() {
		for _, name := range template.PresetNames() {
			t, err := template.Preset(name)
			if err != nil {
				return nil, err
			}
			res.Templates = append(res.Templates, t)
		}
		return connect.NewResponse(res), nil
	}
	s.Registry.Read(func(reg *amphiv1.Registry) {
		for _, name := range slices.Sorted(maps.Keys(reg.GetTemplates())) {
			res.Templates = append(res.Templates, reg.GetTemplates()[name])
		}
	})
	return connect.NewResponse(res), nil
}

// GetTemplate answers a stored template.
func (s templates) GetTemplate(_ context.Context, req *connect.Request[amphiv1.GetTemplateRequest]) (*connect.Response[amphiv1.Template], error) {
	t, err := s.template(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(t), nil
}

// SetTemplate creates or replaces a template.
func (s templates) SetTemplate(ctx context.Context, req *connect.Request[amphiv1.SetTemplateRequest]) (*connect.Response[amphiv1.Template], error) {
	t, err := template.Complete(req.Msg.GetTemplate())
	if err != nil {
		return nil, err
	}
	cmd := &amphiv1.RegistryCommand{IfRevision: req.Msg.IfRevision, Body: &amphiv1.RegistryCommand_PutTemplate{PutTemplate: t}}
	if err := s.propose(ctx, cmd); err != nil {
		return nil, err
	}
	if t, err = s.template(t.GetName()); err != nil {
		return nil, err
	}
	return connect.NewResponse(t), nil
}

// DeleteTemplate forgets a template that no room uses.
func (s templates) DeleteTemplate(ctx context.Context, req *connect.Request[amphiv1.DeleteTemplateRequest]) (*connect.Response[amphiv1.DeleteTemplateResponse], error) {
	if req.Msg.GetName() == "" {
		return nil, proto.Errorf(proto.InvalidArgument, "name a template")
	}
	cmd := &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_DeleteTemplate{DeleteTemplate: req.Msg.GetName()}}
	if err := s.propose(ctx, cmd); err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.DeleteTemplateResponse{}), nil
}
