package ice

import (
	"testing"

	"github.com/pion/stun/v4"
)

// FuzzMessage: no input harms the agent, what it takes for well-formed is so for
// pion/stun too, and nothing but what carries the password has an effect.
func FuzzMessage(f *testing.F) {
	f.Add(check(f, requestOptions{}), false)
	f.Add(check(f, requestOptions{nominate: true}), true)
	f.Add(check(f, requestOptions{})[:40], true)
	f.Add([]byte("\x00\x01\x00\x08\x21\x12\xa4\x42abcdefghijkl\x00\x06\x00\x04a:bc"), false)
	f.Fuzz(func(t *testing.T, raw []byte, sign bool) {
		if sign { // as a client with the password would
			m := &stun.Message{Raw: append([]byte(nil), raw...)}
			if m.Decode() == nil && len(raw) < MaxMessage/2 {
				if stun.NewShortTermIntegrity(ours.Pwd).AddTo(m) == nil && stun.Fingerprint.AddTo(m) == nil {
					raw = m.Raw
				}
			}
		}
		b := newBench(t)
		var m Message
		if m.Parse(raw) != DropNone {
			return
		}
		reference := &stun.Message{Raw: append([]byte(nil), raw...)}
		if err := reference.Decode(); err != nil {
			t.Fatalf("pion/stun refuses %x: %v", raw, err)
		}
		drop := b.a.Handle(&m, at(1), b.now, &b.out)
		authentic := stun.NewShortTermIntegrity(ours.Pwd).Check(reference) == nil
		if !authentic && len(b.out.Messages)+len(b.out.New) > 0 {
			t.Fatalf("%x had an effect", raw)
		}
		for _, s := range b.out.Messages {
			answer := &stun.Message{Raw: s.Data}
			if err := answer.Decode(); err != nil {
				t.Fatalf("our message is malformed: %v", err)
			}
		}
		if _, ok := b.a.Selected(); ok {
			t.Fatal("selected by one message")
		}
		_ = drop.String()
	})
}
