package icenet

import (
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// Log sends what pion's libraries log to our logger. What they call an error
// is mostly a client gone, so it arrives one level lower.
type Log struct {
	Logger *slog.Logger
}

// NewLogger implements logging.LoggerFactory.
func (l Log) NewLogger(scope string) logging.LeveledLogger {
	return Log{Logger: l.Logger.With("library", scope)}
}

func (Log) Trace(string)          {}
func (Log) Tracef(string, ...any) {}
func (Log) Debug(string)          {}
func (Log) Debugf(string, ...any) {}
func (Log) Info(string)           {}
func (Log) Infof(string, ...any)  {}
func (l Log) Warn(msg string)     { l.Logger.Debug(msg) }
func (l Log) Error(msg string)    { l.Logger.Info(msg) }

func (l Log) Warnf(format string, args ...any)  { l.Logger.Debug(fmt.Sprintf(format, args...)) }
func (l Log) Errorf(format string, args ...any) { l.Logger.Info(fmt.Sprintf(format, args...)) }
