package hls

import (
	"fmt"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/layout"
	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Pictures finds an uploaded picture, PNG or JPEG, by its name. What a key stands for never changes: another picture of the same
// name has another key. The bytes are not written to. Called often; must not block.
type Pictures func(name string) (key string, data []byte, ok bool)

const (
	defaultGap    = 11  // thousandths of the shorter side
	defaultFade   = 300 // ms
	defaultLogo   = 100 // thousandths of the shorter side
	defaultCorner = 30
	noHighlight   = "none"
)

// checkLook tells whether a layout can be shown.
func checkLook(m layout.Mode, o *amphiv1.LayoutOptions) error {
	if _, err := layout.ParseMode(string(m)); err != nil {
		return err
	}
	if err := proto.CheckLayout(o); err != nil {
		return fmt.Errorf("layout options: %w", err)
	}
	return nil
}

// tiling is what the layout's options say of tiles.
func tiling(o *amphiv1.LayoutOptions) layout.Options {
	out := layout.Options{MaxTiles: int(o.GetMaxTiles()), Margin: int(o.GetMargin()), Contain: o.GetFit() == amphiv1.TileFit_TILE_FIT_CONTAIN}
	switch {
	case o == nil || o.Gap == nil || o.GetGap() == defaultGap:
	case o.GetGap() == 0:
		out.Gap = -1
	default:
		out.Gap = int(o.GetGap())
	}
	return out
}

// names tells whether tiles have names on them.
func (s *Settings) names(o *amphiv1.LayoutOptions) bool {
	if o != nil && o.Names != nil {
		return o.GetNames()
	}
	return !s.HideNames
}

// dress puts all into the scene that is not a tile: background, logo, colours, fade. The pictures for it go with it.
func (l *loop) dress(d *compose.Desired, o *amphiv1.LayoutOptions) {
	s := &d.Scene
	s.Background, s.FadeMS = l.settings.Background, defaultFade
	if o.GetBackground() != "" {
		s.Background = o.GetBackground()
	}
	if o != nil && o.FadeMs != nil {
		s.FadeMS = int(o.GetFadeMs())
	}
	if h := o.GetHighlight(); h != noHighlight {
		s.Highlight = h
	}
	s.Picture = l.picture(d, o.GetBackgroundPicture(), &l.missing.background)
	if key := l.picture(d, o.GetLogo().GetPicture(), &l.missing.logo); key != "" {
		s.Logo = logo(o.GetLogo(), key, l.settings.Width, l.settings.Height)
	}
}

// picture adds a picture to what the compositor shall have, and answers its key; empty for none. missing is the name for which
// there was none at the step before: it is told once.
func (l *loop) picture(d *compose.Desired, name string, missing *string) string {
	if name == "" || l.pictures == nil {
		return ""
	}
	key, data, ok := l.pictures(name)
	if !ok {
		if *missing != name {
			*missing = name
			l.log.Warn("there is no such picture", "picture", name)
		}
		return ""
	}
	*missing = ""
	for _, have := range d.Pictures {
		if have.Key == key {
			return key
		}
	}
	d.Pictures = append(d.Pictures, wire.Picture{Key: key, Data: data})
	return key
}

// logo is where a logo may be: as high as it says, and up to four times as wide.
func logo(o *amphiv1.Logo, key string, width, height int) *wire.Logo {
	side := min(width, height)
	size, margin := defaultLogo, defaultCorner
	if o.GetSize() != 0 {
		size = int(o.GetSize())
	}
	if o.Margin != nil {
		margin = int(o.GetMargin())
	}
	margin = side * margin / 1000
	h := max(2, min(side*size/1000, height-2*margin))
	w := max(2, min(4*h, width-2*margin))
	out := &wire.Logo{Picture: key, X: margin, Y: margin, W: w, H: h, Opacity: int(o.GetOpacity())}
	switch o.GetCorner() {
	case amphiv1.Corner_CORNER_BOTTOM_LEFT:
		out.Bottom = true
	case amphiv1.Corner_CORNER_BOTTOM_RIGHT:
		out.Right, out.Bottom = true, true
	case amphiv1.Corner_CORNER_TOP_LEFT:
	default:
		out.Right = true
	}
	if out.Right {
		out.X = width - margin - w
	}
	if out.Bottom {
		out.Y = height - margin - h
	}
	return out
}
