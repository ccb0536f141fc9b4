package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var relativeLink = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)

func TestLinksInPagesLeadSomewhere(t *testing.T) {
	t.Parallel()
	root, files := trackedFiles(t)
	for _, name := range files {
		if filepath.Ext(name) != ".md" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range relativeLink.FindAllStringSubmatch(string(content), -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), link[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", name, link[1])
			}
		}
	}
}

func TestReadmeLeadsToEveryDesign(t *testing.T) {
	t.Parallel()
	root, files := trackedFiles(t)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if filepath.Base(name) == "DESIGN.md" && !strings.Contains(string(readme), "("+name+")") {
			t.Errorf("README.md does not link to %s", name)
		}
	}
}
