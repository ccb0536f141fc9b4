package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/amphi-sfu/amphi/media/netem/tun"
)

// mountSource marks the lab's file systems in the list of mounts.
const mountSource = "amphi-lab"

// lock makes sure that one lab of a prefix runs at a time; the kernel gives it back when the process ends.
func lock(prefix string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), prefix+"lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the lab: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another lab is running (%s)", f.Name()), f.Close())
	}
	return f, nil
}

// cleanUp removes what a lab that was killed left: processes in namespaces with the prefix, the
// namespaces, and file systems below dir.
func cleanUp(prefix, dir string) error {
	names, err := tun.NamedNamespaces(prefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		ns, err := tun.OpenNamed(name)
		if err == nil {
			var id uint64
			if id, err = ns.ID(); err == nil {
				killIn(id)
			}
			err = errors.Join(err, ns.Close())
		}
		errs = append(errs, err, tun.RemoveNamed(name))
	}
	return errors.Join(append(errs, unmountBelow(dir))...)
}

// killIn ends the processes of a network namespace that only the lab makes.
func killIn(namespace uint64) {
	var own unix.Stat_t
	if unix.Stat("/proc/self/ns/net", &own) == nil && own.Ino == namespace {
		return
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && st.Ino == namespace {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		}
	}
}

// unmountBelow takes the lab's file systems below dir away.
func unmountBelow(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("reading the mounts: %w", err)
	}
	defer f.Close()
	var errs []error
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		_, after, ok := strings.Cut(lines.Text(), " - ")
		source := strings.Fields(after)
		if !ok || len(fields) < 5 || len(source) < 2 || source[1] != mountSource {
			continue
		}
		if point := fields[4]; strings.HasPrefix(point, dir+"/") {
			errs = append(errs, unix.Unmount(point, unix.MNT_DETACH))
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}
