package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/amphi-sfu/amphi"

// rule says what the packages under one path may import of ours; the first rule
// whose path matches is the one that counts. A path ending in "/..." covers the
// packages below it, and such leaves may import each other as long as Go allows it
// (imports have no cycles, so they only ever point downwards).
type rule struct {
	path string
	may  []string
	why  string
}

// importTable is the table of ARCHITECTURE: a strict DAG of the top-level folders.
var importTable = []rule{
	{"proto/...", []string{"proto/..."}, "words on the wire know nobody"},
	{"media/...", []string{"proto/...", "media/..."}, "the data plane knows nothing of rooms, nodes or streams"},
	{"media", []string{"proto/...", "media/..."}, "the data plane knows nothing of rooms, nodes or streams"},
	{"cluster/...", []string{"proto/...", "cluster/..."}, "who owns what, and nothing of media or clients"},
	{"cluster", []string{"proto/...", "cluster/..."}, "who owns what, and nothing of media or clients"},
	{"cascade/...", []string{"proto/...", "media/...", "cascade/..."}, "trunks carry media's packets"},
	{"cascade", []string{"proto/...", "media", "media/...", "cascade/..."}, "trunks carry media's packets"},
	{"hls/...", []string{"proto/...", "media/...", "hls/..."}, "leaves of hls see packets, never the engine"},
	{"hls", []string{"proto/...", "media", "media/...", "hls/..."}, "an origin subscribes to media like any sink"},
	{"signal/...", []string{"proto/...", "signal/..."}, "leaves of signal see messages, never media"},
	{"signal", []string{"proto/...", "media", "media/...", "signal/..."}, "clients' rooms and their endpoints"},
	{"cmd/amphi-compositor/...", []string{"proto/...", "hls/...", "media/...", "cmd/amphi-compositor/..."}, "a separate program behind a socket"},
	{"cmd/amphi/...", []string{"..."}, "the only place that knows everybody"},
}

// leavesBelow lists pairs where a leaf must not reach up to its own parent.
var noParent = []string{"media", "hls", "signal", "cluster", "cascade"}

// thirdParty says in which of our packages a library belongs, and nowhere else.
var thirdParty = map[string][]string{
	"github.com/pion/webrtc":            {"media", "cmd/amphi/..."},
	"github.com/pion/ice":               {"media/...", "media"},
	"github.com/pion/dtls":              {"media", "media/dtlssrtp"},
	"github.com/pion/srtp":              {"media", "media/..."},
	"github.com/pion/turn":              {"media/turn"},
	"github.com/pion/stun":              {"media", "media/..."},
	"github.com/coder/websocket":        {"signal/...", "signal", "cmd/amphi/..."},
	"github.com/golang-jwt/jwt":         {"signal/auth"},
	"github.com/hashicorp/memberlist":   {"cluster/gossip"},
	"go.yaml.in/yaml":                   {"cmd/amphi/..."},
	"crypto/x509":                       {"cluster/identity", "media/dtlssrtp", "signal/auth", "cmd/amphi/..."},
	"github.com/hashicorp/raft":         {"cluster/group"}, // not in cluster/registry, which stays a pure state machine
	"github.com/hashicorp/raft-boltdb":  {"cluster/group"},
	"go.etcd.io/bbolt":                  {"cluster/group"},
	"github.com/bluenviron/mediacommon": {"hls/fmp4", "hls/packager", "hls/push", "hls/tracks", "hls/rtmp"},
	"github.com/minio/minio-go":         {"hls/storage"},
	"github.com/bluenviron/gortmplib":   {"hls/push", "hls/rtmp"},
	"github.com/datarhei/gosrt":         {"hls/push"},
	"github.com/prometheus":             {"cmd/amphi/..."},
	"github.com/spf13/cobra":            {"cmd/amphi/..."},
	"golang.org/x/crypto/acme/autocert": {"cmd/amphi/..."},
}

type goPackage struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing packages: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	decoder := json.NewDecoder(bytes.NewReader(out))
	for decoder.More() {
		var p goPackage
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 5 {
		t.Fatalf("only %d packages found; is the listing broken?", len(packages))
	}
	return packages
}

func (p goPackage) short() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func covers(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if base, below := strings.CutSuffix(pattern, "/..."); below {
		return strings.HasPrefix(path, base+"/") || (path == base && (base == "proto" || strings.HasPrefix(base, "cmd/")))
	}
	return pattern == path
}

func coversAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return covers(p, path) })
}

func checkOurs(p goPackage) []string {
	from := p.short()
	i := slices.IndexFunc(importTable, func(r rule) bool { return covers(r.path, from) })
	if i < 0 {
		return []string{fmt.Sprintf("%s: no rule in the import table covers this package", from)}
	}
	var faults []string
	for _, imported := range p.Imports {
		to, ours := strings.CutPrefix(imported, module+"/")
		if !ours {
			continue
		}
		if !coversAny(importTable[i].may, to) {
			faults = append(faults, fmt.Sprintf("%s imports %s: may only import %v (%s)", from, to, importTable[i].may, importTable[i].why))
		}
		for _, parent := range noParent {
			if to == parent && strings.HasPrefix(from, parent+"/") {
				faults = append(faults, fmt.Sprintf("%s imports %s: a leaf never imports its parent", from, to))
			}
		}
	}
	return faults
}

func checkThirdParty(p goPackage) []string {
	from := p.short()
	var faults []string
	for _, imported := range p.Imports {
		for library, homes := range thirdParty {
			if (imported == library || strings.HasPrefix(imported, library+"/")) && !coversAny(homes, from) {
				faults = append(faults, fmt.Sprintf("%s imports %s, which belongs in %v only", from, imported, homes))
			}
		}
	}
	return faults
}

func TestImportsFollowTheTable(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		for _, fault := range append(checkOurs(p), checkThirdParty(p)...) {
			t.Error(fault)
		}
		if len(p.CgoFiles) > 0 && !strings.HasPrefix(p.short(), "cmd/amphi-compositor") {
			t.Errorf("%s uses cgo; only amphi-compositor may, the node builds with CGO_ENABLED=0", p.short())
		}
	}
}

func TestTopLevelFoldersAreTheProduct(t *testing.T) {
	t.Parallel()
	allowed := []string{"cmd", "signal", "cascade", "cluster", "media", "hls", "proto", "deploy"}
	for _, p := range listPackages(t) {
		top, _, _ := strings.Cut(filepath.ToSlash(p.short()), "/")
		if !slices.Contains(allowed, top) {
			t.Errorf("%s: top-level folder %q is not one of %v", p.short(), top, allowed)
		}
	}
}
