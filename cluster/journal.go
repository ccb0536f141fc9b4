package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"golang.org/x/sys/unix"
	gproto "google.golang.org/protobuf/proto"
)

// Names in the directory, and the form of an entry: length of the body (4 bytes), CRC-32C of the rest (4), number (8),
// body, all big-endian. A snapshot is one entry whose number is that of the last command in it; a log is many.
const (
	lockName     = "lock"
	snapshotName = "registry.snapshot"
	logName      = "registry.log"
	headerSize   = 16
	// maxEntry bounds one command, maxSnapshot the whole registry, in bytes.
	maxEntry    = 20 << 20
	maxSnapshot = 1 << 30
)

var errBroken = errors.New("an earlier write failed; restart to go on from what is on disk")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journal is a directory with a snapshot and the log of what came after it. One goroutine at a time uses it.
type journal struct {
	dir     string
	lock    *os.File
	log     *os.File
	last    uint64 // number of the last entry
	size    int64  // of the log
	limit   int64
	nextTry int64 // size of the log from which a snapshot is tried again
	broken  bool
}

// loaded is what a directory held.
type loaded struct {
	snapshot *pb.Registry
	commands []*pb.RegistryCommand
	setAside string
}

func openJournal(dir string, limit int64) (*journal, *loaded, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, nil, fmt.Errorf("locking, another process may use it: %w", err)
	}
	j := &journal{dir: dir, lock: lock, limit: limit, nextTry: limit}
	l, err := j.load()
	if err != nil {
		_ = j.close()
		return nil, nil, err
	}
	return j, l, nil
}

func (j *journal) path(name string) string { return filepath.Join(j.dir, name) }

func (j *journal) load() (*loaded, error) {
	l := &loaded{snapshot: &pb.Registry{}}
	data, err := os.ReadFile(j.path(snapshotName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		number, body, _, ok := cutEntry(data, maxSnapshot)
		if !ok {
			return nil, fmt.Errorf("%s is damaged", snapshotName)
		}
		if err := gproto.Unmarshal(body, l.snapshot); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w", snapshotName, err)
		}
		j.last = number
	}
	if err := j.loadLog(l); err != nil {
		return nil, err
	}
	return l, nil
}

// loadLog reads the commands after the snapshot. What follows the last whole entry is moved to a file of its own.
func (j *journal) loadLog(l *loaded) error {
	data, err := os.ReadFile(j.path(logName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	rest := data
	for len(rest) > 0 {
		number, body, after, ok := cutEntry(rest, maxEntry)
		if !ok {
			break
		}
		rest = after
		if number <= j.last {
			continue // in the snapshot already
		}
		if number != j.last+1 {
			return fmt.Errorf("%s lacks the entries %d to %d", logName, j.last+1, number-1)
		}
		cmd := &pb.RegistryCommand{}
		if err := gproto.Unmarshal(body, cmd); err != nil {
			return fmt.Errorf("%s, entry %d: %w", logName, number, err)
		}
		l.commands = append(l.commands, cmd)
		j.last = number
	}
	if len(rest) > 0 {
		l.setAside = j.path(fmt.Sprintf("%s.torn-%d", logName, j.last))
		if err := j.replace(filepath.Base(l.setAside), rest); err != nil {
			return err
		}
	}
	j.size = int64(len(data) - len(rest))
	return j.openLog(j.size)
}

// openLog opens the log to append at size, whatever stood after it.
func (j *journal) openLog(size int64) error {
	f, err := os.OpenFile(j.path(logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	j.log, j.size = f, size
	return j.syncDir()
}

// append writes a batch and waits until it is on disk. What a full disk took of it is cut off again, and the next batch is
// another try. After any other failure nothing is known of what is there: the journal takes no more.
func (j *journal) append(batch []*proposal) error {
	if j.broken {
		return errBroken
	}
	var buf []byte
	for i, p := range batch {
		buf = appendEntry(buf, j.last+1+uint64(i), p.data)
	}
	if _, err := j.log.Write(buf); err != nil {
		return j.cutBack(err)
	}
	if err := j.log.Sync(); err != nil {
		j.broken = true
		return err
	}
	j.last += uint64(len(batch))
	j.size += int64(len(buf))
	return nil
}

// cutBack takes away what a write that failed has left behind the last batch, which was flushed and is known to be there.
func (j *journal) cutBack(failed error) error {
	full := errors.Is(failed, unix.ENOSPC) || errors.Is(failed, unix.EDQUOT)
	if !full {
		j.broken = true
		return failed
	}
	if err := errors.Join(j.log.Truncate(j.size), j.log.Sync()); err != nil {
		j.broken = true
		return errors.Join(failed, err)
	}
	return failed
}

func (j *journal) wantsSnapshot() bool { return !j.broken && j.size >= j.nextTry }

// compact puts a snapshot of everything so far in place and empties the log. Wherever it stops, snapshot and log
// together are whole: entries that the snapshot has are skipped on loading.
func (j *journal) compact(snapshot *pb.Registry) error {
	j.nextTry = j.size + j.limit
	body, err := gproto.Marshal(snapshot)
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	if len(body) > maxSnapshot {
		return fmt.Errorf("the registry has %d bytes, more than %d", len(body), maxSnapshot)
	}
	if err := j.replace(snapshotName, appendEntry(nil, j.last, body)); err != nil {
		return err
	}
	if err := j.log.Truncate(0); err != nil {
		j.broken = true
		return err
	}
	if err := j.log.Sync(); err != nil {
		j.broken = true
		return err
	}
	j.size = 0
	// A large registry with a small log is not written out over and over.
	j.nextTry = max(j.limit, int64(len(body)))
	return nil
}

// replace writes a file beside its name and moves it there, so that it is never there in part.
func (j *journal) replace(name string, data []byte) error {
	tmp := j.path(name + ".new")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, j.path(name)); err != nil {
		return err
	}
	return j.syncDir()
}

func (j *journal) syncDir() error {
	d, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (j *journal) close() error {
	var err error
	if j.log != nil {
		err = j.log.Close()
	}
	// Given back by name: a process that is just being started may still share the descriptor.
	return errors.Join(err, unix.Flock(int(j.lock.Fd()), unix.LOCK_UN), j.lock.Close())
}

func appendEntry(b []byte, number uint64, body []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, number)
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+8:], castagnoli))
	return b
}

// cutEntry takes the first entry off; false when it is not whole.
func cutEntry(b []byte, most int) (number uint64, body, rest []byte, ok bool) {
	if len(b) < headerSize {
		return 0, nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(most) || uint64(n) > uint64(len(b)-headerSize) {
		return 0, nil, nil, false
	}
	end := headerSize + int(n)
	if crc32.Checksum(b[8:end], castagnoli) != binary.BigEndian.Uint32(b[4:]) {
		return 0, nil, nil, false
	}
	return binary.BigEndian.Uint64(b[8:]), b[headerSize:end], b[end:], true
}
