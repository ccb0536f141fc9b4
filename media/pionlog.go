package media

import (
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// pionLog sends what pion's libraries log to our logger. What they call an error
// is mostly a client gone, so it arrives one level lower.
type pionLog struct {
	log *slog.Logger
}

// NewLogger implements logging.LoggerFactory.
func (l pionLog) NewLogger(scope string) logging.LeveledLogger {
	return pionLog{log: l.log.With("library", scope)}
}

func (pionLog) Trace(string)          {}
func (pionLog) Tracef(string, ...any) {}
func (pionLog) Debug(string)          {}
func (pionLog) Debugf(string, ...any) {}
func (pionLog) Info(string)           {}
func (pionLog) Infof(string, ...any)  {}
func (l pionLog) Warn(msg string)     { l.log.Debug(msg) }
func (l pionLog) Error(msg string)    { l.log.Info(msg) }

func (l pionLog) Warnf(format string, args ...any)  { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l pionLog) Errorf(format string, args ...any) { l.log.Info(fmt.Sprintf(format, args...)) }
