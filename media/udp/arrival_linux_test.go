package udp

import (
	"testing"
	"time"
)

// TestArrivals: a datagram's age is counted from when it came, not from when it is read.
func TestArrivals(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		c := listen(t, Config{Addr: "127.0.0.1:0", Arrivals: on, Single: true})
		if c.NewPatientReader() != nil {
			t.Error("a patient reader of a single socket")
		}
		from := listen(t, Config{Addr: "127.0.0.1:0"})
		s := from.NewSender()
		d := s.NewDest(c.LocalAddr())
		for range 4 {
			d.Write(make([]byte, 500))
		}
		s.Flush()
		sent := time.Now()
		<-time.After(60 * time.Millisecond)
		r := c.NewReader()
		for n := 0; n < 4; {
			batch, err := r.ReadBatch()
			if err != nil {
				t.Fatal(err)
			}
			n += len(batch)
			for _, b := range batch {
				if most := time.Since(sent) + 50*time.Millisecond; on && (b.Age < 55*time.Millisecond || b.Age > min(most, oldest)) {
					t.Errorf("age %v, %v after sending", b.Age, time.Since(sent))
				}
				if !on && b.Age != 0 {
					t.Errorf("age %v without being asked for", b.Age)
				}
			}
		}
	}
}
