package template

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// DefaultPreset is the preset of rooms that name no template.
const DefaultPreset = "live-event"

//go:embed presets/*.json
var presets embed.FS

// PresetNames lists the built-in templates in alphabetical order.
func PresetNames() []string {
	files, err := presets.ReadDir("presets")
	if err != nil {
		return nil
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".json"))
	}
	slices.Sort(names)
	return names
}

// Preset is a built-in template, complete. An unknown name is not_found.
func Preset(name string) (*pb.Template, error) {
	data, err := presets.ReadFile(path.Join("presets", name+".json"))
	if err != nil {
		return nil, proto.Errorf(proto.NotFound, "there is no preset %q", clip(name))
	}
	t, err := Import(data)
	if err != nil {
		return nil, fmt.Errorf("reading the preset %s: %w", name, err)
	}
	return t, nil
}
