package proto

import (
	"strings"
	"testing"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestCheckLayout(t *testing.T) {
	t.Parallel()
	good := []*amphiv1.LayoutOptions{
		nil, {},
		{PinnedPeer: "pe_1", MaxTiles: 16, Gap: new(uint32(100)), Margin: 200, Fit: amphiv1.TileFit_TILE_FIT_CONTAIN, Names: new(false),
			Highlight: "none", Background: "#a1B2c3", BackgroundPicture: "wall-2", FadeMs: new(uint32(2000)),
			Logo: &amphiv1.Logo{Picture: "us", Corner: amphiv1.Corner_CORNER_TOP_LEFT, Size: 10, Margin: new(uint32(0)), Opacity: 100}},
	}
	for _, o := range good {
		if err := CheckLayout(o); err != nil {
			t.Errorf("%v: %v", o, err)
		}
	}
	for field, o := range map[string]*amphiv1.LayoutOptions{
		"pinned_peer":        {PinnedPeer: strings.Repeat("x", 65)},
		"max_tiles":          {MaxTiles: 17},
		"gap":                {Gap: new(uint32(101))},
		"margin":             {Margin: 201},
		"fit":                {Fit: 9},
		"highlight":          {Highlight: "green"},
		"background":         {Background: "#12345"},
		"background_picture": {BackgroundPicture: "../etc"},
		"fade_ms":            {FadeMs: new(uint32(2001))},
		"logo.picture":       {Logo: &amphiv1.Logo{}},
		"logo.corner":        {Logo: &amphiv1.Logo{Picture: "us", Corner: 7}},
		"logo.size":          {Logo: &amphiv1.Logo{Picture: "us", Size: 9}},
		"logo.margin":        {Logo: &amphiv1.Logo{Picture: "us", Margin: new(uint32(300))}},
		"logo.opacity":       {Logo: &amphiv1.Logo{Picture: "us", Opacity: 101}},
	} {
		if err := CheckLayout(o); CodeOf(err) != InvalidArgument || !strings.Contains(err.Error(), field+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
