package gossip

import (
	"log/slog"
	"regexp"
	"strings"

	"github.com/amphi-sfu/amphi/cluster/refusal"
)

// lines takes memberlist's log. It is the only place where memberlist tells what it refused, so the lines of the pinned
// version are told apart here: refusals are counted, the rest logged as what it is. Tests fail when a line changes.
type lines struct {
	log     *slog.Logger
	refused *refusal.Counter
	trouble *refusal.Counter
	suspect func(node string)
}

// lineReason is the reason for which a line that contains text is counted.
type lineReason struct{ text, reason string }

var lineReasons = []lineReason{
	{"Decrypt packet failed", "wrong_key"},
	{"installed keys could decrypt", "wrong_key"},
	{"is not encrypted", "not_encrypted"},
	{"unacceptable label", "wrong_label"},
	{"label header", "garbage"},
	{"cannot decode label", "garbage"},
	{"larger than limit", refusedSize},
	{"failed to receive", "garbage"},
	{"Rejected", refusedAddress},
	{"Blocked alive", refusedAddress},
	{"Conflicting address", "name_conflict"},
	{"ignoring alive message", "bad_description"},
	{"Ignoring an alive message", "bad_description"},
	{"handler queue full", refusedQueue},
	{"Too many pending push/pull", refusedCrowd},
	{"Failed to decode", "malformed"},
	{"Failed to decompress", "malformed"},
	{"invalid checksum", "malformed"},
	{"truncated", "malformed"},
	{"not supported", "malformed"},
	{"invalid msgType", "malformed"},
	{"Failed to read remote state", "malformed"},
}

var (
	suspectLine = regexp.MustCompile(`Suspect (\S+) has failed`)
	fromText    = regexp.MustCompile(`from=(\S+)`)
)

// Write implements io.Writer; memberlist's logger calls it once per line.
func (l *lines) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	level, text, found := strings.Cut(line, "] memberlist: ")
	if !found {
		level, text = "[ERR", line
	}
	switch level {
	case "[DEBUG":
		// Two of its refusals are told at this level.
		if strings.HasPrefix(text, "Blocked alive") {
			break
		}
		l.log.Debug("gossip", "detail", text)
		return len(p), nil
	case "[INFO":
		if m := suspectLine.FindStringSubmatch(text); m != nil {
			l.suspect(m[1])
		}
		l.log.Debug("gossip", "detail", text)
		return len(p), nil
	}
	from := ""
	if m := fromText.FindStringSubmatch(text); m != nil {
		from = m[1]
	}
	for _, r := range lineReasons {
		if strings.Contains(text, r.text) {
			l.refused.Add(r.reason, from, lineError(text))
			return len(p), nil
		}
	}
	l.trouble.Add("lines", from, lineError(text))
	return len(p), nil
}

type lineError string

// Error implements error.
func (e lineError) Error() string { return string(e) }
