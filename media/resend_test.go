package media

import (
	"testing"
	"time"
)

func TestResendMemory(t *testing.T) {
	t.Parallel()
	ms := int64(time.Millisecond)
	var m resendMemory
	now := 7000 * ms
	if n, _ := m.times(9, now); n != 0 || m.entries != nil {
		t.Fatalf("knows a packet before the first: %d times", n)
	}
	m.note(9, now)
	m.note(9, now+20*ms)
	if n, ago := m.times(9, now+50*ms); n != 2 || ago != 30 {
		t.Fatalf("sent %d times, the last %d ms ago; want 2 times, 30 ms", n, ago)
	}
	if n, _ := m.times(9+512, now+50*ms); n != 0 {
		t.Fatalf("takes one packet for another: %d times", n)
	}
	m.note(9+512, now+60*ms) // takes the place
	if n, _ := m.times(9, now+61*ms); n != 0 {
		t.Fatalf("remembers %d times what another packet took the place of", n)
	}
	if n, _ := m.times(9+512, now+61*ms+forgetResend*ms); n != 0 {
		t.Fatal("takes the number of a later round for the packet sent long ago")
	}
}

func TestResendBudget(t *testing.T) {
	t.Parallel()
	var b resendBudget
	if b.spend(1, 0) {
		t.Fatal("something to spend before anything was sent")
	}
	b.earn(1000)
	spent := 0
	for b.spend(1000, 0) {
		spent += 1000
	}
	if spent < resendBurst-1000 || spent > resendBurst {
		t.Fatalf("spent %d of %d", spent, resendBurst)
	}
	for range 10 {
		b.earn(1000)
	}
	if !b.spend(5000, 0) || b.spend(5000, 0) {
		t.Fatal("not half of what was sent first")
	}
	// Repeated requests leave most of the budget to first ones.
	b = resendBudget{}
	b.earn(0)
	for b.spend(1000, 4) {
	}
	if b.bytes < resendBurst*3/4 || !b.spend(1000, 0) {
		t.Fatalf("repeats left %d of %d", b.bytes, resendBurst)
	}
}
