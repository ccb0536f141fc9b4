package dtlssrtp

import (
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// leveled sends what pion's libraries log to our logger. What they call an error
// is mostly a client gone, so it arrives one level lower.
type leveled struct {
	Logger *slog.Logger
}

// NewLogger implements logging.LoggerFactory.
func (l leveled) NewLogger(scope string) logging.LeveledLogger {
	return leveled{Logger: l.Logger.With("library", scope)}
}

func (leveled) Trace(string)          {}
func (leveled) Tracef(string, ...any) {}
func (leveled) Debug(string)          {}
func (leveled) Debugf(string, ...any) {}
func (leveled) Info(string)           {}
func (leveled) Infof(string, ...any)  {}
func (l leveled) Warn(msg string)     { l.Logger.Debug(msg) }
func (l leveled) Error(msg string)    { l.Logger.Info(msg) }

func (l leveled) Warnf(format string, args ...any)  { l.Logger.Debug(fmt.Sprintf(format, args...)) }
func (l leveled) Errorf(format string, args ...any) { l.Logger.Info(fmt.Sprintf(format, args...)) }
