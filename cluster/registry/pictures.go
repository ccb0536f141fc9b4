package registry

import (
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Bounds of the pictures for streams: they are in every snapshot.
const (
	MaxPictures = 16
	// MaxPicture bounds one picture, MaxPictureBytes all together, in bytes.
	MaxPicture      = 2 << 20
	MaxPictureBytes = 16 << 20
)

func (m *Machine) putPicture(cmd *pb.RegistryCommand, p *pb.Picture) error {
	if !proto.IsPictureName(p.GetName()) {
		return proto.Errorf(proto.InvalidArgument, "a picture's name is 1 to 32 of a-z, 0-9 and -")
	}
	if n := len(p.GetData()); n == 0 || n > MaxPicture {
		return proto.Errorf(proto.MessageTooLarge, "a picture has 1 to %d bytes, not %d", MaxPicture, n)
	}
	old := m.reg.GetPictures()[p.GetName()]
	all := len(p.GetData()) - len(old.GetData())
	for _, have := range m.reg.GetPictures() {
		all += len(have.GetData())
	}
	switch {
	case cmd.GetOnlyNew() && old != nil:
		return exists("picture")
	case old == nil && len(m.reg.GetPictures()) >= MaxPictures:
		return full("pictures", MaxPictures)
	case all > MaxPictureBytes:
		return proto.Errorf(proto.LimitExceeded, "all pictures together would have %d bytes; at most %d are kept", all, MaxPictureBytes)
	}
	p = copied(p)
	p.UpdatedMs = max(cmd.GetTimeMs(), old.GetUpdatedMs()+1) // streams tell contents of one name by it
	m.reg.Pictures[p.GetName()] = p
	return nil
}

func (m *Machine) deletePicture(name string) error {
	if m.reg.GetPictures()[name] == nil {
		return missing("picture", name)
	}
	delete(m.reg.Pictures, name)
	return nil
}
