package exchange

import (
	"testing"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func messages() []*amphiv1.RoomMessage {
	return []*amphiv1.RoomMessage{
		{Room: "r", Epoch: 3, Body: &amphiv1.RoomMessage_Attach{Attach: &amphiv1.Attach{HaveSeq: 5}}},
		{Room: "r", Epoch: 3, Body: &amphiv1.RoomMessage_Request{Request: &amphiv1.RoomRequest{Id: 1, PeerId: "pe_x"}}},
		{Room: "r", Epoch: 3, Body: &amphiv1.RoomMessage_Response{Response: &amphiv1.RoomResponse{Id: 1, Seq: 9}}},
		{Room: "r", Epoch: 3, Body: &amphiv1.RoomMessage_State{State: &amphiv1.RoomState{Seq: 9}}},
	}
}

func TestDirectionFollowsFromTheBody(t *testing.T) {
	t.Parallel()
	for i, want := range []bool{true, true, false, false} {
		if got := Upwards(messages()[i]); got != want {
			t.Errorf("message %d: %v", i, got)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{"junk": []byte("\xff\xff"), "no room": nil, "too long": make([]byte, MaxMessage+1)} {
		if _, err := Decode(b); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestInboxKeepsOrderAndBound(t *testing.T) {
	t.Parallel()
	b := NewInbox[int]()
	for i := range maxInbox {
		if !b.Put(i) {
			t.Fatalf("full after %d", i)
		}
	}
	if b.Put(-1) {
		t.Error("took more than its bound")
	}
	<-b.Ready()
	for i, v := range b.Take() {
		if i != v {
			t.Fatalf("%d at %d", v, i)
		}
	}
	if !b.Empty() || !b.Put(1) || b.Empty() {
		t.Error("the inbox is not as it was left")
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		b, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if _, err := Encode(m); err != nil {
			t.Fatal(err)
		}
	})
}
