package signal

import (
	"bytes"
	"image"
	"image/png"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

func pngOf(t *testing.T, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPicturesAreUploaded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	streams := amphiv1connect.NewStreamServiceClient(http.DefaultClient, w.url, manager(t))
	put := func(name string, data []byte) (*amphiv1.Picture, error) {
		res, err := streams.PutPicture(t.Context(), connect.NewRequest(&amphiv1.PutPictureRequest{Name: name, Data: data}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	good := pngOf(t, 320, 180)
	if p, err := put("logo", good); err != nil || p.GetWidth() != 320 || p.GetHeight() != 180 || int(p.GetBytes()) != len(good) || len(p.GetData()) > 0 {
		t.Fatalf("%v, %v", p, err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "text": []byte("<svg/>"), "cut": good[:len(good)-20], "wide": pngOf(t, 4000, 4), "large": pngOf(t, 2170, 3830)} {
		_, err := put(name, bad)
		refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	}
	_, err := put("No", good)
	refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	list, err := streams.ListPictures(t.Context(), connect.NewRequest(&amphiv1.ListPicturesRequest{}))
	if err != nil || len(list.Msg.GetPictures()) != 1 || list.Msg.GetPictures()[0].GetName() != "logo" {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := put("logo", pngOf(t, 4, 3840)); err != nil {
		t.Errorf("an upright picture: %v", err)
	}
	if _, err := streams.DeletePicture(t.Context(), connect.NewRequest(&amphiv1.DeletePictureRequest{Name: "logo"})); err != nil {
		t.Error(err)
	}
	_, err = streams.DeletePicture(t.Context(), connect.NewRequest(&amphiv1.DeletePictureRequest{Name: "logo"}))
	refusedWith(t, err, connect.CodeNotFound, proto.NotFound)
}
