package turn

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// budget is a token bucket of bytes.
type budget struct {
	perSecond, most, left float64
	last                  time.Time
}

// burst is how much of a second's bytes may come at once: a keyframe comes as a burst.
const burst = 0.5

func newBudget(bitRate int, now time.Time) budget {
	bytes := float64(bitRate) / 8
	return budget{perSecond: bytes, most: bytes * burst, left: bytes * burst, last: now}
}

// spend tells whether n bytes may pass.
func (b *budget) spend(n int, now time.Time) bool {
	b.left = min(b.most, b.left+now.Sub(b.last).Seconds()*b.perSecond)
	b.last = now
	if b.left < float64(n) {
		return false
	}
	b.left -= float64(n)
	return true
}

// rateSlots is how many rates are kept; addresses that fall on the same one share it.
const rateSlots = 4096

// rates bounds requests by client address in constant memory: forged addresses can't fill it.
type rates struct {
	seed      maphash.Seed
	perSecond float64

	mu    sync.Mutex // guards slots
	slots [rateSlots]struct {
		left float64
		last time.Time
	}
}

func newRates(perSecond int) *rates {
	return &rates{seed: maphash.MakeSeed(), perSecond: float64(perSecond)}
}

// allow counts a request of a client.
func (r *rates) allow(from netip.Addr, now time.Time) bool {
	if from.Is6() {
		// One client has a whole network of them.
		if network, err := from.Prefix(64); err == nil {
			from = network.Addr()
		}
	}
	at := maphash.Comparable(r.seed, from) % rateSlots
	most := 5 * r.perSecond
	r.mu.Lock()
	defer r.mu.Unlock()
	slot := &r.slots[at]
	if slot.last.IsZero() {
		slot.left = most
	} else {
		slot.left = min(most, slot.left+now.Sub(slot.last).Seconds()*r.perSecond)
	}
	slot.last = now
	if slot.left < 1 {
		return false
	}
	slot.left--
	return true
}
