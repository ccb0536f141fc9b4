package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxLines is the hard limit of a file's length; generated code and data are exempt.
const maxLines = 600

var (
	suppression = regexp.MustCompile(`//\s*no` + `lint|//\s*lint:ig` + `nore`)
	leftOpen    = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	generated   = regexp.MustCompile(`\.pb\.go$|\.connect\.go$|_pb\.ts$`)
)

// trackedFiles lists what belongs to the project, relative to its root.
func trackedFiles(t *testing.T) (root string, files []string) {
	t.Helper()
	out, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	root = strings.TrimSpace(string(out))
	list := exec.Command("git", "ls-files")
	list.Dir = root
	out, err = list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil && !generated.MatchString(name) {
			files = append(files, name)
		}
	}
	return root, files
}

func TestFilesAreShortAndFinished(t *testing.T) {
	t.Parallel()
	root, files := trackedFiles(t)
	for _, name := range files {
		switch filepath.Ext(name) {
		case ".go", ".ts", ".tsx", ".c", ".h", ".css", ".mjs", ".js":
		default:
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(content), "\n"); lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: split it by its nouns", name, lines, maxLines)
		}
		for i, line := range strings.Split(string(content), "\n") {
			if suppression.MatchString(line) {
				t.Errorf("%s:%d suppresses a linter: fix the cause", name, i+1)
			}
			if leftOpen.MatchString(line) {
				t.Errorf("%s:%d leaves something open: %s", name, i+1, strings.TrimSpace(line))
			}
		}
	}
}

func TestGoFilesFollowTheHouseRules(t *testing.T) {
	t.Parallel()
	root, files := trackedFiles(t)
	comments := map[string][]string{}
	packages := map[string]bool{}
	for _, name := range files {
		if filepath.Ext(name) != ".go" {
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.ParseComments)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		dir := filepath.Dir(name)
		test := strings.HasSuffix(name, "_test.go")
		if !test {
			packages[dir] = true
			if file.Doc != nil {
				comments[dir] = append(comments[dir], name)
			}
		}
		checkDeclarations(t, name, fset, file, test)
	}
	for dir := range packages {
		if n := len(comments[dir]); n != 1 {
			t.Errorf("%s has %d package comments %v; exactly one says what the package is", dir, n, comments[dir])
		}
	}
}

func checkDeclarations(t *testing.T, name string, fset *token.FileSet, file *ast.File, test bool) {
	t.Helper()
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == "init" && d.Recv == nil {
				t.Errorf("%s: func init: build values in New, not at import", fset.Position(d.Pos()))
			}
		case *ast.GenDecl:
			if d.Tok == token.VAR && !test {
				checkVars(t, fset, d)
			}
		}
	}
	if !test {
		return
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		switch {
		case ok && pkg.Name == "synctest" && sel.Sel.Name == "Test":
			return false // in there sleeping takes no time
		case ok && pkg.Name == "time" && sel.Sel.Name == "Sleep":
			t.Errorf("%s: time.Sleep in a test: wait for a condition with a deadline, or use synctest", fset.Position(call.Pos()))
		}
		return true
	})
}

// checkVars lets pass what is never written after start: sentinel errors, tables, compiled
// patterns, embedded files, interface assertions. What it can't recognise by form it judges
// by whether the variable is a plain mutable scalar, pointer, mutex, map made empty, or channel.
func checkVars(t *testing.T, fset *token.FileSet, d *ast.GenDecl) {
	t.Helper()
	embedded := d.Doc != nil && strings.Contains(textOf(d.Doc), "go:embed")
	for _, spec := range d.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || v.Names[0].Name == "_" || embedded || (v.Doc != nil && strings.Contains(textOf(v.Doc), "go:embed")) {
			continue
		}
		if len(v.Values) == 0 {
			t.Errorf("%s: package-level variable %s without a value is mutable state", fset.Position(v.Pos()), v.Names[0].Name)
			continue
		}
		for _, value := range v.Values {
			if mutable(value) {
				t.Errorf("%s: package-level variable %s is mutable state; give it an owner", fset.Position(v.Pos()), v.Names[0].Name)
			}
		}
	}
}

func textOf(group *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range group.List {
		b.WriteString(c.Text)
	}
	return b.String()
}

func mutable(value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.BasicLit:
		return true
	case *ast.UnaryExpr:
		_, composite := v.X.(*ast.CompositeLit)
		return composite && v.Op == token.AND
	case *ast.CompositeLit:
		if _, isMap := v.Type.(*ast.MapType); isMap {
			return len(v.Elts) == 0
		}
	case *ast.CallExpr:
		if id, ok := v.Fun.(*ast.Ident); ok {
			return id.Name == "make" || id.Name == "new"
		}
	}
	return false
}
