package ice

import "time"

// Tick does what is due, adds it to o, and returns when it wants to be called next; after
// a call of Handle or Restart that may be earlier, see Next.
func (a *Agent) Tick(now time.Duration, o *Output) time.Duration {
	if g := &a.generations[1]; g.number != 0 && now >= g.until {
		*g = generation{}
	}
	a.age(now)
	if a.state == Failed {
		return forever
	}
	for i := range a.pairs {
		if p := &a.pairs[i]; p.tries > 0 && now-p.sentAt >= a.retryAfter(p) {
			if int(p.tries) < maxTries {
				a.sendCheck(p, now, o)
			} else {
				p.tries = 0 // the client's next check begins again, or the next question of watch
			}
		}
	}
	if s := a.find(a.selected); a.hasSelected && s != nil {
		a.watch(s, now, o)
	}
	return a.Next(now)
}

const forever = time.Duration(1<<63 - 1)

// age follows the silence of the client.
func (a *Agent) age(now time.Duration) {
	silent := now - a.heard
	switch a.state {
	case Connecting:
		if a.cfg.ConnectWithin > 0 && now-a.began >= a.cfg.ConnectWithin {
			a.state = Failed
		}
	case Connected:
		if silent >= a.cfg.DisconnectedAfter {
			a.state = Disconnected
		}
	case Disconnected:
		if silent >= a.cfg.DisconnectedAfter+a.cfg.FailedAfter {
			a.state = Failed
		}
	}
}

// watch asks the selected pair for consent and signs of life, and leaves it for another
// one that is alive when it gives none.
func (a *Agent) watch(s *pair, now time.Duration, o *Output) {
	if now-s.answered >= consentExpires {
		o.Gone = append(o.Gone, s.path)
		a.Lost(s.path)
		return
	}
	if s.tries == 0 && (now >= s.consentAt || now-s.heard >= a.quiet()) {
		a.sendCheck(s, now, o)
		return
	}
	if s.tries < 3 {
		return
	}
	var best *pair
	for i := range a.pairs {
		p := &a.pairs[i]
		if p != s && p.valid && p.session >= s.session && p.heard > s.heard && (best == nil || p.heard > best.heard) {
			best = p
		}
	}
	if best != nil {
		s.tries = 0
		a.selected = best.path
		best.consentAt = now + a.consentAfter()
	}
}

// quiet is after how long the client is asked for a sign of life: early enough for
// several questions before it counts as disconnected.
func (a *Agent) quiet() time.Duration { return min(quiet, a.cfg.DisconnectedAfter*3/5) }

// retryAfter is the time from a pair's last check to the next one.
func (a *Agent) retryAfter(p *pair) time.Duration {
	if p.valid { // the checks of a selected pair go on until it answers or is left
		return askAgain / 2 << min(p.tries/3, 2)
	}
	return firstRetry << (p.tries - 1)
}

// Next is when Tick is due, as far as is known now.
func (a *Agent) Next(now time.Duration) time.Duration {
	next := now + time.Second
	switch {
	case a.state == Failed:
		return forever
	case a.state == Connecting && len(a.pairs) == 0:
		if next = forever; a.cfg.ConnectWithin > 0 {
			next = a.began + a.cfg.ConnectWithin
		}
	case a.state == Disconnected:
		next = min(next, a.heard+a.cfg.DisconnectedAfter+a.cfg.FailedAfter)
	case a.state == Connected:
		next = a.heard + a.cfg.DisconnectedAfter
		if s := a.find(a.selected); a.hasSelected && s != nil && s.tries == 0 {
			next = min(next, s.consentAt, s.heard+a.quiet())
		}
	}
	for i := range a.pairs {
		if p := &a.pairs[i]; p.tries > 0 {
			next = min(next, p.sentAt+a.retryAfter(p))
		}
	}
	return next
}
