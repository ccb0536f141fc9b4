package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// namedDir is where iproute2 looks for namespaces by name.
const namedDir = "/run/netns"

// queueLength is how many packets may wait in a device for its reader.
const queueLength = 4096

// NewNamed makes a network namespace that other programs find by name, as in
// "ip netns exec NAME". It outlives this process: RemoveNamed ends the name.
func NewNamed(name string) (*Namespace, error) {
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return nil, fmt.Errorf("%q is no name for a network namespace", name)
	}
	if err := os.MkdirAll(namedDir, 0o755); err != nil {
		return nil, fmt.Errorf("naming a network namespace: %w", err)
	}
	path := filepath.Join(namedDir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("naming a network namespace: %w", err)
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("naming a network namespace: %w", err)
		}
		return setUp("lo", 0)
	})
	if err != nil {
		return nil, errors.Join(err, RemoveNamed(name))
	}
	return OpenNamespace(path)
}

// OpenNamed opens a namespace that has a name.
func OpenNamed(name string) (*Namespace, error) {
	return OpenNamespace(filepath.Join(namedDir, filepath.Base(name)))
}

// RemoveNamed takes the name off; the kernel removes the namespace with its
// last user. A name that isn't there is no error.
func RemoveNamed(name string) error {
	path := filepath.Join(namedDir, filepath.Base(name))
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing network namespace %s: %w", name, err)
	}
	return nil
}

// NamedNamespaces lists the names that begin with prefix.
func NamedNamespaces(prefix string) ([]string, error) {
	entries, err := os.ReadDir(namedDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// ID is the number of the namespace, the same for everything that is in it.
func (n *Namespace) ID() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(n.file.Fd()), &st); err != nil {
		return 0, fmt.Errorf("identifying the network namespace: %w", err)
	}
	return st.Ino, nil
}

// OpenDevice makes a tun device in the namespace, which lives until it is
// closed: a read takes one IP packet that was sent by it, a write makes one
// arrive from it.
func (n *Namespace) OpenDevice(name string, addr netip.Prefix, mtu int) (dev *os.File, err error) {
	err = n.Do(func() error {
		if dev, err = openDevice(name, addr, mtu); err != nil {
			return err
		}
		if err = setQueueLength(name, queueLength); err != nil {
			return errors.Join(err, dev.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return dev, nil
}

func setQueueLength(name string, packets uint32) error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket to configure %s: %w", name, err)
	}
	defer unix.Close(sock)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint32(packets)
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFTXQLEN, req); err != nil {
		return fmt.Errorf("setting the queue of %s: %w", name, err)
	}
	return nil
}
