package ice

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

var (
	ours   = Credentials{Ufrag: "ourufrag", Pwd: "our-password-of-24-bytes"}
	theirs = Credentials{Ufrag: "thei", Pwd: "their-password-of-24-byt"}
)

// bench drives an agent; its client's messages are made and read by pion/stun.
type bench struct {
	t   *testing.T
	a   *Agent
	now time.Duration
	out Output
}

func newBench(t *testing.T) *bench {
	rng := rand.New(rand.NewPCG(1, 2))
	b := &bench{t: t, now: sec}
	b.a = New(Config{
		ID: 7, Local: ours, Remote: theirs,
		DisconnectedAfter: 5 * sec, FailedAfter: 15 * sec, ConnectWithin: 20 * sec, Random: rng.Uint64,
	}, b.now)
	return b
}

func at(port int) Path {
	return Path{Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(port))}
}

func (b *bench) handle(raw []byte, from Path) Drop {
	b.t.Helper()
	b.out.Reset()
	var m Message
	if drop := m.Parse(raw); drop != DropNone {
		return drop
	}
	return b.a.Handle(&m, from, b.now, &b.out)
}

// tick lets time pass, in steps of 20 ms, and returns what was sent.
func (b *bench) pass(d time.Duration) (sent []Send) {
	for end := b.now + d; b.now < end; {
		b.now += 20 * ms
		b.out.Reset()
		if b.a.Next(b.now) <= b.now {
			b.a.Tick(b.now, &b.out)
		}
		for _, m := range b.out.Messages {
			sent = append(sent, Send{To: m.To, Data: append([]byte(nil), m.Data...)})
		}
	}
	return sent
}

type requestOptions struct {
	local, remote Credentials
	nominate      bool
	more          []stun.Setter
}

// check makes a request of the client.
func check(t testing.TB, o requestOptions) []byte {
	t.Helper()
	if o.local == (Credentials{}) {
		o.local, o.remote = ours, theirs
	}
	set := []stun.Setter{
		stun.TransactionID, stun.BindingRequest, stun.NewUsername(o.local.Ufrag + ":" + o.remote.Ufrag),
		stun.RawAttribute{Type: stun.AttrICEControlling, Length: 8, Value: make([]byte, 8)},
		stun.RawAttribute{Type: stun.AttrPriority, Length: 4, Value: []byte{1, 2, 3, 4}},
	}
	if o.nominate {
		set = append(set, stun.RawAttribute{Type: stun.AttrUseCandidate})
	}
	set = append(append(set, o.more...), stun.NewShortTermIntegrity(o.local.Pwd), stun.Fingerprint)
	m, err := stun.Build(set...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// decode reads a message of ours with pion/stun.
func decode(t testing.TB, raw []byte, password string) *stun.Message {
	t.Helper()
	m := &stun.Message{Raw: append([]byte(nil), raw...)}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	if err := stun.Fingerprint.Check(m); err != nil {
		t.Fatal(err)
	}
	if err := stun.NewShortTermIntegrity(password).Check(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// answer is the client's to a check of ours.
func answer(t testing.TB, request []byte, remote Credentials) []byte {
	t.Helper()
	q := decode(t, request, remote.Pwd)
	m, err := stun.Build(q, stun.BindingSuccess, &stun.XORMappedAddress{IP: []byte{127, 0, 0, 1}, Port: 1},
		stun.NewShortTermIntegrity(remote.Pwd), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// prove makes a path valid and, if wanted, selected.
func (b *bench) prove(from Path, o requestOptions) {
	b.t.Helper()
	if drop := b.handle(check(b.t, o), from); drop != DropNone {
		b.t.Fatalf("dropped: %v", drop)
	}
	remote := theirs
	if o.remote != (Credentials{}) {
		remote = o.remote
	}
	for _, m := range append([]Send(nil), b.out.Messages...) {
		if stunKind(m.Data) == bindingRequest {
			if drop := b.handle(answer(b.t, m.Data, remote), m.To); drop != DropNone {
				b.t.Fatalf("dropped: %v", drop)
			}
		}
	}
}

func stunKind(b []byte) int { return int(b[0])<<8 | int(b[1]) }

func (b *bench) selected(want Path) {
	b.t.Helper()
	if got, ok := b.a.Selected(); !ok || got != want {
		b.t.Fatalf("selected %v %v, want %v", got, ok, want)
	}
}

func TestCheckIsAnsweredAndTriggersOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	raw := check(t, requestOptions{})
	if drop := b.handle(raw, at(1)); drop != DropNone {
		t.Fatal(drop)
	}
	if len(b.out.Messages) != 2 || len(b.out.New) != 1 {
		t.Fatalf("%d messages, %d new", len(b.out.Messages), len(b.out.New))
	}
	success := decode(t, b.out.Messages[0].Data, ours.Pwd)
	if success.Type != stun.BindingSuccess || success.TransactionID != [12]byte(raw[8:20]) {
		t.Fatalf("answer %v", success)
	}
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(success); err != nil || mapped.String() != "192.0.2.1:1" {
		t.Fatalf("mapped address %v, %v", mapped, err)
	}
	ask := decode(t, b.out.Messages[1].Data, theirs.Pwd)
	name, err := ask.Get(stun.AttrUsername)
	if err != nil || string(name) != "thei:ourufrag" || ask.Type != stun.BindingRequest || !ask.Contains(stun.AttrICEControlled) {
		t.Fatalf("check %v, user name %q", ask, name)
	}
	if _, ok := b.a.Usable(); ok {
		t.Fatal("usable without proof")
	}
	if drop := b.handle(answer(t, b.out.Messages[1].Data, theirs), at(1)); drop != DropNone {
		t.Fatal(drop)
	}
	if p, ok := b.a.Usable(); !ok || p != at(1) || len(b.out.Valid) != 1 {
		t.Fatal("not usable with proof")
	}
	if _, ok := b.a.Selected(); ok || b.a.State() != Connecting {
		t.Fatal("selected without nomination")
	}
	b.handle(check(t, requestOptions{nominate: true}), at(1))
	b.selected(at(1))
	if b.a.State() != Connected || len(b.out.Messages) != 1 {
		t.Fatalf("state %v, %d messages", b.a.State(), len(b.out.Messages))
	}
}

func TestMappedAddressOfIPv6(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	from := Path{Addr: netip.MustParseAddrPort("[2001:db8::7]:4321")}
	b.handle(check(t, requestOptions{}), from)
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(decode(t, b.out.Messages[0].Data, ours.Pwd)); err != nil || mapped.String() != "[2001:db8::7]:4321" {
		t.Fatalf("mapped address %v, %v", mapped, err)
	}
}

func TestNominationWaitsForProof(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.handle(check(t, requestOptions{nominate: true}), at(1))
	ask := b.out.Messages[1]
	if _, ok := b.a.Selected(); ok {
		t.Fatal("selected an address that may be forged")
	}
	// The answer has to come from there.
	if drop := b.handle(answer(t, ask.Data, theirs), at(2)); drop != DropUnexpected {
		t.Fatalf("an answer from elsewhere: %v", drop)
	}
	b.handle(answer(t, ask.Data, theirs), at(1))
	b.selected(at(1))
}

func TestUnauthenticMessagesChangeNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	forged := ours
	forged.Pwd = "somebody else's password"
	noIntegrity, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername("ourufrag:thei"), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	foreign := ours
	foreign.Ufrag = "nobodys"
	flipped := check(t, requestOptions{nominate: true})
	flipped[22] ^= 1
	for name, c := range map[string]struct {
		raw  []byte
		want Drop
	}{
		"wrong password": {check(t, requestOptions{local: forged, remote: theirs, nominate: true}), DropUnauthentic},
		"no integrity":   {noIntegrity.Raw, DropUnauthentic},
		"unknown ufrag":  {check(t, requestOptions{local: foreign, remote: theirs}), DropUnknownUfrag},
		"fingerprint":    {flipped, DropMalformed},
		"short":          {check(t, requestOptions{})[:24], DropMalformed},
	} {
		if drop := b.handle(c.raw, at(2)); drop != c.want {
			t.Errorf("%s: %v, want %v", name, drop, c.want)
		}
		if len(b.out.Messages)+len(b.out.New)+len(b.out.Valid) != 0 {
			t.Errorf("%s: something is done", name)
		}
		b.selected(at(1))
	}
}

func TestRoleConflictAndUnknownAttributes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, c := range []struct {
		more stun.Setter
		want stun.ErrorCode
	}{
		{stun.RawAttribute{Type: stun.AttrICEControlled, Length: 8, Value: make([]byte, 8)}, stun.CodeRoleConflict},
		{stun.RawAttribute{Type: 0x7777, Length: 3, Value: []byte("abc")}, stun.CodeUnknownAttribute},
	} {
		b.handle(check(t, requestOptions{nominate: true, more: []stun.Setter{c.more}}), at(1))
		if len(b.out.Messages) != 1 || len(b.out.New) != 0 {
			t.Fatalf("%d messages", len(b.out.Messages))
		}
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(decode(t, b.out.Messages[0].Data, ours.Pwd)); err != nil || code.Code != c.want {
			t.Fatalf("%v, %v, want %v", code, err, c.want)
		}
	}
}

func TestLostChecksAreSentAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.handle(check(t, requestOptions{nominate: true}), at(1))
	sent := b.pass(sec)
	if len(sent) < 2 || len(sent) > 5 {
		t.Fatalf("%d checks in a second", len(sent))
	}
	b.handle(answer(t, sent[len(sent)-1].Data, theirs), at(1))
	b.selected(at(1))
	if more := b.pass(sec); len(more) != 0 {
		t.Fatalf("%d messages after the answer", len(more))
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	sent := b.pass(4900 * ms)
	if b.a.State() != Connected || len(sent) < 3 {
		t.Fatalf("state %v, %d checks", b.a.State(), len(sent))
	}
	b.pass(200 * ms)
	if b.a.State() != Disconnected {
		t.Fatalf("state %v", b.a.State())
	}
	b.handle(check(t, requestOptions{}), at(1))
	if b.a.State() != Connected {
		t.Fatalf("state %v after a sign of life", b.a.State())
	}
	b.pass(20100 * ms)
	if b.a.State() != Failed || b.a.Next(b.now) != forever {
		t.Fatalf("state %v", b.a.State())
	}
	if b.handle(check(t, requestOptions{}), at(1)); len(b.out.Messages) != 0 {
		t.Fatal("a failed agent answers")
	}
}

func TestNeverConnected(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.pass(19900 * ms)
	if b.a.State() != Connecting {
		t.Fatalf("state %v", b.a.State())
	}
	b.pass(200 * ms)
	if b.a.State() != Failed {
		t.Fatalf("state %v", b.a.State())
	}
}

// TestConsent: the client's own checks are no consent.
func TestConsent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	asked := 0
	for range 29 {
		asked += len(b.pass(sec))
		b.handle(check(t, requestOptions{}), at(1))
	}
	if _, ok := b.a.Selected(); !ok || asked < 5 {
		t.Fatalf("asked %d times", asked)
	}
	b.pass(2 * sec)
	if _, ok := b.a.Selected(); ok {
		t.Fatal("media is still sent without consent")
	}
}

func TestQuietConnectionCostsLittle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	asked := 0
	for i := range 500 { // a browser's checks come every 2.5 s
		for _, m := range b.pass(100 * ms) {
			asked++
			b.handle(answer(t, m.Data, theirs), m.To)
		}
		if i%25 == 0 {
			b.handle(check(t, requestOptions{}), at(1))
		}
	}
	if asked > 15 {
		t.Fatalf("%d checks of ours in 50 s", asked)
	}
}

// TestAddressChange: another address is nominated, without a restart.
func TestAddressChange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	b.prove(at(2), requestOptions{nominate: true})
	b.selected(at(2))
}

// TestNominatesAll: of a client that nominates all that it checks UDP is meant, whatever came last. Later it is
// taken at its word.
func TestNominatesAll(t *testing.T) {
	t.Parallel()
	tcp := Path{Addr: at(9).Addr, Conn: 3}
	for name, order := range map[string][]Path{"TCP last": {at(1), tcp}, "TCP first": {tcp, at(1)}} {
		b := newBench(t)
		for _, p := range order {
			b.prove(p, requestOptions{nominate: true})
			b.now += 50 * ms
		}
		if got, _ := b.a.Selected(); got != at(1) {
			t.Errorf("%s: selected %v", name, got)
		}
		b.now += settling
		b.handle(check(t, requestOptions{nominate: true}), tcp)
		b.selected(tcp)
	}
}

// TestRebinding: a NAT gives the client another address, and nobody nominates it.
func TestRebinding(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	b.pass(1500 * ms)
	b.prove(at(2), requestOptions{})
	b.selected(at(1))
	b.handle(check(t, requestOptions{}), at(2))
	asked := false
	for _, m := range b.out.Messages {
		asked = asked || m.To == at(1)
	}
	if !asked {
		t.Fatal("the silent pair is not asked")
	}
	b.pass(1500 * ms)
	b.selected(at(2))
}

// TestBackupPairDoesNotTakeOver: the selected pair is alive, only another is checked too.
func TestBackupPairDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	b.prove(at(2), requestOptions{})
	for range 20 {
		for _, m := range b.pass(700 * ms) {
			b.handle(answer(t, m.Data, theirs), m.To)
		}
		b.handle(check(t, requestOptions{}), at(2))
		for _, m := range append([]Send(nil), b.out.Messages...) {
			if stunKind(m.Data) == bindingRequest {
				b.handle(answer(t, m.Data, theirs), m.To)
			}
		}
	}
	b.selected(at(1))
}

func TestRestart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	newOurs, newTheirs := Credentials{"newufrag", "new-password-of-24-bytes"}, Credentials{"newt", "their-new-password-24-by"}
	b.a.Restart(newOurs, newTheirs, b.now)
	b.selected(at(1))
	if drop := b.handle(check(t, requestOptions{}), at(1)); drop != DropNone {
		t.Fatalf("the old credentials are refused meanwhile: %v", drop)
	}
	fresh := requestOptions{local: newOurs, remote: newTheirs}
	b.prove(at(2), fresh)
	b.selected(at(1))
	fresh.nominate = true
	b.handle(check(t, fresh), at(2))
	b.selected(at(2))
	if len(b.out.Gone) != 1 || b.out.Gone[0] != at(1) {
		t.Fatalf("gone: %v", b.out.Gone)
	}
	if drop := b.handle(check(t, requestOptions{nominate: true}), at(1)); drop != DropUnknownUfrag {
		t.Fatalf("the old credentials after the restart: %v", drop)
	}
}

// TestRestartAsksTheSelectedPair: a client that restarts may have lost its path, and ours to it.
func TestRestartAsksTheSelectedPair(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	newOurs, newTheirs := Credentials{"newufrag", "new-password-of-24-bytes"}, Credentials{"newt", "their-new-password-24-by"}
	b.a.Restart(newOurs, newTheirs, b.now)
	asked := false
	for _, m := range b.pass(10 * ms) {
		asked = asked || m.To == at(1)
	}
	if !asked {
		t.Fatal("the selected pair is not asked at a restart")
	}
	b.prove(at(2), requestOptions{local: newOurs, remote: newTheirs})
	b.pass(1500 * ms)
	b.selected(at(2))
}

func TestLostConnection(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	tcp := Path{Addr: at(9).Addr, Conn: 3}
	b.prove(tcp, requestOptions{nominate: true})
	b.selected(tcp)
	b.a.Lost(tcp)
	if _, ok := b.a.Selected(); ok {
		t.Fatal("still selected")
	}
	b.prove(at(1), requestOptions{nominate: true})
	b.selected(at(1))
}

func TestPairsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	for i := range 100 {
		b.now += ms
		b.handle(check(t, requestOptions{}), at(100+i))
	}
	n := 0
	b.a.Paths(func(Path) { n++ })
	if n != maxPairs {
		t.Fatalf("%d pairs", n)
	}
	b.selected(at(1))
}

// TestRandomScripts: whatever comes in whatever order, only what was proven is selected.
func TestRandomScripts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			b := newBench(t)
			proven, asked := map[Path]bool{}, []Send{}
			for range 300 {
				from := at(1 + rng.IntN(5))
				switch rng.IntN(6) {
				case 0, 1:
					b.handle(check(t, requestOptions{nominate: rng.IntN(2) == 0}), from)
				case 2:
					asked = append(asked, b.pass(time.Duration(rng.IntN(1500))*ms)...)
					b.out.Reset()
				case 3: // an answer, perhaps from the wrong address
					if len(asked) == 0 {
						continue
					}
					m := asked[rng.IntN(len(asked))]
					if rng.IntN(3) > 0 {
						from = m.To
					}
					if b.handle(answer(t, m.Data, theirs), from) == DropNone {
						proven[from] = true
					}
				case 4:
					bad := ours
					bad.Pwd = "guessed-password-of-24-b"
					b.handle(check(t, requestOptions{local: bad, remote: theirs, nominate: true}), at(66))
				case 5:
					b.a.Lost(from)
					b.out.Reset()
				}
				for _, m := range b.out.Messages {
					if stunKind(m.Data) == bindingRequest {
						asked = append(asked, Send{To: m.To, Data: append([]byte(nil), m.Data...)})
					}
				}
				for _, p := range b.out.Valid {
					if !proven[p] {
						t.Fatalf("%v is valid without proof", p)
					}
				}
				if p, ok := b.a.Selected(); ok && !proven[p] {
					t.Fatalf("%v is selected without proof", p)
				}
			}
		})
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	b := newBench(t)
	b.prove(at(1), requestOptions{nominate: true})
	raw := check(t, requestOptions{})
	var m Message
	if n := testing.AllocsPerRun(1000, func() {
		b.out.Reset()
		if m.Parse(raw) != DropNone || b.a.Handle(&m, at(1), b.now, &b.out) != DropNone || len(b.out.Messages) != 1 {
			t.Fatal("not answered")
		}
		b.a.Tick(b.now, &b.out)
	}); n != 0 {
		t.Fatalf("%v allocations per check", n)
	}
}

func BenchmarkCheck(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	a := New(Config{Local: ours, Remote: theirs, DisconnectedAfter: 5 * sec, Random: rng.Uint64}, sec)
	raw := check(b, requestOptions{})
	var out Output
	var m Message
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		m.Parse(raw)
		a.Handle(&m, at(1), sec, &out)
	}
}
