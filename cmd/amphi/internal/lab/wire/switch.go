// Package wire is the network of the lab: a switch that passes IP packets between tun devices, each
// ordered pair of them over a link of its own with delay, loss, rate and faults that change at run time.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/tally"
	"github.com/amphi-sfu/amphi/media/netem"
)

// maxPorts bounds a switch: there is a link for each ordered pair.
const maxPorts = 64

// packetSize is the longest packet that passes.
const packetSize = 2048

const never = time.Duration(math.MaxInt64)

// Port is one device of a switch.
type Port struct {
	Name string
	Addr netip.Addr
	// Device gives one packet per read and takes one per write. The switch closes it.
	Device io.ReadWriteCloser
}

// Switch passes packets between its ports by their destination address. Its methods may be called from
// any goroutine.
type Switch struct {
	start  time.Time
	ports  []*port
	byName map[string]int
	byAddr map[netip.Addr]int
	pool   sync.Pool
	// Packets that no link took.
	notIPv4, noPort atomic.Uint64
}

// port is a device and what is on the way to it.
type port struct {
	name   string
	device io.ReadWriteCloser
	alarm  *alarm

	mu     sync.Mutex             // guards the fields below
	links  []*netem.Link[*packet] // by the number of the port that sends
	armed  time.Duration          // when the alarm rings
	closed bool
	late   tally.Histogram // how much later than due packets were delivered
}

type packet struct {
	n    int
	data [packetSize]byte
}

// due is a packet to be delivered and when it should have been.
type due struct {
	packet *packet
	at     time.Duration
}

// New makes a switch with perfect links. The seed decides every fault.
func New(seed uint64, ports []Port) (*Switch, error) {
	if len(ports) < 2 || len(ports) > maxPorts {
		return nil, fmt.Errorf("a switch of %d ports: want 2 to %d", len(ports), maxPorts)
	}
	s := &Switch{start: time.Now(), byName: map[string]int{}, byAddr: map[netip.Addr]int{}}
	s.pool.New = func() any { return &packet{} }
	for i, p := range ports {
		if _, twice := s.byName[p.Name]; twice || p.Name == "" {
			return nil, fmt.Errorf("ports need names of their own; %q is not", p.Name)
		}
		if _, twice := s.byAddr[p.Addr]; twice || !p.Addr.Is4() {
			return nil, fmt.Errorf("ports need IPv4 addresses of their own; %v is not", p.Addr)
		}
		s.byName[p.Name], s.byAddr[p.Addr] = i, i
		port := &port{name: p.Name, device: p.Device, armed: never}
		for from := range ports {
			link, err := netem.New[*packet](netem.Params{}, seed+uint64(from*maxPorts+i)<<8)
			if err != nil {
				return nil, err
			}
			port.links = append(port.links, link)
		}
		s.ports = append(s.ports, port)
	}
	for _, p := range s.ports {
		var err error
		if p.alarm, err = newAlarm(); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// Set changes the link from one port to another from now on.
func (s *Switch) Set(from, to string, params netem.Params) error {
	f, ok := s.byName[from]
	t, ok2 := s.byName[to]
	if !ok || !ok2 {
		return fmt.Errorf("no ports %q and %q", from, to)
	}
	p := s.ports[t]
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.links[f].Set(time.Since(s.start), params); err != nil {
		return err
	}
	return p.ring(p.links[f], time.Since(s.start))
}

// Run passes packets until ctx ends, which is not an error. All devices are closed then.
func (s *Switch) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, s.close)
	var wg sync.WaitGroup
	errs := make([]error, 2*len(s.ports))
	for i, p := range s.ports {
		wg.Go(func() {
			defer cancel()
			errs[2*i] = s.read(i, p)
		})
		wg.Go(func() {
			defer cancel()
			errs[2*i+1] = s.deliver(p)
		})
	}
	wg.Wait()
	cancel()
	if stop() {
		s.close()
	}
	return errors.Join(errs...)
}

func (s *Switch) close() {
	for _, p := range s.ports {
		p.mu.Lock()
		if !p.closed {
			p.closed = true
			// Whatever closing says, nothing more will pass.
			_ = p.device.Close()
			if p.alarm != nil {
				_ = p.alarm.close()
			}
		}
		p.mu.Unlock()
	}
}

// read takes what a port sends until its device is closed.
func (s *Switch) read(from int, p *port) error {
	for {
		pkt := s.pool.Get().(*packet)
		n, err := p.device.Read(pkt.data[:])
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading from %s: %w", p.name, err)
		}
		pkt.n = n
		to, ok := s.route(pkt.data[:n])
		if !ok {
			s.pool.Put(pkt)
			continue
		}
		if err := s.ports[to].send(from, pkt, s.start); err != nil {
			return err
		}
	}
}

// route finds the port that a packet is for.
func (s *Switch) route(data []byte) (int, bool) {
	if len(data) < 20 || data[0]>>4 != 4 {
		s.notIPv4.Add(1)
		return 0, false
	}
	to, ok := s.byAddr[netip.AddrFrom4([4]byte(data[16:20]))]
	if !ok {
		s.noPort.Add(1)
	}
	return to, ok
}

func (p *port) send(from int, pkt *packet, start time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Since(start)
	p.links[from].Send(now, pkt.n, pkt)
	return p.ring(p.links[from], now)
}

// ring sets the alarm for what link has next. It is called with mu held.
func (p *port) ring(link *netem.Link[*packet], now time.Duration) error {
	at, ok := link.Next()
	if !ok || at >= p.armed || p.closed {
		return nil
	}
	p.armed = at
	return p.alarm.set(at - now)
}

// deliver writes packets to a port when they are due, until its alarm is closed.
func (s *Switch) deliver(p *port) error {
	var batch []due
	for p.alarm.wait() == nil {
		var err error
		batch, err = p.collect(batch[:0], s.start)
		if err != nil {
			return err
		}
		for _, d := range batch {
			_, err := p.device.Write(d.packet.data[:d.packet.n])
			// A device that goes down, or whose receiver is out of memory, loses packets as a wire does.
			if err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOBUFS) {
				return fmt.Errorf("writing to %s: %w", p.name, err)
			}
		}
		now := time.Since(s.start)
		p.mu.Lock()
		for _, d := range batch {
			p.late.Add(now - d.at)
			s.pool.Put(d.packet)
		}
		p.mu.Unlock()
	}
	return nil
}

// collect takes what is due from all links and sets the alarm for what follows.
func (p *port) collect(batch []due, start time.Time) ([]due, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Since(start)
	p.armed = never
	for _, link := range p.links {
		for {
			at, ok := link.Next()
			if !ok || at > now {
				break
			}
			if pkt, ok := link.Receive(now); ok {
				batch = append(batch, due{pkt, at})
			}
		}
		if err := p.ring(link, now); err != nil {
			return batch, err
		}
	}
	return batch, nil
}
