package tun

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/amphi-sfu/amphi/media/netem"
)

// Config of a Bridge. The zero value of a field means its default.
type Config struct {
	// NameA and NameB name the devices, amphi0 each.
	NameA, NameB string
	// AddrA and AddrB are the IPv4 addresses with their prefix lengths,
	// 10.77.0.1/24 and 10.77.0.2/24.
	AddrA, AddrB netip.Prefix
	// MTU of both devices, 1500.
	MTU int
	// AtoB and BtoA shape the two directions. Sizes are those of IP packets.
	AtoB, BtoA netem.Params
	// Seed decides every fault.
	Seed uint64
}

func (c Config) withDefaults() (Config, error) {
	if c.NameA == "" {
		c.NameA = "amphi0"
	}
	if c.NameB == "" {
		c.NameB = "amphi0"
	}
	if !c.AddrA.IsValid() {
		c.AddrA = netip.MustParsePrefix("10.77.0.1/24")
	}
	if !c.AddrB.IsValid() {
		c.AddrB = netip.MustParsePrefix("10.77.0.2/24")
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if !c.AddrA.Addr().Is4() || !c.AddrB.Addr().Is4() {
		return c, errors.New("tun: addresses must be IPv4")
	}
	if c.MTU < 576 || c.MTU > 65535 {
		return c, fmt.Errorf("tun: MTU %d is outside 576..65535", c.MTU)
	}
	return c, nil
}

// Bridge is the link between two namespaces.
type Bridge struct {
	cfg  Config
	a, b *os.File
	ab   *netem.Line[[]byte]
	ba   *netem.Line[[]byte]
}

// NewBridge makes a tun device in each namespace. The devices live until Run
// returns or Close is called.
func NewBridge(cfg Config, a, b *Namespace) (*Bridge, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	br := &Bridge{cfg: cfg}
	// A write fails while the device goes down: the packet is lost, as on a wire.
	if br.ab, err = netem.NewLine(cfg.AtoB, cfg.Seed, func(p []byte) { _, _ = br.b.Write(p) }); err != nil {
		return nil, err
	}
	if br.ba, err = netem.NewLine(cfg.BtoA, cfg.Seed+1, func(p []byte) { _, _ = br.a.Write(p) }); err != nil {
		return nil, err
	}
	err = a.Do(func() (err error) {
		br.a, err = openDevice(cfg.NameA, cfg.AddrA, cfg.MTU)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = b.Do(func() (err error) {
		br.b, err = openDevice(cfg.NameB, cfg.AddrB, cfg.MTU)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, br.a.Close())
	}
	return br, nil
}

// SetAtoB changes the direction from a to b from now on.
func (br *Bridge) SetAtoB(p netem.Params) error { return br.ab.Set(p) }

// SetBtoA changes the direction from b to a from now on.
func (br *Bridge) SetBtoA(p netem.Params) error { return br.ba.Set(p) }

// Stats returns the counters of both directions.
func (br *Bridge) Stats() (ab, ba netem.Stats) {
	ab, _ = br.ab.Stats()
	ba, _ = br.ba.Stats()
	return ab, ba
}

// Run shuttles packets until ctx ends, which is not an error, or Close; then
// both devices are gone.
func (br *Bridge) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { br.Close() })
	defer stop()
	wg.Go(func() { _ = br.ab.Run(ctx) })
	wg.Go(func() { _ = br.ba.Run(ctx) })
	errs := make([]error, 2)
	wg.Go(func() { errs[0] = br.shuttle(br.a, br.ab); cancel() })
	wg.Go(func() { errs[1] = br.shuttle(br.b, br.ba); cancel() })
	wg.Wait()
	return errors.Join(errs...)
}

func (br *Bridge) shuttle(from *os.File, line *netem.Line[[]byte]) error {
	buf := make([]byte, 65536)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading from tun: %w", err)
		}
		line.Send(n, append([]byte(nil), buf[:n]...))
	}
}

// Close removes both devices.
func (br *Bridge) Close() error {
	err := errors.Join(br.a.Close(), br.b.Close())
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
