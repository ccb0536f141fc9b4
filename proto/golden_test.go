package proto_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"google.golang.org/protobuf/encoding/protojson"
	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var rewrite = flag.Bool("rewrite", false, "write the golden messages anew")

// goldens makes one message of every kind that goes over the WebSocket ("client", "server"), between owner and replica
// ("room") and into the registry ("registry"), every field filled; the alternatives taken are its name.
func goldens() map[string]gproto.Message {
	all := map[string]gproto.Message{}
	for side, m := range map[string]gproto.Message{
		"client": &amphiv1.ClientMessage{}, "server": &amphiv1.ServerMessage{}, "room": &amphiv1.RoomMessage{}, "registry": &amphiv1.RegistryCommand{},
	} {
		alternatives(m.ProtoReflect().Type(), nil, func(path []protoreflect.FieldDescriptor, name string) {
			all[side+"-"+name] = filled(m.ProtoReflect().Type(), path, 0).Interface()
		})
	}
	return all
}

// alternatives calls f for every way to take the first oneof named "body" of a message, and the ones inside it.
func alternatives(t protoreflect.MessageType, path []protoreflect.FieldDescriptor, f func([]protoreflect.FieldDescriptor, string)) {
	body := t.Descriptor().Oneofs().ByName("body")
	if body == nil {
		var names []string
		for _, p := range path {
			names = append(names, strings.ReplaceAll(string(p.Name()), "_", ""))
		}
		f(path, strings.Join(names, "-"))
		return
	}
	for i := range body.Fields().Len() {
		fd := body.Fields().Get(i)
		taken := append(slices.Clone(path), fd)
		if fd.Kind() != protoreflect.MessageKind {
			f(taken, strings.ReplaceAll(string(fd.Name()), "_", ""))
			continue
		}
		alternatives(t.New().NewField(fd).Message().Type(), taken, f)
	}
}

// filled makes a message with every field set; of its oneofs the field that path names, else the first.
func filled(t protoreflect.MessageType, path []protoreflect.FieldDescriptor, depth int) protoreflect.Message {
	m := t.New()
	fields := t.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() {
			if len(path) > 0 && path[0].ContainingOneof() == one {
				if fd != path[0] {
					continue
				}
			} else if fd != one.Fields().Get(0) {
				continue
			}
		}
		var rest []protoreflect.FieldDescriptor
		if len(path) > 0 && fd == path[0] {
			rest = path[1:]
		}
		set(m, fd, rest, depth)
	}
	return m
}

func set(m protoreflect.Message, fd protoreflect.FieldDescriptor, path []protoreflect.FieldDescriptor, depth int) {
	switch {
	case fd.IsMap():
		value := protoreflect.ValueOfString("value")
		if k := fd.MapValue().Kind(); k != protoreflect.StringKind {
			value = scalar(fd.MapValue())
		}
		m.Mutable(fd).Map().Set(protoreflect.ValueOfString("key").MapKey(), value)
	case fd.IsList():
		list := m.Mutable(fd).List()
		for n := range 2 {
			if fd.Kind() == protoreflect.MessageKind {
				list.Append(protoreflect.ValueOfMessage(filled(list.NewElement().Message().Type(), nil, depth+1)))
			} else if fd.Kind() == protoreflect.StringKind {
				list.Append(protoreflect.ValueOfString(fmt.Sprintf("%s-%d", fd.Name(), n)))
			} else {
				list.Append(scalar(fd))
			}
		}
	case fd.Kind() == protoreflect.MessageKind:
		m.Set(fd, protoreflect.ValueOfMessage(filled(m.NewField(fd).Message().Type(), path, depth+1)))
	default:
		m.Set(fd, scalar(fd))
	}
}

// scalar picks a value that a lossy reader would get wrong: numbers over 2^53, letters outside ASCII.
func scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	n := int64(fd.Number())
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(fd.Enum().Values().Get(fd.Enum().Values().Len() - 1).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(int32(-n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(4_000_000_000 + uint32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1_800_000_000_000 + n)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1<<53 + uint64(n))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) + 0.5)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0, 0xff, byte(n)})
	}
	return protoreflect.ValueOfString(fmt.Sprintf("%s “ü🎉”", fd.Name()))
}

// canonical is protojson with sorted keys and fixed spacing.
func canonical(t *testing.T, m gproto.Message) []byte {
	t.Helper()
	data, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestGoldenMessages: testdata holds one file per kind of message, NAME.bin and NAME.json of the same content. Go and
// the web SDK's tests read them all; here they are what they would be if they were written now.
func TestGoldenMessages(t *testing.T) {
	t.Parallel()
	all := goldens()
	var files []string
	for name, m := range all {
		data, err := gproto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".bin", data, m, gproto.Unmarshal)
		golden(t, name+".json", canonical(t, m), m, protojson.Unmarshal)
		files = append(files, name+".bin", name+".json")
	}
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() && !slices.Contains(files, e.Name()) {
			t.Errorf("testdata/%s is of no message", e.Name())
		}
	}
}

func golden(t *testing.T, name string, want []byte, m gproto.Message, unmarshal func([]byte, gproto.Message) error) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test -rewrite writes it", err)
	}
	read := m.ProtoReflect().New().Interface()
	if err := unmarshal(got, read); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !gproto.Equal(read, m) {
		t.Errorf("%s reads as %v, want %v", name, read, m)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is written now; fields were changed, or added: go test -rewrite", name)
	}
}

// FuzzClientMessage: what decodes as a client's message encodes again to the same in both encodings, and nothing crashes.
func FuzzClientMessage(f *testing.F) {
	for name, m := range goldens() {
		if !strings.HasPrefix(name, "client-") {
			continue
		}
		bin, err := gproto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		text, err := protojson.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bin, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, text bool) {
		var m, again amphiv1.ClientMessage
		read := gproto.Unmarshal
		if text {
			read = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal
		}
		if read(data, &m) != nil {
			return
		}
		bin, err := gproto.Marshal(&m)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if err := gproto.Unmarshal(bin, &again); err != nil || !gproto.Equal(&m, &again) {
			// NaN never equals itself.
			if again2, err := gproto.Marshal(&again); err != nil || !bytes.Equal(bin, again2) {
				t.Fatalf("written and read again it differs: %v", err)
			}
		}
	})
}
