package room_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into the golden scripts")

// start is the time zero of all scripts.
var start = time.UnixMilli(1_800_000_000_000)

// TestScripts plays testdata/*.txt. A line that is not indented is an input:
//
//	template FILE [LIMITS]   begins a session; limits in protobuf text form
//	ACTOR COMMAND            a Command in text form from pe_1, api, node:a or "-" (nobody)
//	+DURATION                time passes
//	state PEER | preview | snapshot | session | deadline
//	# comment
//
// The indented lines after it are what came of it: the result, and the events with who sees them where that is not
// everybody. "go test -rewrite" writes them.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs; go test -rewrite shows how:\n%s", name, firstDifference(got, string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d:\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return "one is longer"
}

// script is a session being played.
type script struct {
	t       testing.TB
	out     strings.Builder
	now     time.Time
	state   *room.State
	replica *room.Replica
	peers   []string
}

func play(t testing.TB, text string) string {
	s := &script{t: t}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "  ") {
			continue
		}
		fmt.Fprintln(&s.out, line)
		if line != "" && line[0] != '#' {
			s.input(line)
		}
	}
	return s.out.String()
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, "  "+format+"\n", args...) }

func (s *script) input(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	switch {
	case verb == "template":
		s.begin(rest)
	case verb[0] == '+':
		d, err := time.ParseDuration(verb[1:])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
		s.events(s.state.Tick(s.now))
	case verb == "state":
		s.shown(s.replica.StateFor(rest))
	case verb == "preview":
		s.shown(s.replica.StatePreview())
	case verb == "snapshot":
		s.shown(s.replica.Snapshot())
	case verb == "session":
		s.printf("%s", text(s.state.Session()))
	case verb == "deadline":
		if at, ok := s.state.Deadline(); ok {
			s.printf("in %v", at.Sub(s.now))
		} else {
			s.printf("none")
		}
	default:
		s.command(verb, rest)
	}
}

func (s *script) begin(rest string) {
	name, limits, _ := strings.Cut(rest, " ")
	t := template(s.t, name)
	var l pb.RoomLimits
	if err := prototext.Unmarshal([]byte(limits), &l); err != nil {
		s.t.Fatal(err)
	}
	if t.Limits == nil {
		t.Limits = &pb.RoomLimits{}
	}
	gproto.Merge(t.Limits, &l)
	s.now, s.peers = start, nil
	s.state = room.New(room.Config{Room: "demo", SessionID: "se_1", Template: t, Now: start, IDs: counting()})
	s.replica = room.NewReplica(s.state.Snapshot())
}

func template(t testing.TB, name string) *pb.Template {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var tmpl pb.Template
	if err := protojson.Unmarshal(data, &tmpl); err != nil {
		t.Fatal(err)
	}
	return &tmpl
}

// counting makes ids pe_1, pe_2, tr_1 …
func counting() func(string) string {
	n := map[string]int{}
	return func(prefix string) string {
		n[prefix]++
		return fmt.Sprint(prefix, n[prefix])
	}
}

func actor(name string) room.Actor {
	node, isNode := strings.CutPrefix(name, "node:")
	switch {
	case name == "api":
		return room.Actor{Management: true}
	case isNode:
		return room.Actor{Node: node}
	case name == "-":
		return room.Actor{}
	}
	return room.Actor{PeerID: name, Node: "a"}
}

func (s *script) command(who, body string) {
	var cmd pb.Command
	if err := prototext.Unmarshal([]byte(body), &cmd); err != nil {
		s.t.Fatalf("%s %s: %v", who, body, err)
	}
	res, evs := s.state.Apply(s.now, actor(who), &cmd)
	if p := res.GetJoin().GetPeer().GetId(); p != "" && !slices.Contains(s.peers, p) {
		s.peers = append(s.peers, p)
	}
	s.events(evs)
	if e := res.GetError(); e != nil {
		s.printf("%s: %s", e.GetCode(), e.GetMessage())
	} else {
		s.printf("%s", strings.TrimSpace("ok "+text(res)))
	}
}

func (s *script) events(evs []*pb.Event) {
	for _, ev := range evs {
		if err := s.replica.Apply(ev); err != nil {
			s.t.Fatal(err)
		}
		body := gproto.Clone(ev).(*pb.Event)
		body.Seq, body.TimeMs = 0, 0
		s.printf("#%d %s%s", ev.GetSeq(), text(body), s.seenBy(ev))
	}
}

func (s *script) seenBy(ev *pb.Event) string {
	var sees, misses []string
	for _, p := range s.peers {
		if s.replica.Visible(p, ev) {
			sees = append(sees, p)
		} else {
			misses = append(misses, p)
		}
	}
	switch {
	case len(misses) == 0:
		return ""
	case len(sees) == 0:
		return " → nobody"
	case s.replica.Audience(ev).All:
		return " → all but " + strings.Join(misses, " ")
	}
	return " → " + strings.Join(sees, " ")
}

func (s *script) shown(st *pb.RoomState) {
	st = gproto.Clone(st).(*pb.RoomState)
	st.Template = nil
	for _, p := range st.GetPeers() {
		s.printf("peer %s", text(p))
	}
	for _, m := range st.GetMessages() {
		s.printf("message %s", text(m))
	}
	st.Peers, st.Messages = nil, nil
	s.printf("%s", text(st))
}

// text writes a message on one line, always the same: fields by number, times relative to the start.
func text(m gproto.Message) string {
	return strings.TrimSuffix(strings.TrimPrefix(textOf(m.ProtoReflect()), "{"), "}")
}

func textOf(m protoreflect.Message) string {
	var parts []string
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		v := m.Get(f)
		switch {
		case f.IsMap():
			parts = append(parts, string(f.Name())+":"+textOfMap(f, v.Map()))
		case f.IsList():
			var items []string
			for j := range v.List().Len() {
				items = append(items, textOfValue(f, v.List().Get(j)))
			}
			parts = append(parts, string(f.Name())+":["+strings.Join(items, " ")+"]")
		default:
			parts = append(parts, string(f.Name())+":"+textOfValue(f, v))
		}
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func textOfMap(f protoreflect.FieldDescriptor, m protoreflect.Map) string {
	var items []string
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		s := textOfValue(f.MapValue(), v)
		if strings.HasSuffix(string(f.Name()), "_ms") {
			s = relative(v.Int())
		}
		items = append(items, k.String()+":"+s)
		return true
	})
	slices.Sort(items)
	return "{" + strings.Join(items, " ") + "}"
}

func textOfValue(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case f.Kind() == protoreflect.MessageKind:
		return textOf(v.Message())
	case f.Kind() == protoreflect.EnumKind:
		name := string(f.Enum().Values().ByNumber(v.Enum()).Name())
		return name[strings.LastIndex(name, "_")+1:]
	case f.Kind() == protoreflect.StringKind:
		return fmt.Sprintf("%q", v.String())
	case f.Kind() == protoreflect.Int64Kind && strings.HasSuffix(string(f.Name()), "_ms"):
		return relative(v.Int())
	}
	return v.String()
}

func relative(ms int64) string { return "+" + time.UnixMilli(ms).Sub(start).String() }
