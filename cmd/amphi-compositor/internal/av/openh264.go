//go:build cgo && !openh264

package av

// newOpenH264 opens libavcodec's openh264, where libavcodec was built with it. Debian's
// is not: there it takes the build tag openh264.
func newOpenH264(cfg VideoConfig) (VideoEncoder, error) {
	return newLibav("libopenh264", cfg, "", "", "")
}
