// Package tun emulates a link between two network namespaces on Linux: each has
// a tun device, and what leaves by one arrives, shaped by netem, at the other.
// It shapes whole IP packets of any protocol and process. It needs root.
package tun

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that lives until Close.
type Namespace struct {
	file *os.File
}

// NewNamespace makes a network namespace with nothing but a loopback device.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{}
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		if n.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return fmt.Errorf("holding the network namespace: %w", err)
		}
		return setUp("lo", 0)
	})
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// OpenNamespace opens an existing one, such as /run/netns/name or
// /proc/<pid>/ns/net.
func OpenNamespace(path string) (*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening network namespace: %w", err)
	}
	return &Namespace{file: f}, nil
}

// Path names the namespace for other programs, as in nsenter --net=PATH, as
// long as this process lives and the Namespace is open.
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Do runs f on a thread inside the namespace and returns its error. Sockets that
// f opens stay in the namespace; goroutines that it starts are not in it.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering the network namespace: %w", err)
		}
		return f()
	})
}

// Close lets go of the namespace; the kernel removes it with its last user.
func (n *Namespace) Close() error {
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// onThread runs f on an OS thread of its own, which ends with it: a thread that
// has changed its namespace must not serve other goroutines.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}
