package outbox

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	codes "github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func chat(text string) *Frame {
	return NewFrame(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Event{Event: &amphiv1.Event{
		Body: &amphiv1.Event_Message{Message: &amphiv1.Message{Text: text}}}}})
}

func counts(n uint32) *Frame {
	return NewFrame(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Counts{Counts: &amphiv1.Counts{Total: n}}})
}

func interest(track string, layer int32) *Frame {
	return NewFrame(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Interest{
		Interest: &amphiv1.Interest{TrackId: track, MaxSpatial: layer}}})
}

// said tells what the queue holds in short words.
func said(t *testing.T, q *Queue) []string {
	t.Helper()
	all, _ := q.Take(nil)
	var out []string
	for _, b := range all {
		m := &amphiv1.ServerMessage{}
		if err := proto.Unmarshal(b, m); err != nil {
			t.Fatal(err)
		}
		switch v := m.GetBody().(type) {
		case *amphiv1.ServerMessage_Event:
			out = append(out, v.Event.GetMessage().GetText())
		case *amphiv1.ServerMessage_Counts:
			out = append(out, fmt.Sprint("counts ", v.Counts.GetTotal()))
		case *amphiv1.ServerMessage_Interest:
			out = append(out, fmt.Sprint(v.Interest.GetTrackId(), " ", v.Interest.GetMaxSpatial()))
		}
	}
	return out
}

func TestNewestReplacesOlderOfItsKind(t *testing.T) {
	t.Parallel()
	q := New(Binary)
	for _, f := range []*Frame{counts(1), chat("a"), interest("t1", 2), counts(2), interest("t2", 0), chat("b"), interest("t1", 1), counts(3)} {
		if !q.Push(f) {
			t.Fatal("refused")
		}
	}
	want := []string{"a", "t2 0", "b", "t1 1", "counts 3"}
	if d := cmp.Diff(want, said(t, q)); d != "" {
		t.Error(d)
	}
	q.Push(counts(4))
	if d := cmp.Diff([]string{"counts 4"}, said(t, q)); d != "" {
		t.Errorf("after the queue was taken: %s", d)
	}
}

func TestCoalescedMessagesNeverFillTheQueue(t *testing.T) {
	t.Parallel()
	q := New(Binary)
	for i := range uint32(100_000) {
		if !q.Push(counts(i)) {
			t.Fatalf("refused after %d", i)
		}
	}
	if q.Len() != 1 || len(q.items) > 64 {
		t.Errorf("%d live of %d kept", q.Len(), len(q.items))
	}
}

func TestOverflowEndsWithSlowClient(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"messages": "x", "bytes": strings.Repeat("x", 64<<10)} {
		q := New(JSON)
		pushed := 0
		for q.Push(chat(text)) {
			pushed++
		}
		if pushed > MaxMessages || pushed*len(text) > MaxBytes || pushed < 50 {
			t.Errorf("%s: %d were taken", name, pushed)
		}
		all, end := q.Take(nil)
		if len(all) != 0 || end == nil || end.Reason.Code != codes.SlowClient {
			t.Errorf("%s: left %d, end %v", name, len(all), end)
		}
		if q.Push(chat("late")) {
			t.Errorf("%s: took a message after its end", name)
		}
	}
}

func TestCloseDeliversWhatWaits(t *testing.T) {
	t.Parallel()
	q := New(Binary)
	q.Push(chat("last"))
	q.Close(End{})
	q.Close(End{Reason: codes.Errorf(codes.Internal, "too late")})
	<-q.Ready()
	all, end := q.Take(nil)
	if len(all) != 1 || end == nil || end.Reason != nil {
		t.Errorf("%d messages, end %+v", len(all), end)
	}
}

func TestFrameIsEncodedOncePerEncoding(t *testing.T) {
	t.Parallel()
	f := chat("hello")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { f.Bytes(JSON); f.Bytes(Binary) })
	}
	wg.Wait()
	a, b := f.Bytes(JSON), f.Bytes(JSON)
	if &a[0] != &b[0] {
		t.Error("encoded twice")
	}
	var fromJSON, fromBinary amphiv1.ServerMessage
	if err := protojson.Unmarshal(a, &fromJSON); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(f.Bytes(Binary), &fromBinary); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&fromJSON, &fromBinary) {
		t.Error("the encodings differ")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":1,"hello":{"token":"x"},"unknown":[1]}`))
	f.Add([]byte(`{"id":2,"command":{"join":{}}}`))
	bin, err := proto.Marshal(&amphiv1.ClientMessage{Id: 7, Body: &amphiv1.ClientMessage_Ping{Ping: &amphiv1.Ping{TimeMs: 5}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bin)
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range []Encoding{JSON, Binary} {
			m, err := e.Decode(b)
			if (m == nil) == (err == nil) {
				t.Fatalf("%v and %v", m, err)
			}
		}
	})
}

func BenchmarkPushTake(b *testing.B) {
	q := New(Binary)
	f := chat("hello")
	var batch [][]byte
	b.ReportAllocs()
	for b.Loop() {
		q.Push(f)
		batch, _ = q.Take(batch[:0])
	}
}
