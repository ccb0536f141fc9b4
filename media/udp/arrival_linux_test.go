package udp

import (
	"testing"
	"time"
)

// TestArrivals: a datagram's age is counted from when it came, not from when it is read. The
// kernel begins to stamp some time after it is asked to.
func TestArrivals(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		c := listen(t, Config{Addr: "127.0.0.1:0", Arrivals: on, Single: true})
		if c.NewPatientReader() != nil {
			t.Error("a patient reader of a single socket")
		}
		from, r := listen(t, Config{Addr: "127.0.0.1:0"}), c.NewReader()
		deadline := time.Now().Add(10 * time.Second)
		for good := false; !good; {
			if time.Now().After(deadline) {
				t.Fatal("ages are never told")
			}
			if _, err := from.WriteToAddrPort(make([]byte, 500), c.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			sent := time.Now()
			<-time.After(30 * time.Millisecond)
			batch, err := r.ReadBatch()
			if err != nil || len(batch) != 1 {
				t.Fatalf("%d datagrams, %v", len(batch), err)
			}
			age := batch[0].Age
			if age < 0 || age > time.Since(sent)+50*time.Millisecond || !on && age != 0 {
				t.Errorf("age %v, %v after sending", age, time.Since(sent))
			}
			good = !on || age > 25*time.Millisecond
		}
	}
}
