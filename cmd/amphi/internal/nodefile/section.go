package nodefile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// faults are all that is wrong with a file, each with its line and key: who writes one wants to know all at once.
type faults struct {
	file string
	list []fault
}

type fault struct {
	line      int
	key, text string
}

func (f *faults) add(line int, key, format string, args ...any) {
	f.list = append(f.list, fault{line, key, fmt.Sprintf(format, args...)})
}

// maxFaults is how many are told: a file that is something else altogether has many.
const maxFaults = 50

// err is nil, or all faults in the order of the file.
func (f *faults) err() error {
	slices.SortStableFunc(f.list, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.line, b.line), strings.Compare(a.key, b.key))
	})
	var all []error
	for i, one := range f.list {
		if i == maxFaults {
			all = append(all, fmt.Errorf("and %d more", len(f.list)-i))
			break
		}
		all = append(all, fmt.Errorf("%s:%d: %s: %s", f.file, one.line, one.key, one.text))
	}
	return errors.Join(all...)
}

// section is a mapping in the file. It notes which keys were asked for; the others are faults.
type section struct {
	faults *faults
	path   string // of keys: "cluster."; empty at the top
	line   int
	values map[string]*yaml.Node
	asked  []string
}

// newSection takes node apart; nil, or what is not a mapping, is an empty section.
func newSection(f *faults, path string, node *yaml.Node, line int) *section {
	s := &section{faults: f, path: path, line: line, values: map[string]*yaml.Node{}}
	if node == nil || node.Tag == "!!null" {
		return s
	}
	s.line = node.Line
	if node.Kind != yaml.MappingNode {
		f.add(node.Line, strings.TrimSuffix(path, "."), "want keys and values")
		return s
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if _, twice := s.values[key.Value]; twice {
			f.add(key.Line, fmt.Sprintf("%s%.40s", path, key.Value), "it is there twice; take one of them out")
		}
		s.values[key.Value] = value
	}
	return s
}

// end reports the keys that nobody asked for.
func (s *section) end() {
	for key, value := range s.values {
		if slices.Contains(s.asked, key) {
			continue
		}
		hint := "known here: " + strings.Join(s.asked, ", ")
		if near := nearest(key, s.asked); near != "" {
			hint = "did you mean " + near + "?"
		}
		s.faults.add(value.Line, fmt.Sprintf("%s%.40s", s.path, key), "there is no such key; %s", hint)
	}
}

// bad reports a fault of key.
func (s *section) bad(key, format string, args ...any) {
	line := s.line
	if v := s.values[key]; v != nil {
		line = v.Line
	}
	s.faults.add(line, s.path+key, format, args...)
}

func (s *section) has(key string) bool {
	v := s.values[key]
	return v != nil && v.Tag != "!!null"
}

func (s *section) get(key string) *yaml.Node {
	if !slices.Contains(s.asked, key) {
		s.asked = append(s.asked, key)
	}
	if !s.has(key) {
		return nil
	}
	return s.values[key]
}

// text is a value as it is written, or fallback where the key is missing.
func (s *section) text(key, fallback string) string {
	v := s.get(key)
	if v == nil {
		return fallback
	}
	if v.Kind != yaml.ScalarNode {
		s.bad(key, "want one value")
		return fallback
	}
	return v.Value
}

// required is text that must be there; advice says what belongs there.
func (s *section) required(key, advice string) string {
	value := s.text(key, "")
	if value == "" {
		s.bad(key, "it is missing: %s", advice)
	}
	return value
}

// number is a whole number from low to high.
func (s *section) number(key string, low, high, fallback int) int {
	text := s.text(key, "")
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		s.bad(key, "%.80q is not a number from %d to %d", text, low, high)
		return fallback
	}
	return n
}

// flag is true or false; false where the key is missing.
func (s *section) flag(key string) bool {
	switch text := s.text(key, "false"); text {
	case "true":
		return true
	case "false":
		return false
	default:
		s.bad(key, "%.80q is neither true nor false", text)
		return false
	}
}

// decimal is number for what may be a fraction.
func (s *section) decimal(key string, low, high, fallback float64) float64 {
	text := s.text(key, "")
	if text == "" {
		return fallback
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= low && n <= high) {
		s.bad(key, "%.80q is not a number from %g to %g", text, low, high)
		return fallback
	}
	return n
}

// texts is a list of values.
func (s *section) texts(key string) []string {
	v := s.get(key)
	if v == nil {
		return nil
	}
	if v.Kind != yaml.SequenceNode {
		s.bad(key, "want a list: [a, b]")
		return nil
	}
	var list []string
	for _, item := range v.Content {
		if item.Kind != yaml.ScalarNode {
			s.faults.add(item.Line, s.path+key, "want a list of single values")
			continue
		}
		list = append(list, item.Value)
	}
	return list
}

// sub is a section inside this one.
func (s *section) sub(key string) *section {
	return newSection(s.faults, s.path+key+".", s.get(key), s.line)
}

// subs are the sections of a list.
func (s *section) subs(key string) []*section {
	v := s.get(key)
	if v == nil {
		return nil
	}
	if v.Kind != yaml.SequenceNode {
		s.bad(key, "want a list, each item with its keys")
		return nil
	}
	list := make([]*section, 0, len(v.Content))
	for i, item := range v.Content {
		list = append(list, newSection(s.faults, fmt.Sprintf("%s%s[%d].", s.path, key, i), item, item.Line))
	}
	return list
}

// nearest is the known key that is one or two letters away.
func nearest(key string, known []string) string {
	best, found := 3, ""
	if len(key) > 2*len("bootstrap_expect") {
		return ""
	}
	for _, k := range known {
		if d := distance(strings.ToLower(key), k); d < best && d < len(k) {
			best, found = d, k
		}
	}
	return found
}

// distance is how many letters must be put in, taken out or changed to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// parse reads a file's one document.
func parse(f *faults, data []byte) (*yaml.Node, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("%s: %s", f.file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(document.Content) != 1 {
		return nil, errors.New(f.file + ": it is empty; deploy/amphi.yaml is a sample")
	}
	root := document.Content[0]
	if aliased(root) {
		return nil, errors.New(f.file + ": anchors and aliases (& and *) are not supported; write the value out")
	}
	return root, nil
}

func aliased(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || n.Anchor != "" || slices.ContainsFunc(n.Content, aliased)
}
