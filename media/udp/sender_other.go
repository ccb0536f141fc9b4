//go:build !linux

package udp

import "net/netip"

type sockaddr struct{}

func (*sockaddr) set(int, netip.AddrPort) {}

// transmitter sends each packet with a call of its own: no batching here.
type transmitter struct{}

func (*transmitter) init(*Conn)           {}
func (*transmitter) add(s *Sender, r run) { s.sendPlain(r) }
func (*transmitter) flush(*Sender)        {}
