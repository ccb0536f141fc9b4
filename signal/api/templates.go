package api

import (
	"context"
	"maps"
	"slices"

	"connectrpc.com/connect"
	protobuf "google.golang.org/protobuf/proto"

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
			res.Templates = append(res.Templates, s.revealed(reg.GetTemplates()[name]))
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
	return connect.NewResponse(s.revealed(t)), nil
}

// SetTemplate creates or replaces a template.
func (s templates) SetTemplate(ctx context.Context, req *connect.Request[amphiv1.SetTemplateRequest]) (*connect.Response[amphiv1.Template], error) {
	t, err := template.Complete(req.Msg.GetTemplate())
	if err != nil {
		return nil, err
	}
	if err := s.sealed(t); err != nil {
		return nil, err
	}
	cmd := &amphiv1.RegistryCommand{IfRevision: req.Msg.IfRevision, Body: &amphiv1.RegistryCommand_PutTemplate{PutTemplate: t}}
	if err := s.propose(ctx, cmd); err != nil {
		return nil, err
	}
	if t, err = s.template(t.GetName()); err != nil {
		return nil, err
	}
	return connect.NewResponse(s.revealed(t)), nil
}

// sealed takes the secrets out of the URLs of a template's destinations: they are kept encrypted. A URL that is as a reader
// without the secrets has it keeps the secrets that it had.
func (s templates) sealed(t *amphiv1.Template) error {
	var old *amphiv1.Template
	s.Registry.Read(func(reg *amphiv1.Registry) { old = reg.GetTemplates()[t.GetName()] })
	for i, d := range t.GetDestinations() {
		d.SealedUrl = nil
		if d.GetUrl() == "" {
			continue
		}
		if j := slices.IndexFunc(old.GetDestinations(), func(o *amphiv1.Destination) bool {
			return o.GetName() == d.GetName() && o.GetUrl() == d.GetUrl()
		}); j >= 0 {
			d.SealedUrl = old.GetDestinations()[j].GetSealedUrl()
			continue
		}
		var err error
		if d.SealedUrl, d.Url, err = s.SealURL(d.GetUrl()); err != nil {
			return proto.Errorf(proto.CodeOf(err), "destinations[%d].url: %s", i, proto.Wire(err).GetMessage())
		}
	}
	return nil
}

// revealed is a template as it was set, with the URLs of its destinations; one that was sealed with another secret stays
// without its secrets.
func (s templates) revealed(t *amphiv1.Template) *amphiv1.Template {
	if len(t.GetDestinations()) == 0 {
		return t
	}
	t = protobuf.Clone(t).(*amphiv1.Template)
	for _, d := range t.GetDestinations() {
		if url, err := s.OpenURL(d.GetSealedUrl()); err == nil {
			d.Url = url
		}
		d.SealedUrl = nil
	}
	return t
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
