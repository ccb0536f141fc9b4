package nodefile

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const whole = `node: ams-1
region: eu-west
zone: rack-a
roles: [stage, audience, origin, voter]
data: data
http: ":7880"
url: "https://ams-1.example.org:7880/"
advertise: 10.0.0.1
public_ips: [203.0.113.7, "2001:db8::7"]
metrics: ""
media: {udp: ":7882", tcp: ":7881"}
turn: {port: 3478, tls_port: 0}
drain: 90s
cluster:
  name: live
  ca: ca.pem
  cert: ams-1.pem
  key: /secret/ams-1.key
  gossip_key_file: gossip.key
  gossip: "10.0.0.1:7946"
  seeds: ["10.0.0.2:7946", "fra-1.example.org:7946"]
  bootstrap_expect: 3
  allow: [10.0.0.0/8]
tls: {cert: site.pem, key: site.key}
keys:
  - {id: backend, secret: 0123456789abcdef}
rtmp: ":1935"
compositor_cores: 1.5
recordings:
  dir: rec
  s3: {endpoint: "https://s3.example.org", bucket: b, access_key: a, secret_key: s, path_style: true}
webhooks:
  - {url: "https://app.example.org/hook", secrets: [one-secret-of-thirty-two-bytes-], events: ["peer.*"]}
`

func TestAWholeFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		File: file, Node: "ams-1", Region: "eu-west", Zone: "rack-a", Roles: []string{"stage", "audience", "origin", "voter"},
		Data: filepath.Join(dir, "data"), HTTP: ":7880", URL: "https://ams-1.example.org:7880",
		Advertise: netip.MustParseAddr("10.0.0.1"),
		PublicIPs: []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")},
		MediaUDP:  ":7882", MediaTCP: ":7881", TURNPort: 3478, Drain: 90 * time.Second,
		TLSCert: filepath.Join(dir, "site.pem"), TLSKey: filepath.Join(dir, "site.key"),
		Keys: []Key{{"backend", "0123456789abcdef"}},
		RTMP: ":1935", CompositorCores: 1.5,
		Recordings: filepath.Join(dir, "rec"),
		Bucket:     &Bucket{Endpoint: "https://s3.example.org", Name: "b", AccessKey: "a", SecretKey: "s", PathStyle: true},
		Webhooks:   []Webhook{{URL: "https://app.example.org/hook", Secrets: []string{"one-secret-of-thirty-two-bytes-"}, Events: []string{"peer.*"}}},
		Cluster: &Cluster{
			Name: "live", CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "ams-1.pem"), Key: "/secret/ams-1.key",
			GossipKeys: filepath.Join(dir, "gossip.key"), Gossip: "10.0.0.1:7946", Listen: ":7947", Trunk: ":7948",
			Seeds: []string{"10.0.0.2:7946", "fra-1.example.org:7946"}, BootstrapExpect: 3,
			Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestANodeAloneNeedsOnlyItsName(t *testing.T) {
	t.Parallel()
	got, err := Parse("/etc/amphi/node.yaml", []byte("node: solo\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Cluster != nil || got.Region != "local" || got.Zone != "solo" || !got.Has(RoleStage) || got.HTTP != ":7880" ||
		got.TURNPort != 3478 || got.TURNTLSPort != 5349 || got.Metrics != "127.0.0.1:6789" || got.Drain != time.Minute {
		t.Errorf("%+v", got)
	}
}

func TestEachFaultIsNamedByLineAndKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to, want string }{
		{"node: ams-1", "node: ams 1", `node.yaml:1: node: "ams 1" is not an id`},
		{"node: ams-1", "", "node.yaml:2: node: it is missing: this node's id"},
		{"secrets: [one-secret-of-thirty-two-bytes-]", "secrets: [short]", "webhooks[0].secrets: the secret has 5 bytes"},
		{"secrets: [one-secret-of-thirty-two-bytes-], ", "", "webhooks[0].secrets: it is missing"},
		{"https://app.example.org/hook", "app.example.org", "webhooks[0].url: it is not an http or https address"},
		{`events: ["peer.*"]`, `events: ["peer.*", "recordings.*"]`, `webhooks[0].events: "recordings.*" never happens; there are session.started`},
		{`events: ["peer.*"]`, `events: [recording]`, `webhooks[0].events: "recording" never happens`},
		{"compositor_cores: 1.5", "compositor_cores: 0", `compositor_cores: "0" is not a number from 0.1 to 1024`},
		{"path_style: true", "path_style: maybe", `recordings.s3.path_style: "maybe" is neither true nor false`},
		{"bucket: b, ", "", "recordings.s3.bucket: it is missing"},
		{"region: eu-west", "regoin: eu-west", "node.yaml:2: regoin: there is no such key; did you mean region?"},
		{"region: eu-west", "colour: red", "node.yaml:2: colour: there is no such key; known here: "},
		{"region: eu-west", "", "region: it is missing: where the node stands"},
		{"zone: rack-a", "zone: rack a", `node.yaml:3: zone: "rack a"`},
		{"roles: [stage, audience, origin, voter]", "roles: [stage, king]", `node.yaml:4: roles: "king" is not one of`},
		{"roles: [stage, audience, origin, voter]", "roles: [stage, stage, voter]", "roles: stage is there twice"},
		{"roles: [stage, audience, origin, voter]", "roles: [stage]", "node.yaml:4: roles: bootstrap_expect is for voters"},
		{"roles: [stage, audience, origin, voter]", "roles: stage", "node.yaml:4: roles: want a list"},
		{"roles: [stage, audience, origin, voter]", "roles: [[stage]]", "node.yaml:4: roles: want a list of single values"},
		{"data: data", "", "data: it is missing: a directory"},
		{`http: ":7880"`, "http: 7880", `node.yaml:6: http: "7880" is not HOST:PORT`},
		{`http: ":7880"`, `http: ":99999"`, "node.yaml:6: http:"},
		{`url: "https://ams-1.example.org:7880/"`, "url: ams-1.example.org", "node.yaml:7: url:"},
		{`url: "https://ams-1.example.org:7880/"`, `url: "https://a/path"`, "node.yaml:7: url:"},
		{"advertise: 10.0.0.1", "advertise: 0.0.0.0", "node.yaml:8: advertise:"},
		{"advertise: 10.0.0.1", "", "advertise: it is missing: the address"},
		{"203.0.113.7", "example.org", "node.yaml:9: public_ips:"},
		{"media: {udp", "media: {dup", "node.yaml:11: media.dup: there is no such key; did you mean udp?"},
		{"media: {udp: \":7882\", tcp: \":7881\"}", "media: 7882", "node.yaml:11: media: want keys and values"},
		{"port: 3478", "port: 70000", `node.yaml:12: turn.port: "70000" is not a number from 0 to 65535`},
		{"drain: 90s", "drain: 90", `node.yaml:13: drain: "90" is not a time`},
		{"  name: live", "", "cluster.name: it is missing"},
		{"  cert: ams-1.pem", "", "cluster.cert: it is missing: a file that amphi ca issue made"},
		{`  gossip: "10.0.0.1:7946"`, "  gossip: 10.0.0.1", "node.yaml:20: cluster.gossip:"},
		{`"10.0.0.2:7946"`, `"10.0.0.2"`, `node.yaml:21: cluster.seeds: "10.0.0.2" is not HOST:PORT`},
		{"bootstrap_expect: 3", "bootstrap_expect: many", "node.yaml:22: cluster.bootstrap_expect:"},
		{"allow: [10.0.0.0/8]", "allow: [10.0.0.0]", "node.yaml:23: cluster.allow:"},
		{"tls: {cert: site.pem, key: site.key}", "tls: {cert: site.pem}", "node.yaml:24: tls.cert: HTTPS needs both"},
		{"secret: 0123456789abcdef", "secret: short", "node.yaml:26: keys[0].secret: it is shorter than 16"},
		{"secret: 0123456789abcdef", "secrets: 0123456789abcdef", "keys[0].secrets: there is no such key; did you mean secret?"},
		{"keys:\n", "keys:\n  - {id: backend, secret: 0123456789abcdef}\n", "keys[1].id: there are two keys of this id"},
		{"zone: rack-a", "node: ams-2", "node.yaml:3: node: it is there twice"},
		{"zone: rack-a", "zone: &a rack-a", "anchors and aliases"},
		{"zone: rack-a", "zone: [", "line "},
		{"cluster:\n", "cluster: live\nx:\n", "node.yaml:14: cluster: want keys and values"},
	} {
		if !strings.Contains(whole, c.from) {
			t.Fatalf("the sample has no %q", c.from)
		}
		_, err := Parse("/etc/amphi/node.yaml", []byte(strings.Replace(whole, c.from, c.to, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v\nwant %q", c.to, err, c.want)
		}
	}
}

// TestEventTypesAreThoseOfTheProtocol holds the list to the table that applications read.
func TestEventTypesAreThoseOfTheProtocol(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../proto/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| type | when |\n|---|---|\n")
	if !ok {
		t.Fatal("no table of webhooks")
	}
	var there []string
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		family := ""
		for word := range strings.FieldsSeq(strings.Split(line, "|")[1]) {
			word = strings.Trim(word, "`")
			if rest, short := strings.CutPrefix(word, "."); short {
				word = family + "." + rest
			}
			family, _, _ = strings.Cut(word, ".")
			there = append(there, word)
		}
	}
	if diff := cmp.Diff(there, eventTypes); diff != "" {
		t.Error(diff)
	}
}

func TestAllFaultsAtOnceInOrder(t *testing.T) {
	t.Parallel()
	_, err := Parse("/etc/amphi/node.yaml", []byte("node: ams 1\nhttp: x\ncluster:\n  name: live\n  gossip: x\n"))
	if err == nil {
		t.Fatal("no error")
	}
	last := 0
	for line := range strings.SplitSeq(err.Error(), "\n") {
		var n int
		if _, err := fmt.Sscanf(strings.TrimPrefix(line, "node.yaml:"), "%d:", &n); err != nil || n < last {
			t.Errorf("%q after line %d", line, last)
		}
		last = n
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 12 {
		t.Errorf("%d faults:\n%v", lines, err)
	}
}

func TestWhatIsNoFile(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "missing.yaml")); err == nil {
		t.Error("a missing file was read")
	}
	for _, text := range []string{"", "# only a comment\n", "[1, 2]"} {
		if _, err := Parse("/etc/amphi/node.yaml", []byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestSamplesParse holds the files that people copy to what the program takes.
func TestSamplesParse(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../../../deploy/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sets, err := filepath.Glob("../../../../deploy/three-regions/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 || len(sets) < 3 {
		t.Fatalf("%d samples, %d in the set of three regions", len(files), len(sets))
	}
	regions, voters, expect := map[string]bool{}, 0, map[int]bool{}
	for i, file := range append(files, sets...) {
		c, err := Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if i < len(files) {
			continue
		}
		if name := strings.TrimSuffix(filepath.Base(file), ".yaml"); c.Node != name || c.Cluster == nil || c.Cluster.Name != "live" {
			t.Errorf("%s: node %s, %+v", file, c.Node, c.Cluster)
			continue
		}
		regions[c.Region] = true
		if c.Has(RoleVoter) {
			voters++
			expect[c.Cluster.BootstrapExpect] = true
		}
	}
	if len(regions) != 3 || len(expect) != 1 || !expect[voters] {
		t.Errorf("regions %v; %d voters that expect %v", regions, voters, expect)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("node: a\nkeys: [{id: a}]\ncluster: {seeds: [1, {}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("/etc/amphi/node.yaml", data)
		if err == nil && (c.Node == "" || len(c.Roles) == 0 || c.Cluster != nil && !c.Advertise.IsValid()) {
			t.Errorf("%+v", c)
		}
	})
}
