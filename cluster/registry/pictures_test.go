package registry_test

import (
	"fmt"
	"testing"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func put(name string, bytes int) *pb.RegistryCommand {
	return &pb.RegistryCommand{TimeMs: 5, Body: &pb.RegistryCommand_PutPicture{PutPicture: &pb.Picture{Name: name, Data: make([]byte, bytes)}}}
}

func TestPictures(t *testing.T) {
	t.Parallel()
	m := registry.New()
	must(t, m, put("logo", 10), put("logo", 20))
	refused(t, m, put("Logo", 10), proto.InvalidArgument)
	refused(t, m, put("none", 0), proto.MessageTooLarge)
	refused(t, m, put("huge", registry.MaxPicture+1), proto.MessageTooLarge)
	if p := registry.Restore(m.Snapshot()).View().GetPictures()["logo"]; len(p.GetData()) != 20 || p.GetUpdatedMs() != 6 { // of two in one millisecond, the later one
		t.Errorf("the logo is %v after a snapshot", p)
	}
	for i := range 7 {
		must(t, m, put(fmt.Sprint("large-", i), registry.MaxPicture))
	}
	refused(t, m, put("large-8", registry.MaxPicture), proto.LimitExceeded)
	must(t, m, put("large-6", registry.MaxPicture)) // in place of itself
	for i := range 8 {
		must(t, m, put(fmt.Sprint("small-", i), 1))
	}
	refused(t, m, put("one-more", 1), proto.LimitExceeded)
	gone := &pb.RegistryCommand{Body: &pb.RegistryCommand_DeletePicture{DeletePicture: "logo"}}
	must(t, m, gone)
	refused(t, m, gone, proto.NotFound)
	must(t, m, put("one-more", 1))
}
