package trunk

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/udp"
)

// dropReason says why a datagram was not taken, or a packet not sent.
type dropReason uint8

const (
	dropMalformed dropReason = iota
	dropTruncated
	dropOversize
	dropType
	dropConn
	dropPhase
	dropReplayed
	dropTooOld
	dropForged
	dropLabel
	dropNoTrunk
	dropReasons
)

// String is the reason's name, a metric label.
func (d dropReason) String() string {
	switch d {
	case dropMalformed:
		return errMalformed.Error()
	case dropTruncated:
		return record.ErrTruncated.Error()
	case dropOversize:
		return record.ErrOversize.Error()
	case dropType:
		return record.ErrType.Error()
	case dropConn:
		return record.ErrConn.Error()
	case dropPhase:
		return record.ErrPhase.Error()
	case dropReplayed:
		return record.ErrReplayed.Error()
	case dropTooOld:
		return record.ErrTooOld.Error()
	case dropForged:
		return record.ErrForged.Error()
	case dropLabel:
		return "unknown_label"
	default:
		return "no_trunk"
	}
}

func reasonOf(err error) dropReason {
	switch {
	case errors.Is(err, record.ErrTruncated):
		return dropTruncated
	case errors.Is(err, record.ErrOversize):
		return dropOversize
	case errors.Is(err, record.ErrType):
		return dropType
	case errors.Is(err, record.ErrConn):
		return dropConn
	case errors.Is(err, record.ErrPhase):
		return dropPhase
	case errors.Is(err, record.ErrReplayed):
		return dropReplayed
	case errors.Is(err, record.ErrTooOld):
		return dropTooOld
	case errors.Is(err, record.ErrForged):
		return dropForged
	default:
		return dropMalformed
	}
}

type dropCounts [dropReasons]atomic.Uint64

func (d *dropCounts) add(r dropReason) { d[r].Add(1) }

// manyDrops is how many in a second are worth a warning.
const manyDrops = 100

// tellDrops logs one line a second while anything is dropped.
func (s *Set) tellDrops(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var told [dropReasons]uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var attrs []slog.Attr
		total := uint64(0)
		for r := range dropReasons {
			n := s.drops[r].Load() - told[r]
			if n == 0 {
				continue
			}
			told[r] += n
			total += n
			attrs = append(attrs, slog.Uint64(r.String(), n))
		}
		if total == 0 {
			continue
		}
		level := slog.LevelDebug
		if total >= manyDrops {
			level = slog.LevelWarn
		}
		s.log.LogAttrs(ctx, level, "dropping records", attrs...)
	}
}

// Stats of a Set.
type Stats struct {
	// Trunks are sorted by node.
	Trunks []TrunkStats
	// Drops counts datagrams not taken and packets not sent, by reason, zero ones too.
	Drops map[string]uint64
	// Socket is what the socket itself counts.
	Socket udp.Stats
}

// TrunkStats is what is known of one trunk.
type TrunkStats struct {
	Node string
	// Up says that records pass; Since is for how long, or how long it has been tried.
	Up    bool
	Since time.Duration
	// Dialled says that this node made the control connection.
	Dialled bool
	Addr    string
	RTT     time.Duration
	// LossOut and LossIn are the shares of records lost lately on the way there and here.
	LossOut, LossIn float64
	// SentRate and ReceivedRate are bits per second of the last second, headers included;
	// Offered what there was to send. Budget is what the path carries.
	SentRate, ReceivedRate, Offered, Budget int64
	// QueueP95 is what packets waited here, of the last 64; PathQueue what they wait on the path.
	QueueP95, PathQueue time.Duration
	QueueBytes          int
	// Labels are sent now, LabelsShed of them held back.
	Labels, LabelsShed int
	// Packets sent and received of media; Shed and Overflowed were not sent.
	Sent, Received, Shed, Overflowed uint64
	// Of the other end's requests: Requested packets, Resent of them, Unavailable the rest.
	Requested, Resent, Unavailable uint64
	// Of our requests: packets Missing, Recovered of them, GivenUp the rest.
	Missing, Recovered, GivenUp uint64
	// Bursts counts how often the trunk was doubted; KeyPhase is the running number of its key.
	Bursts   uint64
	KeyPhase uint8
}

// Stats returns a snapshot.
func (s *Set) Stats() Stats {
	out := Stats{Drops: make(map[string]uint64, dropReasons), Socket: s.sock.Stats()}
	for r := range dropReasons {
		out.Drops[r.String()] = s.drops[r].Load()
	}
	now := s.cfg.Now()
	for _, c := range s.table.Load().list {
		t := c.line.stats()
		t.Node, t.Dialled, t.Addr = c.node, c.dialled, c.addr.Load().String()
		since := c.upAt.Load()
		t.Up = since != 0
		if !t.Up {
			since = c.began
		}
		t.Since = time.Duration(now - since)
		out.Trunks = append(out.Trunks, t)
	}
	slices.SortFunc(out.Trunks, func(a, b TrunkStats) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// stats fills what the line knows.
func (l *line) stats() TrunkStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	path := l.est.Stats()
	lacking := l.repairs.stats()
	waits := slices.Clone(l.rates.queueSamples[:min(l.rates.samples, len(l.rates.queueSamples))])
	slices.Sort(waits)
	t := TrunkStats{
		RTT: time.Duration(l.live.rtt.smooth), LossOut: path.Loss, LossIn: l.rates.inLoss,
		SentRate: l.rates.sent, ReceivedRate: l.rates.got, Offered: l.shed.offered, Budget: l.est.Estimate(),
		PathQueue: path.QueueDelay, QueueBytes: l.queue.bytes,
		Labels: len(l.shed.labels), LabelsShed: l.shed.count,
		Sent: l.counts.media, Received: l.counts.mediaReceived, Shed: l.counts.shed, Overflowed: l.counts.overflowed,
		Requested: l.counts.requested, Resent: l.counts.resent, Unavailable: l.counts.unavailable,
		Missing: lacking.Missing, Recovered: lacking.Recovered, GivenUp: lacking.GivenUp,
		Bursts: l.counts.bursts, KeyPhase: l.sealer.Phase(),
	}
	if n := len(waits); n > 0 {
		t.QueueP95 = time.Duration(waits[n*95/100])
	}
	return t
}

// news is what the writer tells others: the state of the path, the budget, labels shed and
// restored since the last call.
func (l *line) news() (state, int64, []change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changes := l.shed.changes
	l.shed.changes = nil
	return l.live.state, l.est.Estimate(), changes
}
