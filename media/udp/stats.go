package udp

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
)

// DropReason names why a datagram was not delivered; it is a metric label.
type DropReason string

// The reasons. Received ones first.
const (
	DropOversize    DropReason = "oversize"          // longer than Config.MaxDatagram
	DropKernel      DropReason = "kernel_queue_full" // the socket's receive buffer overflowed
	DropReadError   DropReason = "read_error"        // a read failed although the socket is open
	DropSendFull    DropReason = "send_buffer_full"  // the socket's send buffer stayed full
	DropUnreachable DropReason = "unreachable"       // no route, or refused by a firewall
	DropTooLong     DropReason = "too_long"          // the kernel refuses the size
	DropSendError   DropReason = "send_error"        // any other error of a send
	DropClosed      DropReason = "closed"            // sent after Close
)

// dropReasons fixes the index of each reason in counters.drops.
var dropReasons = [...]DropReason{
	DropOversize, DropKernel, DropReadError,
	DropSendFull, DropUnreachable, DropTooLong, DropSendError, DropClosed,
}

type counters struct {
	readCalls, readMessages, readDatagrams, readBytes atomic.Uint64
	sendCalls, sendMessages, sendDatagrams, sendBytes atomic.Uint64
	gsoRefused                                        atomic.Uint64
	drops                                             [len(dropReasons)]atomic.Uint64
}

// Stats is a snapshot of a Conn's counters since Listen.
type Stats struct {
	// ReadCalls are system calls that returned something, ReadMessages what they
	// returned before GRO was undone, ReadDatagrams after it.
	ReadCalls, ReadMessages, ReadDatagrams, ReadBytes uint64
	// SendCalls are system calls, SendMessages crossings of the kernel's stack
	// (GSO runs count once), SendDatagrams packets on the wire.
	SendCalls, SendMessages, SendDatagrams, SendBytes uint64
	// GSORefused counts runs which the kernel refused and which left plainly.
	GSORefused uint64
	Drops      map[DropReason]uint64
}

// Stats returns the counters; Drops has every reason, zero ones too.
func (c *Conn) Stats() Stats {
	k := &c.counters
	s := Stats{
		ReadCalls: k.readCalls.Load(), ReadMessages: k.readMessages.Load(),
		ReadDatagrams: k.readDatagrams.Load(), ReadBytes: k.readBytes.Load(),
		SendCalls: k.sendCalls.Load(), SendMessages: k.sendMessages.Load(),
		SendDatagrams: k.sendDatagrams.Load(), SendBytes: k.sendBytes.Load(),
		GSORefused: k.gsoRefused.Load(),
		Drops:      make(map[DropReason]uint64, len(dropReasons)),
	}
	for i, r := range dropReasons {
		s.Drops[r] = k.drops[i].Load()
	}
	return s
}

func (k *counters) drop(r DropReason) { k.dropN(r, 1) }

func (k *counters) dropN(r DropReason, n uint64) {
	for i := range dropReasons {
		if dropReasons[i] == r {
			k.drops[i].Add(n)
			return
		}
	}
}

func (k *counters) sent(calls, messages, datagrams, bytes int) {
	k.sendCalls.Add(uint64(calls))
	k.sendMessages.Add(uint64(messages))
	k.sendDatagrams.Add(uint64(datagrams))
	k.sendBytes.Add(uint64(bytes))
}

func (k *counters) read(calls, messages, datagrams, bytes int) {
	k.readCalls.Add(uint64(calls))
	k.readMessages.Add(uint64(messages))
	k.readDatagrams.Add(uint64(datagrams))
	k.readBytes.Add(uint64(bytes))
}

// reasonOf maps an error of a send to its drop reason.
func reasonOf(err error) DropReason {
	var errno syscall.Errno
	switch {
	case errors.Is(err, net.ErrClosed):
		return DropClosed
	case !errors.As(err, &errno):
		return DropSendError
	}
	switch errno {
	case syscall.EAGAIN, syscall.ENOBUFS:
		return DropSendFull
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ECONNREFUSED,
		syscall.EPERM, syscall.EACCES, syscall.EADDRNOTAVAIL, syscall.ENETDOWN, syscall.EAFNOSUPPORT:
		return DropUnreachable
	case syscall.EMSGSIZE:
		return DropTooLong
	default:
		return DropSendError
	}
}
