package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/cluster/identity"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Limits of what a node says of itself, in bytes.
const (
	maxName    = 64
	maxAddr    = 128
	maxURL     = 256
	maxRoles   = 8
	forget     = 24 * time.Hour
	maxMembers = 2048
)

// encode describes a node; the error says what is too long or not allowed in it.
func encode(m Member, leaving bool) ([]byte, error) {
	meta := &amphiv1.MemberMeta{
		Region: m.Region, Zone: m.Zone, Roles: m.Roles, Url: m.URL, ClusterAddr: m.ClusterAddr, TrunkAddr: m.TrunkAddr,
		Version: m.Version, StartedMs: m.StartedMs, Load: uint32(m.Load), Draining: m.Draining, Leaving: leaving,
	}
	if !identity.ValidNode(m.ID) {
		return nil, fmt.Errorf("%q is not a node id", m.ID)
	}
	if err := check(meta); err != nil {
		return nil, err
	}
	data, err := protobuf.Marshal(meta)
	if err != nil {
		return nil, fmt.Errorf("encoding the description: %w", err)
	}
	if len(data) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("the description has %d bytes, at most %d: shorten names or the URL", len(data), memberlist.MetaMaxSize)
	}
	return data, nil
}

// decode reads the description that another node gave of itself.
func decode(id string, data []byte) (Member, bool, error) {
	if !identity.ValidNode(id) {
		return Member{}, false, fmt.Errorf("%.80q is not a node id", id)
	}
	var meta amphiv1.MemberMeta
	if len(data) > memberlist.MetaMaxSize {
		return Member{}, false, errors.New("the description is too long")
	}
	if err := protobuf.Unmarshal(data, &meta); err != nil {
		return Member{}, false, fmt.Errorf("the description cannot be read: %w", err)
	}
	if err := check(&meta); err != nil {
		return Member{}, false, err
	}
	return Member{
		ID: id, Region: meta.GetRegion(), Zone: meta.GetZone(), Roles: meta.GetRoles(), URL: meta.GetUrl(),
		ClusterAddr: meta.GetClusterAddr(), TrunkAddr: meta.GetTrunkAddr(), Version: meta.GetVersion(),
		StartedMs: meta.GetStartedMs(), Load: uint8(meta.GetLoad()), Draining: meta.GetDraining(), State: Alive,
	}, meta.GetLeaving(), nil
}

func check(meta *amphiv1.MemberMeta) error {
	for _, field := range []struct {
		name, value string
		limit       int
	}{
		{"the region", meta.GetRegion(), maxName}, {"the zone", meta.GetZone(), maxName},
		{"the version", meta.GetVersion(), maxName}, {"the URL", meta.GetUrl(), maxURL},
		{"the cluster address", meta.GetClusterAddr(), maxAddr}, {"the trunk address", meta.GetTrunkAddr(), maxAddr},
	} {
		if err := printable(field.name, field.value, field.limit); err != nil {
			return err
		}
	}
	for _, role := range meta.GetRoles() {
		if err := printable("a role", role, maxName); err != nil {
			return err
		}
	}
	if len(meta.GetRoles()) > maxRoles {
		return fmt.Errorf("%d roles, at most %d", len(meta.GetRoles()), maxRoles)
	}
	for name, address := range map[string]string{"the cluster address": meta.GetClusterAddr(), "the trunk address": meta.GetTrunkAddr()} {
		if _, _, err := net.SplitHostPort(address); address != "" && err != nil {
			return fmt.Errorf("%s %q is not HOST:PORT", name, address)
		}
	}
	if meta.GetLoad() > 255 {
		return fmt.Errorf("a load of %d, at most 255", meta.GetLoad())
	}
	return nil
}

// printable refuses what could break a log, a table or a terminal.
func printable(name, value string, limit int) error {
	if len(value) > limit {
		return fmt.Errorf("%s has %d bytes, at most %d", name, len(value), limit)
	}
	for _, c := range []byte(value) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%s %q: only printable ASCII without spaces", name, value)
		}
	}
	return nil
}

// delegate is what memberlist calls, mostly under its own lock: it must only note down.
type delegate struct{ g *Gossip }

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	m, leaving := d.g.self, d.g.leaving
	d.g.mu.Unlock()
	// New has tried it at its longest.
	data, err := encode(m, leaving)
	if err != nil {
		d.g.log.Error("describing this node", "err", err)
	}
	return data
}

// NotifyMsg implements memberlist.Delegate: nodes send no messages of their own by gossip.
func (d *delegate) NotifyMsg([]byte) { d.g.refused.Add("user_message", "", nil) }

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive implements memberlist.AliveDelegate: it keeps out whom one could not read.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if _, _, err := decode(n.Name, n.Meta); err != nil {
		return err
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if _, known := d.g.members[n.Name]; !known && len(d.g.members) >= maxMembers {
		return errors.New("there are too many nodes")
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.note(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.note(n) }

func (d *delegate) note(n *memberlist.Node) {
	if n.Name == d.g.cfg.Self.ID {
		return
	}
	m, leaving, err := decode(n.Name, n.Meta)
	if err != nil {
		d.g.refused.Add("bad_description", n.Address(), err)
		return
	}
	ip, _ := netip.AddrFromSlice(n.Addr)
	m.Addr = netip.AddrPortFrom(ip.Unmap(), n.Port)
	d.g.mu.Lock()
	d.g.members[n.Name] = &record{Member: m, leaving: leaving, changed: time.Now()}
	d.g.mu.Unlock()
	signal(d.g.wake)
}

// NotifyLeave implements memberlist.EventDelegate.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	now := time.Now()
	d.g.mu.Lock()
	for id, r := range d.g.members {
		if (r.State == Dead || r.State == Left) && now.Sub(r.changed) > forget {
			delete(d.g.members, id)
		}
	}
	if r := d.g.members[n.Name]; r != nil {
		r.State, r.changed, r.suspected = Dead, now, time.Time{}
		if r.leaving {
			r.State = Left
		}
	}
	d.g.mu.Unlock()
	signal(d.g.wake)
}

// suspected notes that this node found another one silent.
func (g *Gossip) suspected(id string) {
	g.mu.Lock()
	if r := g.members[id]; r != nil {
		r.suspected = time.Now()
	}
	g.mu.Unlock()
	signal(g.wake)
}

func ipNet(p netip.Prefix) net.IPNet {
	p = p.Masked()
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
