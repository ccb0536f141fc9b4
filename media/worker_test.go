package media

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/udp"
)

// TestSwitchLeavesTheOldList: a DownTrack that has switched gets no packet of the old
// encoding any more.
func TestSwitchLeavesTheOldList(t *testing.T) {
	f := newPath(t, 1)
	f.frame(t)
	w := f.e.workers[0]
	other := f.enc.track.encoding(1, "h", nobody{})
	for o := range w.endpoints {
		dt := o.tracks[0]
		dt.share.Target = layer.Layer{Spatial: 1, Temporal: layer.Top}
		dt.follow(w.now)
		p := f.e.pool.Get()
		p.ArrivalNS = f.e.now()
		dt.switchTo(other, p)
		p.Release()
	}
	w.settle()
	if old, now := len(f.enc.subs[0].list), len(other.subs[0].list); old != 0 || now != 1 {
		t.Fatalf("%d follow the old encoding and %d the new one", old, now)
	}
}

// arrivals is a media socket, in the time of a bubble, whose packets have been read by take.
type arrivals struct {
	f       *pathFixture
	began   time.Time
	list    []arrival
	next    int
	waiting []time.Time // when what is in the worker's queue came
	longest time.Duration
}

type arrival struct {
	at   time.Duration
	take func()
}

func (a *arrivals) left() time.Duration {
	return time.Until(a.began.Add(a.list[a.next].at))
}

func (a *arrivals) ReadBatch() ([]udp.Datagram, error) {
	w := a.f.e.workers[0]
	w.mu.Lock()
	left := len(w.queue)
	w.mu.Unlock()
	if left == 0 {
		for _, came := range a.waiting {
			a.longest = max(a.longest, time.Since(came))
		}
		a.waiting = a.waiting[:0]
	}
	if a.next == len(a.list) {
		return nil, net.ErrClosed
	}
	<-time.After(a.left())
	for ; a.next < len(a.list) && a.left() <= 0; a.next++ {
		a.list[a.next].take()
		a.waiting = append(a.waiting, time.Now())
	}
	return nil, nil
}

func (a *arrivals) Await(d time.Duration) bool {
	if d <= 0 {
		return false
	}
	if a.next == len(a.list) {
		<-time.After(d)
		return false
	}
	<-time.After(min(d, max(a.left(), 0)))
	return a.left() <= 0
}

// TestNothingIsHeldForLong: whatever the pattern in which packets come, none waits for more
// than 0.5 ms for others to leave with; and a frame whose packets come close behind each
// other leaves as one message per subscriber.
func TestNothingIsHeldForLong(t *testing.T) {
	steady := func(gap time.Duration) func(int, int) time.Duration {
		return func(int, int) time.Duration { return gap }
	}
	for _, c := range []struct {
		name string
		gap  func(frame, packet int) time.Duration
		most float64 // messages per frame of 7 packets and subscriber
	}{
		{"burst", steady(20 * time.Microsecond), 1.5},
		{"paced", steady(time.Millisecond), 7.1},
		{"just close enough", steady(110 * time.Microsecond), 3},
		{"just too far apart", steady(130 * time.Microsecond), 7.1},
		{"stops in the middle", func(frame, packet int) time.Duration {
			if frame%4 == 3 && packet == 3 {
				return 10 * time.Millisecond
			}
			return 20 * time.Microsecond
		}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			const subscribers, frames = 10, 100
			f := newPath(t, subscribers)
			before := f.e.Stats().Socket
			synctest.Test(t, func(t *testing.T) {
				f.e.start = time.Now()
				a := &arrivals{f: f, began: time.Now()}
				at := time.Duration(0)
				for frame := range frames {
					for i := range loadPackets {
						a.list = append(a.list, arrival{at, func() {
							if i == 0 {
								f.advance()
							}
							f.writeOne(f.raw[i])
						}})
						at += c.gap(frame, i)
					}
					at += 33 * time.Millisecond
				}
				f.e.readSocket(a)
				if len(a.waiting) > 0 || a.longest > 500*time.Microsecond {
					t.Errorf("%d packets did not leave, the others after %v at most", len(a.waiting), a.longest)
				}
			})
			after := f.e.Stats().Socket
			if n := after.SendDatagrams - before.SendDatagrams; n != subscribers*frames*loadPackets {
				t.Errorf("%d packets left", n)
			}
			if n := float64(after.SendMessages-before.SendMessages) / subscribers / frames; n > c.most {
				t.Errorf("%.2f messages per frame", n)
			}
		})
	}
	t.Run("a microphone that is due and does not come", func(t *testing.T) {
		f := newPath(t, 1)
		u, err := f.e.Router("room").addTrack("mic", codec.Audio, "mic", "origin")
		if err != nil {
			t.Fatal(err)
		}
		enc := u.encoding(0, "", nobody{})
		synctest.Test(t, func(t *testing.T) {
			f.e.start = time.Now()
			a := &arrivals{f: f, began: time.Now()}
			for i := range 50 {
				a.list = append(a.list, arrival{time.Duration(i) * 20 * time.Millisecond, func() {
					p := f.e.pool.Get()
					f.e.workers[0].push(enc, p, true)
					p.Release()
				}})
			}
			f.e.readSocket(a)
			if len(a.waiting) > 0 || a.longest > 500*time.Microsecond || a.longest < holdMost {
				t.Errorf("%d packets did not leave, the others after %v at most", len(a.waiting), a.longest)
			}
		})
	})
}
