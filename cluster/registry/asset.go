package registry

import (
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// putAsset adds an asset, or replaces the one of the same id; the oldest goes when there are too many.
func (m *Machine) putAsset(cmd *pb.RegistryCommand, a *pb.Asset) error {
	if err := validName("an asset's id", a.GetId()); err != nil {
		return err
	}
	if err := fits(a, MaxAsset); err != nil {
		return err
	}
	old := m.reg.GetAssets()[a.GetId()]
	if cmd.GetOnlyNew() && old != nil {
		return exists("asset")
	}
	a = copied(a)
	a.CreatedMs = firstSet(old.GetCreatedMs(), a.GetCreatedMs(), cmd.GetTimeMs())
	m.reg.Assets[a.GetId()] = a
	if len(m.reg.GetAssets()) > MaxAssets {
		m.dropOldestAsset()
	}
	return nil
}

// dropOldestAsset goes by time, then by id: the same everywhere.
func (m *Machine) dropOldestAsset() {
	var oldest *pb.Asset
	for _, a := range m.reg.GetAssets() {
		if oldest == nil || a.GetCreatedMs() < oldest.GetCreatedMs() || a.GetCreatedMs() == oldest.GetCreatedMs() && a.GetId() < oldest.GetId() {
			oldest = a
		}
	}
	delete(m.reg.Assets, oldest.GetId())
}

func (m *Machine) deleteAsset(id string) error {
	if m.reg.GetAssets()[id] == nil {
		return missing("asset", id)
	}
	delete(m.reg.Assets, id)
	return nil
}
