package media

import "net/netip"

// Addresses are those by which clients are told to reach the media socket, in their order of preference.
func (e *Engine) Addresses() ([]netip.Addr, error) {
	return e.cfg.candidateIPs(e.conn.LocalAddr().Addr())
}
