package proto

import (
	"strings"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// What a layout's options may say.
const (
	MaxLayoutTiles = 16
	MaxLayoutGap   = 100  // thousandths of the shorter side
	MaxMargin      = 200  // thousandths of the shorter side
	MaxFadeMS      = 2000 // ms
	maxPictureName = 32
	maxPeerID      = 64
)

// CheckLayout tells what is wrong with a layout's options; nil options are right. Errors are invalid_argument.
func CheckLayout(o *amphiv1.LayoutOptions) error {
	if o == nil {
		return nil
	}
	switch {
	case len(o.GetPinnedPeer()) > maxPeerID:
		return Errorf(InvalidArgument, "pinned_peer: longer than %d bytes", maxPeerID)
	case o.GetMaxTiles() > MaxLayoutTiles:
		return Errorf(InvalidArgument, "max_tiles: %d is not within 0 to %d", o.GetMaxTiles(), MaxLayoutTiles)
	case o.GetGap() > MaxLayoutGap:
		return Errorf(InvalidArgument, "gap: %d is not within 0 to %d", o.GetGap(), MaxLayoutGap)
	case o.GetMargin() > MaxMargin:
		return Errorf(InvalidArgument, "margin: %d is not within 0 to %d", o.GetMargin(), MaxMargin)
	case amphiv1.TileFit_name[int32(o.GetFit())] == "":
		return Errorf(InvalidArgument, "fit: is unknown")
	case o.GetHighlight() != "" && o.GetHighlight() != "none" && !isColour(o.GetHighlight()):
		return Errorf(InvalidArgument, `highlight: neither #rrggbb nor "none"`)
	case o.GetBackground() != "" && !isColour(o.GetBackground()):
		return Errorf(InvalidArgument, "background: not #rrggbb")
	case o.GetBackgroundPicture() != "" && !IsPictureName(o.GetBackgroundPicture()):
		return Errorf(InvalidArgument, "background_picture: not the name of a picture")
	case o.GetFadeMs() > MaxFadeMS:
		return Errorf(InvalidArgument, "fade_ms: %d is not within 0 to %d", o.GetFadeMs(), MaxFadeMS)
	}
	return checkLogo(o.GetLogo())
}

func checkLogo(l *amphiv1.Logo) error {
	switch {
	case l == nil:
		return nil
	case !IsPictureName(l.GetPicture()):
		return Errorf(InvalidArgument, "logo.picture: not the name of a picture")
	case amphiv1.Corner_name[int32(l.GetCorner())] == "":
		return Errorf(InvalidArgument, "logo.corner: is unknown")
	case l.GetSize() != 0 && l.GetSize() < 10 || l.GetSize() > 500:
		return Errorf(InvalidArgument, "logo.size: %d is not within 10 to 500", l.GetSize())
	case l.GetMargin() > MaxMargin:
		return Errorf(InvalidArgument, "logo.margin: %d is not within 0 to %d", l.GetMargin(), MaxMargin)
	case l.GetOpacity() > 100:
		return Errorf(InvalidArgument, "logo.opacity: %d is not within 1 to 100", l.GetOpacity())
	}
	return nil
}

// IsPictureName tells whether a picture can have this name: 1 to 32 of a-z, 0-9 and -.
func IsPictureName(s string) bool {
	return s != "" && len(s) <= maxPictureName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func isColour(s string) bool {
	return len(s) == 7 && s[0] == '#' && strings.Trim(s[1:], "0123456789abcdefABCDEF") == ""
}
