// Package registry is a cluster's durable records as a pure state machine: templates, rooms, codes, keys,
// ended sessions, durable store values, nodes, and who decides for which room. Commands go in one after the other, in the same order on every node.
// No I/O, clock, goroutine or log; not safe for concurrent use.
package registry

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// Bounds of what the registry keeps; above them commands are refused, but for sessions and assets, of which the oldest go.
const (
	MaxTemplates    = 1000
	MaxRooms        = 100000
	MaxCodesPerRoom = 100
	MaxKeys         = 100
	MaxSessions     = 1000
	// MaxAttendance bounds the attendance entries of all sessions together.
	MaxAttendance = 200000
	// MaxStoreKeys bounds the durable entries of one room.
	MaxStoreKeys = 1000
	// MaxMessage bounds one template, room, code, key or store entry, in bytes.
	MaxMessage = 256 << 10
	// MaxSession bounds one session, in bytes.
	MaxSession = 16 << 20
	MaxAssets  = 20000
	// MaxAsset bounds one asset's record, in bytes.
	MaxAsset = 8 << 10
	// SecretBytes is the least length of the node secret.
	SecretBytes = 32
	// maxRecent is as many commands as a cluster commits in the seconds in which one may be repeated.
	maxRecent = 1 << 14
	maxName   = 64
)

// Machine holds the records. Messages in it are replaced, never changed.
type Machine struct {
	reg *pb.Registry
	// recent are the ids in reg.RecentIds; codes counts the codes of each room, attendance those of all sessions.
	recent     map[string]bool
	codes      map[string]int
	attendance int
	changed    []string // of the last command
}

// New makes an empty registry.
func New() *Machine { return Restore(&pb.Registry{}) }

// Restore goes on from a snapshot, which becomes the machine's.
func Restore(reg *pb.Registry) *Machine {
	m := &Machine{reg: reg, recent: map[string]bool{}, codes: map[string]int{}}
	filled(&reg.Templates)
	filled(&reg.Rooms)
	filled(&reg.Codes)
	filled(&reg.Keys)
	filled(&reg.Store)
	filled(&reg.Placements)
	filled(&reg.Nodes)
	filled(&reg.Origins)
	filled(&reg.Assets)
	filled(&reg.Pictures)
	filled(&reg.Revoked)
	for _, id := range reg.GetRecentIds() {
		m.recent[id] = true
	}
	for _, c := range reg.GetCodes() {
		m.codes[RoomKey(c.GetRoom())]++
	}
	for _, s := range reg.GetSessions() {
		m.attendance += len(s.GetAttendance())
	}
	return m
}

func filled[K comparable, V any](m *map[K]V) {
	if *m == nil {
		*m = map[K]V{}
	}
}

// View is the registry itself: to read between two commands, not to keep or change. The messages inside may be kept.
func (m *Machine) View() *pb.Registry { return m.reg }

// Snapshot is a copy of the registry whose messages are shared.
func (m *Machine) Snapshot() *pb.Registry {
	r := m.reg
	return &pb.Registry{
		Revision: r.GetRevision(), Templates: maps.Clone(r.GetTemplates()), Rooms: maps.Clone(r.GetRooms()),
		Codes: maps.Clone(r.GetCodes()), Keys: maps.Clone(r.GetKeys()), Sessions: slices.Clone(r.GetSessions()),
		Store: maps.Clone(r.GetStore()), NodeSecret: r.GetNodeSecret(), RecentIds: slices.Clone(r.GetRecentIds()),
		Placements: maps.Clone(r.GetPlacements()), Nodes: maps.Clone(r.GetNodes()), EpochFloor: r.GetEpochFloor(),
		Assets:   maps.Clone(r.GetAssets()),
		Pictures: maps.Clone(r.GetPictures()),
		Origins:  maps.Clone(r.GetOrigins()), OriginFloor: r.GetOriginFloor(),
		Revoked: maps.Clone(r.GetRevoked()),
	}
}

// Apply carries out one command. A refusal is a proto.Error and changes nothing; a repeated id does nothing.
// What the command holds is copied.
func (m *Machine) Apply(cmd *pb.RegistryCommand) error {
	m.changed = nil
	if id := cmd.GetId(); len(id) > maxName {
		return proto.Errorf(proto.InvalidArgument, "a command's id has at most %d bytes", maxName)
	} else if id != "" && m.recent[id] {
		return nil
	}
	if err := m.apply(cmd); err != nil {
		return err
	}
	m.reg.Revision++
	m.remember(cmd.GetId())
	return nil
}

func (m *Machine) remember(id string) {
	if id == "" {
		return
	}
	if old := m.reg.GetRecentIds(); len(old) >= maxRecent {
		delete(m.recent, old[0])
		m.reg.RecentIds = old[1:]
	}
	m.reg.RecentIds = append(m.reg.RecentIds, id)
	m.recent[id] = true
}

func (m *Machine) apply(cmd *pb.RegistryCommand) error {
	switch b := cmd.GetBody().(type) {
	case *pb.RegistryCommand_PutTemplate:
		return m.putTemplate(cmd, b.PutTemplate)
	case *pb.RegistryCommand_DeleteTemplate:
		return m.deleteTemplate(b.DeleteTemplate)
	case *pb.RegistryCommand_PutRoom:
		return m.putRoom(cmd, b.PutRoom)
	case *pb.RegistryCommand_DeleteRoom:
		return m.deleteRoom(cmd, b.DeleteRoom)
	case *pb.RegistryCommand_PutCode:
		return m.putCode(cmd, b.PutCode)
	case *pb.RegistryCommand_PutKey:
		return m.putKey(cmd, b.PutKey)
	case *pb.RegistryCommand_PutSession:
		return m.putSession(b.PutSession)
	case *pb.RegistryCommand_PutStore:
		return m.putStore(b.PutStore)
	case *pb.RegistryCommand_SetNodeSecret:
		return m.setSecret(cmd, b.SetNodeSecret)
	case *pb.RegistryCommand_PlaceRoom:
		return m.placeRoom(b.PlaceRoom)
	case *pb.RegistryCommand_MoveRooms:
		return m.moveRooms(b.MoveRooms)
	case *pb.RegistryCommand_PutNode:
		return m.putNode(cmd, b.PutNode)
	case *pb.RegistryCommand_DeleteNode:
		return m.deleteNode(b.DeleteNode)
	case *pb.RegistryCommand_PutOrigin:
		return m.putOrigin(cmd, b.PutOrigin)
	case *pb.RegistryCommand_ForgetOrigin:
		return m.forgetOrigin(b.ForgetOrigin)
	case *pb.RegistryCommand_PutAsset:
		return m.putAsset(cmd, b.PutAsset)
	case *pb.RegistryCommand_DeleteAsset:
		return m.deleteAsset(b.DeleteAsset)
	case *pb.RegistryCommand_PutPicture:
		return m.putPicture(cmd, b.PutPicture)
	case *pb.RegistryCommand_DeletePicture:
		return m.deletePicture(b.DeletePicture)
	case *pb.RegistryCommand_RevokeNode:
		return m.revokeNode(cmd, b.RevokeNode)
	}
	return proto.Errorf(proto.InvalidMessage, "the command is empty or unknown")
}

// RoomKey is the key of a room in Registry.rooms and Registry.store: names are compared without regard to case.
func RoomKey(name string) string { return strings.ToLower(name) }

func exists(what string) error {
	return proto.Errorf(proto.Conflict, "there is such a %s already", what)
}

func missing(what, name string) error {
	return proto.Errorf(proto.NotFound, "there is no %s %q", what, clip(name))
}

func full(what string, most int) error {
	return proto.Errorf(proto.LimitExceeded, "there are %d %s already", most, what)
}

func clip(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	return strings.ToValidUTF8(s, "")
}

func fits(m gproto.Message, most int) error {
	if gproto.Size(m) > most {
		return proto.Errorf(proto.MessageTooLarge, "a record has at most %d bytes", most)
	}
	return nil
}

func validName(field, name string) error {
	if name == "" || len(name) > maxName {
		return proto.Errorf(proto.InvalidArgument, "%s has 1 to %d bytes", field, maxName)
	}
	return nil
}

func copied[M gproto.Message](m M) M { return gproto.Clone(m).(M) }

func (m *Machine) putTemplate(cmd *pb.RegistryCommand, t *pb.Template) error {
	old := m.reg.GetTemplates()[t.GetName()]
	if err := validName("a template's name", t.GetName()); err != nil {
		return err
	}
	if err := fits(t, MaxMessage); err != nil {
		return err
	}
	switch {
	case cmd.GetOnlyNew() && old != nil:
		return exists("template")
	case cmd.IfRevision != nil && cmd.GetIfRevision() != old.GetRevision():
		return proto.Errorf(proto.Conflict, "the template is at revision %d", old.GetRevision())
	case old == nil && len(m.reg.GetTemplates()) >= MaxTemplates:
		return full("templates", MaxTemplates)
	}
	t = copied(t)
	t.Revision = m.reg.GetRevision() + 1
	m.reg.Templates[t.GetName()] = t
	return nil
}

func (m *Machine) deleteTemplate(name string) error {
	if m.reg.GetTemplates()[name] == nil {
		return missing("template", name)
	}
	for _, r := range m.reg.GetRooms() {
		if r.GetTemplate() == name {
			return proto.Errorf(proto.Conflict, "the room %q is made from this template", r.GetName())
		}
	}
	delete(m.reg.Templates, name)
	return nil
}

func (m *Machine) putRoom(cmd *pb.RegistryCommand, r *pb.Room) error {
	if !proto.ValidRoomName(r.GetName()) {
		return proto.Errorf(proto.InvalidArgument, "a room's name is 1 to %d of a-z, A-Z, 0-9, ., - and _", proto.MaxRoomName)
	}
	if err := fits(r, MaxMessage); err != nil {
		return err
	}
	key := RoomKey(r.GetName())
	old := m.reg.GetRooms()[key]
	switch {
	case cmd.GetOnlyNew() && old != nil:
		return exists("room")
	case old == nil && len(m.reg.GetRooms()) >= MaxRooms:
		return full("rooms", MaxRooms)
	}
	r = copied(r)
	r.Active, r.PeerCount = false, 0
	r.CreatedMs = firstSet(old.GetCreatedMs(), r.GetCreatedMs(), cmd.GetTimeMs())
	m.reg.Rooms[key] = r
	return nil
}

func firstSet(times ...int64) int64 {
	for _, t := range times {
		if t != 0 {
			return t
		}
	}
	return 0
}

// deleteRoom takes a room's codes, durable store and placement with it; its sessions stay.
func (m *Machine) deleteRoom(cmd *pb.RegistryCommand, name string) error {
	key := RoomKey(name)
	if m.reg.GetRooms()[key] == nil {
		return missing("room", name)
	}
	delete(m.reg.Rooms, key)
	delete(m.reg.Store, key)
	delete(m.codes, key)
	m.unplace(key)
	m.forgetOrigins(cmd, key)
	maps.DeleteFunc(m.reg.Codes, func(_ string, c *pb.RoomCode) bool { return RoomKey(c.GetRoom()) == key })
	return nil
}

func (m *Machine) putCode(cmd *pb.RegistryCommand, c *pb.RoomCode) error {
	if err := validName("a code", c.GetCode()); err != nil {
		return err
	}
	if err := validName("a code's role", c.GetRole()); err != nil {
		return err
	}
	key := RoomKey(c.GetRoom())
	if m.reg.GetRooms()[key] == nil {
		return missing("room", c.GetRoom())
	}
	old := m.reg.GetCodes()[c.GetCode()]
	switch {
	case old != nil && (cmd.GetOnlyNew() || RoomKey(old.GetRoom()) != key || old.GetRole() != c.GetRole()):
		return exists("code")
	case old == nil && m.codes[key] >= MaxCodesPerRoom:
		return full("codes of this room", MaxCodesPerRoom)
	}
	if err := fits(c, MaxMessage); err != nil {
		return err
	}
	c = copied(c)
	c.CreatedMs = firstSet(old.GetCreatedMs(), c.GetCreatedMs(), cmd.GetTimeMs())
	m.reg.Codes[c.GetCode()] = c
	if old == nil {
		m.codes[key]++
	}
	return nil
}

func (m *Machine) putKey(cmd *pb.RegistryCommand, k *pb.ApiKey) error {
	if err := validName("a key's id", k.GetId()); err != nil {
		return err
	}
	if (k.GetSecret() == "") == (k.GetPublicKey() == "") {
		return proto.Errorf(proto.InvalidArgument, "a key has either a secret or a public key")
	}
	if err := fits(k, MaxMessage); err != nil {
		return err
	}
	old := m.reg.GetKeys()[k.GetId()]
	switch {
	case cmd.GetOnlyNew() && old != nil:
		return exists("key")
	case old == nil && len(m.reg.GetKeys()) >= MaxKeys:
		return full("keys", MaxKeys)
	}
	m.reg.Keys[k.GetId()] = copied(k)
	return nil
}

// putSession adds a session, or replaces the one of the same id; the oldest go when there are too many.
func (m *Machine) putSession(s *pb.Session) error {
	if err := validName("a session's id", s.GetId()); err != nil {
		return err
	}
	if err := fits(s, MaxSession); err != nil {
		return err
	}
	all := m.reg.GetSessions()
	if i := slices.IndexFunc(all, func(o *pb.Session) bool { return o.GetId() == s.GetId() }); i >= 0 {
		m.attendance -= len(all[i].GetAttendance())
		all = slices.Delete(all, i, i+1)
	}
	all = append(all, copied(s))
	m.attendance += len(s.GetAttendance())
	drop := 0
	for len(all)-drop > MaxSessions || m.attendance > MaxAttendance && len(all)-drop > 1 {
		m.attendance -= len(all[drop].GetAttendance())
		drop++
	}
	m.reg.Sessions = slices.Delete(all, 0, drop)
	return nil
}

func (m *Machine) putStore(p *pb.PutStore) error {
	if !proto.ValidRoomName(p.GetRoom()) {
		return proto.Errorf(proto.InvalidArgument, "the room's name is not valid")
	}
	e := p.GetEntry()
	if e.GetKey() == "" || len(e.GetKey()) > proto.MaxStoreKey {
		return proto.Errorf(proto.InvalidArgument, "a key has 1 to %d bytes", proto.MaxStoreKey)
	}
	if err := fits(e, MaxMessage); err != nil {
		return err
	}
	key := RoomKey(p.GetRoom())
	entries := slices.Clone(m.reg.GetStore()[key].GetEntries())
	i := slices.IndexFunc(entries, func(o *pb.StoreEntry) bool { return o.GetKey() == e.GetKey() })
	switch {
	case p.GetDeleted() && i < 0:
		return nil
	case p.GetDeleted():
		entries = slices.Delete(entries, i, i+1)
	case i >= 0:
		entries[i] = copied(e)
	case len(entries) >= MaxStoreKeys:
		return full("durable keys of this room", MaxStoreKeys)
	case len(entries) == 0 && len(m.reg.GetStore()) >= MaxRooms:
		return full("rooms with durable keys", MaxRooms)
	default:
		entries = append(entries, copied(e))
	}
	if len(entries) == 0 {
		delete(m.reg.Store, key)
		return nil
	}
	m.reg.Store[key] = &pb.StoreEntries{Entries: entries}
	return nil
}

func (m *Machine) setSecret(cmd *pb.RegistryCommand, secret []byte) error {
	switch {
	case len(secret) < SecretBytes || len(secret) > MaxMessage:
		return proto.Errorf(proto.InvalidArgument, "the node secret has at least %d bytes", SecretBytes)
	case cmd.GetOnlyNew() && len(m.reg.GetNodeSecret()) > 0:
		return exists("node secret")
	}
	m.reg.NodeSecret = bytes.Clone(secret)
	return nil
}
