package edge

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/hls/playlist"
	"github.com/amphi-sfu/amphi/hls/serve"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// maxText bounds a playlist's text, in bytes.
	maxText = 8 << 20
	// longestWait bounds what an origin may say of how long to wait for a part.
	longestWait = 10 * time.Second
	// margin is how much longer than the origin's own patience things may take on the way.
	margin = time.Second
	// idleAfter is for how long a playlist is followed that nobody asks for.
	idleAfter = 10 * time.Second
	// endedEvery is how often a playlist that has ended is looked at again: the stream may start anew.
	endedEvery = time.Second
)

// followed is one media playlist that is followed.
type followed struct {
	path  serve.Path
	asked atomic.Int64 // when somebody did last, in Unix nanoseconds
	seen  atomic.Int64 // when the origin confirmed the newest snapshot last, the same
	// lost: the origin does not answer.
	lost    atomic.Bool
	current atomic.Pointer[snapshot]
	mirror  playlist.Mirror // of the goroutine that follows
}

// snapshot is a playlist from one part to the next, or what is known instead. Immutable.
type snapshot struct {
	// status is 200, 404, or 0 before anything is known; local: this node makes the stream now.
	status int
	local  bool
	at     playlist.Position
	wait   time.Duration // for the next part
	forms  [3]*playlist.Form
	next   chan struct{} // closed when there is a newer one
}

// unzip checks one form of a playlist that came compressed.
func unzip(zipped []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxText+1))
	switch {
	case err != nil:
		return nil, err
	case len(plain) > maxText:
		return nil, errTooLarge
	case !bytes.HasPrefix(plain, []byte("#EXTM3U")):
		return nil, errNoPlaylist
	}
	return plain, nil
}

// follower finds or starts the following of a playlist.
func (e *Edge) follower(p serve.Path) *followed {
	key, now := keyOf(p), time.Now().UnixNano()
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lists[key]
	if l == nil {
		if e.closed || len(e.lists) >= maxLists {
			return nil
		}
		l = &followed{path: p}
		l.current.Store(&snapshot{next: make(chan struct{})})
		e.lists[key] = l
		e.wg.Go(func() { e.follow(e.base, key, l) })
	}
	l.asked.Store(now)
	return l
}

// maxLists bounds the playlists that are followed at once.
const maxLists = 4096

// idle ends the following of a playlist that nobody asks for, or that is not there: names that players make up must take
// no place. Whoever asks next has it looked for anew.
func (e *Edge) idle(key string, l *followed) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	gone := l.current.Load().status == http.StatusNotFound
	if !gone && time.Since(time.Unix(0, l.asked.Load())) < idleAfter && !e.closed {
		return false
	}
	delete(e.lists, key)
	return true
}

// follow keeps a playlist as new as the origin has it, by one request at a time.
func (e *Edge) follow(ctx context.Context, key string, l *followed) {
	origin := ""
	for !e.idle(key, l) {
		o, ok := e.origins.Origin(l.path.Room, l.path.Stream)
		if !ok || o.Local {
			l.publish(&snapshot{status: http.StatusNotFound, local: o.Local})
			continue
		}
		s := l.current.Load()
		query, timeout := "", e.cfg.Patience
		if s.status == http.StatusOK && !s.at.Ended && o.ID == origin {
			query = fmt.Sprintf("_HLS_msn=%d&_HLS_part=%d&"+serve.PastKnown, s.at.OpenMSN, s.at.OpenParts)
			timeout = s.wait + margin
		}
		a, err := e.ask(ctx, o, l.path, query, timeout)
		if err == nil {
			err = l.take(a, query != "")
		}
		switch {
		case err != nil:
			e.log.Debug("a playlist could not be followed", "playlist", key, "err", err)
			l.lost.Store(true)
			origin = "" // whoever answers next is asked for all
			pause(ctx, retryAfter)
		default:
			l.lost.Store(false)
			origin = o.ID
			switch s := l.current.Load(); {
			case s.status == http.StatusOK && s.at.Ended:
				pause(ctx, endedEvery)
			case a.status == http.StatusServiceUnavailable: // at once, where too many wait there
				pause(ctx, retryAfter)
			}
		}
	}
}

// take makes a snapshot of what the origin answered.
func (l *followed) take(a *answer, blocked bool) error {
	switch a.status {
	case http.StatusOK:
	case http.StatusNotFound:
		l.publish(&snapshot{status: a.status})
		return nil
	case http.StatusServiceUnavailable: // nothing new yet
		l.seen.Store(time.Now().UnixNano())
		return nil
	default:
		// The origin's program is another one than that which was followed: it is asked for all.
		return fmt.Errorf("the origin answers %d", a.status)
	}
	s, err := l.read(a.body)
	if err != nil {
		return fmt.Errorf("reading a playlist (blocked: %v): %w", blocked, err)
	}
	l.seen.Store(time.Now().UnixNano())
	l.publish(s)
	return nil
}

// read checks what an origin sent.
func (l *followed) read(b []byte) (*snapshot, error) {
	var m amphiv1.EdgePlaylist
	if err := protobuf.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	s := &snapshot{
		status: http.StatusOK, wait: min(time.Duration(m.GetWaitMs())*time.Millisecond, longestWait),
		at: playlist.Position{Empty: m.GetEmpty(), Ended: m.GetEnded(), OpenMSN: m.GetOpenMsn(), OpenParts: int(m.GetOpenParts()),
			PrevParts: int(m.GetPrevParts()), AdvanceParts: int(m.GetAdvanceParts())},
	}
	var plain [3][]byte
	for i, zipped := range [][]byte{m.GetFull(), m.GetDelta(), m.GetDeltaV2()} {
		switch {
		case len(zipped) > 0:
			var err error
			if plain[i], err = unzip(zipped); err != nil {
				return nil, err
			}
			s.forms[i] = playlist.NewForm(plain[i], zipped)
		case i > 0:
			plain[i], s.forms[i] = plain[i-1], s.forms[i-1]
		}
	}
	if s.at.Ended && plain[0] != nil { // nothing follows that would need what is known by now
		return s, nil
	}
	whole, err := l.whole(plain[0], plain[1])
	switch {
	case err != nil:
		return nil, err
	case whole.Size() > maxText:
		return nil, errTooLarge
	case s.forms[0] != s.forms[1]:
		s.forms[0] = whole
	}
	return s, nil
}

// whole is the playlist of which only the delta came, or both.
func (l *followed) whole(full, delta []byte) (*playlist.Form, error) {
	switch {
	case full != nil:
		return l.mirror.Whole(full, delta)
	case delta != nil:
		return l.mirror.Delta(delta)
	}
	return nil, errNoPlaylist
}

func (l *followed) publish(s *snapshot) {
	s.next = make(chan struct{})
	close(l.current.Swap(s).next)
}

// fresh says that the origin has lately confirmed s.
func (l *followed) fresh(s *snapshot) bool {
	return time.Since(time.Unix(0, l.seen.Load())) < s.wait+2*margin
}

// lookAgain is how often a request looks at a playlist that is not fresh: it may be confirmed without being another one.
const lookAgain = 250 * time.Millisecond

// playlist answers with a media playlist, when it is as q asks.
func (e *Edge) playlist(w http.ResponseWriter, r *http.Request, p serve.Path, q playlist.Reload, open bool) serve.Outcome {
	l := e.follower(p)
	if l == nil {
		return serve.ComeBack(w, serve.TooMany)
	}
	begun := time.Now() // to wait for the next part, of which q may want several
	for {
		s := l.current.Load()
		look := e.cfg.Patience - time.Since(begun)
		switch {
		case s.local:
			return e.pass(w, r)
		case s.status == http.StatusNotFound:
			return serve.NothingHere(w)
		case s.status == http.StatusOK && (q.Blocking && s.at.Has(q.MSN, q.Part) || l.fresh(s)):
			switch s.at.Check(q) {
			case playlist.Ready:
				return e.give(w, r, serve.PlaylistAnswer(r, serve.CacheOf(open, q.Blocking), s.forms[q.Skip]))
			case playlist.TooFar:
				return serve.TooFar(w)
			}
			if !l.lost.Load() {
				look = s.wait + margin - time.Since(begun)
			}
		case s.status == http.StatusOK:
			look = min(look, lookAgain)
		}
		if look <= 0 {
			return serve.ComeBack(w, serve.TimedOut)
		}
		l.asked.Store(time.Now().UnixNano())
		switch out := e.await(r, s.next, look); out {
		case serve.Sent:
			begun = time.Now()
		case serve.TimedOut:
			if time.Since(begun) >= e.cfg.Patience || s.status == http.StatusOK && l.fresh(s) && !l.lost.Load() {
				return serve.ComeBack(w, out)
			}
		default:
			return serve.ComeBack(w, out)
		}
	}
}
