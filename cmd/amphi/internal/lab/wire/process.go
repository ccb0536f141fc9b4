package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/amphi-sfu/amphi/media/netem/tun"
)

// DeviceName is the name of the one device in each namespace.
const DeviceName = "amphi0"

// MTU of the devices.
const MTU = 1500

// Config is what the switch's process is told first.
type Config struct {
	Seed  uint64       `json:"seed"`
	Ports []ConfigPort `json:"ports"`
}

// ConfigPort is a device to be made in a named network namespace.
type ConfigPort struct {
	Name      string       `json:"name"`
	Namespace string       `json:"namespace"`
	Addr      netip.Prefix `json:"addr"`
}

type request struct {
	Config *Config `json:"config,omitempty"`
	Set    []Link  `json:"set,omitempty"`
	Stats  bool    `json:"stats,omitempty"`
}

type reply struct {
	Error string `json:"error,omitempty"`
	Stats *Stats `json:"stats,omitempty"`
}

// Serve is the switch's process: it takes requests from in, one JSON object each, the first with the
// Config, answers each on out, and ends when in does.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	dec, enc := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var first request
	if err := dec.Decode(&first); err != nil || first.Config == nil {
		return fmt.Errorf("reading the configuration of the switch: %w", err)
	}
	s, err := open(*first.Config)
	if err != nil {
		return errors.Join(err, enc.Encode(reply{Error: err.Error()}))
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	err = enc.Encode(reply{})
	for err == nil {
		var req request
		if err = dec.Decode(&req); err != nil {
			break
		}
		err = enc.Encode(s.answer(req))
	}
	cancel()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, <-done)
}

func (s *Switch) answer(req request) reply {
	for _, l := range req.Set {
		if err := s.Set(l.From, l.To, l.Params); err != nil {
			return reply{Error: err.Error()}
		}
	}
	if !req.Stats {
		return reply{}
	}
	st := s.Stats()
	return reply{Stats: &st}
}

// open makes the devices and the switch between them.
func open(cfg Config) (*Switch, error) {
	var ports []Port
	closeAll := func() {
		for _, p := range ports {
			_ = p.Device.Close()
		}
	}
	for _, p := range cfg.Ports {
		ns, err := tun.OpenNamed(p.Namespace)
		if err != nil {
			closeAll()
			return nil, err
		}
		dev, err := ns.OpenDevice(DeviceName, p.Addr, MTU)
		if err = errors.Join(err, ns.Close()); err != nil {
			closeAll()
			return nil, fmt.Errorf("port %s: %w", p.Name, err)
		}
		ports = append(ports, Port{Name: p.Name, Addr: p.Addr.Addr(), Device: dev})
	}
	s, err := New(cfg.Seed, ports)
	if err != nil {
		closeAll()
	}
	return s, err
}

// Process is a switch in a process of its own. Its methods may be called from any goroutine.
type Process struct {
	done chan struct{}
	err  error // set before done is closed

	mu  sync.Mutex // one request at a time
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

// Start runs cmd, which calls Serve on its standard streams, and waits until the devices are there.
// The process ends with this one, however that ends.
func Start(cmd *exec.Cmd, cfg Config) (*Process, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &Process{done: make(chan struct{}), in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(bufio.NewReader(out))}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		// The death signal is that of the thread, which also hands on its priority, before all others so that
		// the network is not late because nodes are busy. It stays, and ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0); err != nil {
			started <- fmt.Errorf("raising the switch's priority: %w", err)
			return
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting the switch: %w", err)
	}
	if _, err := p.call(request{Config: &cfg}); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Process) call(req request) (reply, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var r reply
	if err := p.enc.Encode(req); err != nil {
		return r, fmt.Errorf("asking the switch: %w", err)
	}
	if err := p.dec.Decode(&r); err != nil {
		return r, fmt.Errorf("asking the switch: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Set changes links from now on, in order.
func (p *Process) Set(links ...Link) error {
	_, err := p.call(request{Set: links})
	return err
}

// Stats reads the counters.
func (p *Process) Stats() (Stats, error) {
	r, err := p.call(request{Stats: true})
	if err != nil || r.Stats == nil {
		return Stats{}, err
	}
	return *r.Stats, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Close ends the process and waits for it.
func (p *Process) Close() error {
	_ = p.in.Close() // the process ends by it; where it has ended already there is nothing to close
	<-p.done
	return p.err
}
