package api

import (
	"bytes"
	"context"
	"image"
	_ "image/jpeg" // the two formats of pictures
	_ "image/png"
	"maps"
	"slices"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// What a picture may measure, in pixels: decoding takes up to 20 bytes for each (a progressive JPEG of four colours).
const (
	maxPictureSide   = 3840
	maxPicturePixels = 3840 * 2160
	// maxScans of a JPEG: each goes over the whole picture, however few bytes it has. Encoders make about ten.
	maxScans = 32
	// maxPictureBody bounds the request: 2 MiB as JSON, which is a third longer.
	maxPictureBody = 3 << 20
)

// PutPicture stores a picture after it was decoded whole: what streams are given later is sound.
func (s streams) PutPicture(ctx context.Context, req *connect.Request[amphiv1.PutPictureRequest]) (*connect.Response[amphiv1.Picture], error) {
	p := &amphiv1.Picture{Name: req.Msg.GetName(), Data: req.Msg.GetData()}
	if !proto.IsPictureName(p.GetName()) {
		return nil, proto.Errorf(proto.InvalidArgument, "a picture's name is 1 to 32 of a-z, 0-9 and -")
	}
	if err := s.decode(ctx, p); err != nil {
		return nil, err
	}
	if err := s.propose(ctx, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutPicture{PutPicture: p}}); err != nil {
		return nil, err
	}
	list := s.pictures()
	i := slices.IndexFunc(list, func(have *amphiv1.Picture) bool { return have.GetName() == p.GetName() })
	if i < 0 {
		return nil, proto.Errorf(proto.NotFound, "the picture was deleted again")
	}
	return connect.NewResponse(list[i]), nil
}

// decode checks a picture and notes its size. One is decoded at a time, so that many take no more memory than one.
func (s streams) decode(ctx context.Context, p *amphiv1.Picture) error {
	select {
	case s.decoding <- struct{}{}:
		defer func() { <-s.decoding }()
	case <-ctx.Done():
		return ctx.Err()
	}
	cfg, format, err := image.DecodeConfig(bytes.NewReader(p.GetData()))
	if err != nil || format != "png" && format != "jpeg" {
		return proto.Errorf(proto.InvalidArgument, "data: not a PNG or JPEG picture")
	}
	if cfg.Width < 2 || cfg.Height < 2 || max(cfg.Width, cfg.Height) > maxPictureSide || cfg.Width > maxPicturePixels/cfg.Height {
		return proto.Errorf(proto.InvalidArgument, "data: %d x %d pixels; a picture has 2 x 2 to 3840 x 2160, or upright", cfg.Width, cfg.Height)
	}
	if n := bytes.Count(p.GetData(), []byte{0xff, 0xda}); format == "jpeg" && n > maxScans { // starts of scans, and few by chance
		return proto.Errorf(proto.InvalidArgument, "data: a JPEG of %d scans; at most %d are read", n, maxScans)
	}
	if _, _, err := image.Decode(bytes.NewReader(p.GetData())); err != nil {
		return proto.Errorf(proto.InvalidArgument, "data: the picture is damaged")
	}
	p.Bytes = uint32(len(p.GetData()))
	p.Width, p.Height = uint32(cfg.Width), uint32(cfg.Height)
	return nil
}

// pictures lists all, without their data.
func (s streams) pictures() []*amphiv1.Picture {
	var list []*amphiv1.Picture
	s.Registry.Read(func(reg *amphiv1.Registry) {
		for _, name := range slices.Sorted(maps.Keys(reg.GetPictures())) {
			p := reg.GetPictures()[name]
			list = append(list, &amphiv1.Picture{
				Name: name, Width: p.GetWidth(), Height: p.GetHeight(), Bytes: p.GetBytes(), UpdatedMs: p.GetUpdatedMs()})
		}
	})
	return list
}

// ListPictures answers all pictures by name, without their data.
func (s streams) ListPictures(context.Context, *connect.Request[amphiv1.ListPicturesRequest]) (*connect.Response[amphiv1.ListPicturesResponse], error) {
	return connect.NewResponse(&amphiv1.ListPicturesResponse{Pictures: s.pictures()}), nil
}

// DeletePicture forgets a picture. A stream that shows it goes on without it at once.
func (s streams) DeletePicture(ctx context.Context, req *connect.Request[amphiv1.DeletePictureRequest]) (*connect.Response[amphiv1.DeletePictureResponse], error) {
	cmd := &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_DeletePicture{DeletePicture: req.Msg.GetName()}}
	if err := s.propose(ctx, cmd); err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.DeletePictureResponse{}), nil
}
