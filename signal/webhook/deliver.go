package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is one of Config's, with what it has not taken yet.
type target struct {
	url, shown, key string
	secrets         [][]byte
	events          []string

	// Sender.mu guards the fields below.
	lanes   map[string]*lane // by room
	pending map[*entry]struct{}
	flying  int
	// failure is why the last attempt failed, empty after one that did not; since then.
	failure   string
	failingAt time.Time
	delivered uint64
}

// lane is the deliveries of one room to one target, in order.
type lane struct {
	queue  []*entry
	flying bool
	tries  int
	due    time.Time
}

func (t *target) wants(kind string) bool {
	return len(t.events) == 0 || slices.ContainsFunc(t.events, func(e string) bool {
		if start, ok := strings.CutSuffix(e, "*"); ok {
			return strings.HasPrefix(kind, start)
		}
		return e == kind
	})
}

func (t *target) waiting() int { return len(t.pending) }

// add queues a delivery.
func (t *target) add(e *entry) {
	l := t.lanes[e.room]
	if l == nil {
		l = &lane{}
		t.lanes[e.room] = l
	}
	l.queue = append(l.queue, e)
	t.pending[e] = struct{}{}
}

func (t *target) has(e *entry) bool {
	_, ok := t.pending[e]
	return ok
}

// pop takes the first delivery out of a lane.
func (t *target) pop(l *lane) {
	delete(t.pending, l.queue[0])
	l.queue[0] = nil
	l.queue, l.tries, l.due = l.queue[1:], 0, time.Time{}
}

// drop takes a delivery out of its lane that is not wanted any more; false: it was not waiting. One that is under way is
// dropped when it fails.
func (t *target) drop(e *entry) bool {
	l := t.lanes[e.room]
	if l == nil || !t.has(e) {
		return false
	}
	switch i := slices.Index(l.queue, e); {
	case i > 0:
		delete(t.pending, e)
		l.queue = slices.Delete(l.queue, i, i+1)
	case l.flying:
		return false
	default:
		t.pop(l)
	}
	return true
}

// schedule starts what is due, and answers after what time to look again.
func (s *Sender) schedule(ctx context.Context, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := time.Minute
	for _, t := range s.targets {
		for room, l := range t.lanes {
			s.expireLocked(t, l, now)
			switch {
			case l.flying:
			case len(l.queue) == 0:
				delete(t.lanes, room)
			case l.due.After(now):
				next = min(next, l.due.Sub(now))
			case t.flying < s.cfg.Parallel:
				l.flying = true
				t.flying++
				e := l.queue[0]
				s.wg.Go(func() { s.deliver(ctx, t, l, e) })
			}
		}
	}
	return next
}

// expireLocked gives up what a target has not taken for too long.
func (s *Sender) expireLocked(t *target, l *lane, now time.Time) {
	if l.flying {
		return
	}
	for len(l.queue) > 0 && now.Sub(l.queue[0].at) > GiveUp && l.tries > 0 {
		s.drop("expired", 1)
		s.marks = append(s.marks, mark{Done: l.queue[0].n, To: t.key})
		s.log.Warn("webhook given up", "target", t.shown, "event", l.queue[0].id, "reason", t.failure)
		t.pop(l)
		s.nudge()
	}
}

// deliver tries one event once.
func (s *Sender) deliver(ctx context.Context, t *target, l *lane, e *entry) {
	wait, err := s.post(ctx, t, e, time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.nudge()
	t.flying--
	l.flying = false
	if err == nil {
		s.stats.Delivered++
		t.delivered++
		t.failure = ""
		t.pop(l)
		s.marks = append(s.marks, mark{Done: e.n, To: t.key})
		return
	}
	if ctx.Err() != nil {
		return
	}
	s.stats.Failed++
	if t.failure == "" {
		t.failingAt = time.Now()
		s.log.Warn("webhook not delivered; it is tried again", "target", t.shown, "event", e.id, "err", err)
	}
	t.failure = err.Error()
	if s.byID[e.id] != e {
		// The outbox has let go of it meanwhile.
		t.pop(l)
		s.drop("full", 1)
		return
	}
	l.due = time.Now().Add(max(wait, s.backOff(l.tries)))
	l.tries++
}

// backOff is between half of the time and all of it, so that lanes do not knock together.
func (s *Sender) backOff(tries int) time.Duration {
	d := s.cfg.LastRetry
	if tries < 20 {
		d = min(d, s.cfg.FirstRetry<<tries)
	}
	return d/2 + rand.N(d/2+1)
}

// maxWait bounds what a target may ask to be left alone for.
const maxWait = time.Hour

// post sends one request; wait is what the target asked for.
func (s *Sender) post(ctx context.Context, t *target, e *entry, now time.Time) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(e.body))
	if err != nil {
		return 0, errors.New("the request cannot be made")
	}
	signatures := make([]string, 0, len(t.secrets))
	for _, secret := range t.secrets {
		signatures = append(signatures, Sign(secret, e.id, now.Unix(), e.body))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "amphi-webhooks")
	req.Header.Set(HeaderID, e.id)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(HeaderSignature, strings.Join(signatures, " "))
	res, err := s.client.Do(req)
	if err != nil {
		// Without the URL, which may hold a secret.
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return 0, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return 0, nil
	}
	if seconds, bad := strconv.Atoi(res.Header.Get("Retry-After")); bad == nil && seconds > 0 {
		wait = min(time.Duration(seconds)*time.Second, maxWait)
	}
	return wait, fmt.Errorf("answered %d", res.StatusCode)
}
