package proto_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// documented is a row of PROTOCOL.md's table of codes, taken apart.
type documented struct {
	http, close int
	retry       bool
}

// readCodes reads the table of section 7. A row may hold several codes; statuses and close codes go by position, a
// single one holds for all, and "shutdown 1001" gives one code a value of its own. The retry column is empty, "yes",
// or the words that one of the codes ends with.
func readCodes(t *testing.T) map[proto.Code]documented {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "## 7. Codes")
	if !ok {
		t.Fatal("PROTOCOL.md has no section 7")
	}
	names := regexp.MustCompile("`([a-z_]+)`")
	codes := map[proto.Code]documented{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || !strings.Contains(cells[1], "`") {
			continue
		}
		var row []string
		for _, m := range names.FindAllStringSubmatch(cells[1], -1) {
			row = append(row, m[1])
		}
		for i, name := range row {
			retry := strings.TrimSpace(cells[4])
			codes[proto.Code(name)] = documented{
				http:  nth(t, cells[2], " / ", i, name),
				close: nth(t, cells[3], ", ", i, name),
				retry: retry == "yes" || retry != "" && strings.HasSuffix(name, retry),
			}
		}
	}
	return codes
}

func nth(t *testing.T, cell, separator string, i int, name string) int {
	t.Helper()
	values := strings.Split(strings.TrimSpace(cell), separator)
	for _, v := range values {
		if own, ok := strings.CutPrefix(v, name+" "); ok {
			values, i = []string{own}, 0
			break
		}
	}
	n, err := strconv.Atoi(values[min(i, len(values)-1)])
	if err != nil {
		// The last value is another code's own: the first one holds.
		if n, err = strconv.Atoi(values[0]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return n
}

func TestCodesAreDocumented(t *testing.T) {
	t.Parallel()
	table := readCodes(t)
	for _, c := range proto.Codes() {
		want, ok := table[c]
		if !ok {
			t.Errorf("%s is not in PROTOCOL.md", c)
			continue
		}
		got := documented{http: c.HTTPStatus(), close: c.CloseCode(), retry: c.Retryable()}
		if got != want {
			t.Errorf("%s is %+v, PROTOCOL.md says %+v", c, got, want)
		}
		delete(table, c)
	}
	for c := range table {
		t.Errorf("PROTOCOL.md has %s, codes.go has not", c)
	}
}

func TestUnknownCode(t *testing.T) {
	t.Parallel()
	c := proto.Code("from the future")
	if c.Retryable() || c.HTTPStatus() != 500 || c.CloseCode() != proto.CloseTryAgainLater {
		t.Errorf("%v %d %d", c.Retryable(), c.HTTPStatus(), c.CloseCode())
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	e := proto.Errorf(proto.RoleFull, "the role has its %d peers", 3)
	wrapped := fmt.Errorf("joining: %w", e)
	if proto.CodeOf(wrapped) != proto.RoleFull || proto.CodeOf(nil) != "" || proto.CodeOf(errors.New("secret")) != proto.Internal {
		t.Error("CodeOf is wrong")
	}
	w := proto.Wire(wrapped)
	if w.GetCode() != "role_full" || !w.GetRetryable() || w.GetMessage() != "the role has its 3 peers" {
		t.Errorf("wire: %v", w)
	}
	if w := proto.Wire(errors.New("secret")); w.GetCode() != "internal" || strings.Contains(w.GetMessage(), "secret") {
		t.Errorf("an inner error reaches clients: %v", w)
	}
	if back := proto.FromWire(w); proto.CodeOf(back) != proto.RoleFull || proto.FromWire(nil) != nil {
		t.Errorf("back: %v", back)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	shape := regexp.MustCompile(`^pe_[a-z2-7]{16}$`)
	for range 1000 {
		id := proto.NewID(proto.PeerPrefix)
		if !shape.MatchString(id) || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

func TestValidRoomName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"demo": true, "A.b-c_9": true, strings.Repeat("a", 64): true,
		"": false, strings.Repeat("a", 65): false, "a b": false, "a/b": false, "ä": false, "a\x00": false,
	} {
		if proto.ValidRoomName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestLevel(t *testing.T) {
	t.Parallel()
	hls := &amphiv1.SubscribeParams{Delivery: amphiv1.Delivery_DELIVERY_HLS}
	for _, c := range []struct {
		role *amphiv1.Role
		want uint32
	}{
		{nil, 2},
		{&amphiv1.Role{Level: 1}, 2},
		{&amphiv1.Role{Subscribe: hls}, 3},
		{&amphiv1.Role{Subscribe: hls, Publish: &amphiv1.PublishParams{Screen: true}}, 1},
		{&amphiv1.Role{Publish: &amphiv1.PublishParams{}}, 2},
	} {
		if got := proto.Level(c.role); got != c.want {
			t.Errorf("%v: level %d, want %d", c.role, got, c.want)
		}
	}
}

// TestGeneratedGoIsCurrent generates the Go code anew, with the plugins pinned in go.mod, and compares.
func TestGeneratedGoIsCurrent(t *testing.T) {
	t.Parallel()
	protoc, err := exec.LookPath("protoc")
	if err != nil {
		t.Skip("protoc is not installed (Debian: protobuf-compiler)")
	}
	bin, out := t.TempDir(), t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "GOBIN="+bin)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
	}
	run("go", "install", "google.golang.org/protobuf/cmd/protoc-gen-go", "connectrpc.com/connect/cmd/protoc-gen-connect-go")
	sources, err := filepath.Glob("amphi/v1/*.proto")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no schemas: %v", err)
	}
	run(protoc, append([]string{
		"--plugin=" + filepath.Join(bin, "protoc-gen-go"), "--plugin=" + filepath.Join(bin, "protoc-gen-connect-go"), "-I.",
		"--go_out=" + out, "--go_opt=module=github.com/amphi-sfu/amphi/proto",
		"--connect-go_out=" + out, "--connect-go_opt=module=github.com/amphi-sfu/amphi/proto",
	}, sources...)...)
	made := map[string]bool{}
	err = filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(out, path)
		if err != nil {
			return err
		}
		made[name] = true
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(name)
		if err != nil || !sameCode(got, want) {
			t.Errorf("%s is not what its schema gives now; run make proto (%v)", name, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	committed, err := filepath.Glob("amphi/v1/*.pb.go")
	if err != nil || len(committed) == 0 {
		t.Fatalf("no generated code: %v", err)
	}
	for _, f := range committed {
		if !made[f] {
			t.Errorf("%s has no schema", f)
		}
	}
}

// TestGoldenMessagesInTypeScript has the web SDK's generated code read the golden messages too. It needs what
// "make test" installs.
func TestGoldenMessagesInTypeScript(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	if _, err := os.Stat("../signal/web/node_modules/esbuild"); err != nil {
		t.Skip("signal/web/node_modules is not there; make test installs it")
	}
	if out, err := exec.Command(node, "goldens.mjs").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// sameCode compares without the comment that names protoc's version, which is the machine's.
func sameCode(a, b []byte) bool {
	version := regexp.MustCompile(`(?m)^//.*protoc .*$`)
	return bytes.Equal(version.ReplaceAll(a, nil), version.ReplaceAll(b, nil))
}
