package hls

import (
	"errors"
	"log/slog"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/spill"
)

var errNoDisk = errors.New("this node has no disk for segments")

// window says how far viewers of a program can go back. The folder has what memory does not; where there is none, they go
// back as far as in any live program, and the reason is in the program's statistics.
func (o *Origin) window(cfg *packager.Config, s Settings, segment time.Duration, log *slog.Logger) *spill.Folder {
	length := s.DVR
	if s.Event && length == 0 {
		length = maxDVR
	}
	if length == 0 {
		return nil
	}
	err := errNoDisk
	var folder *spill.Folder
	if o.disk != nil {
		folder, err = o.disk.Folder()
	}
	if err != nil {
		log.Warn("viewers can go back only as far as memory holds", "err", err)
		cfg.WindowFailure = err
		return nil
	}
	cfg.Window, cfg.Event, cfg.Disk = max(cfg.Window, int((length+segment-1)/segment)), s.Event, folder
	return folder
}
