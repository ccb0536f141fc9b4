//go:build cgo

package av

// newOpenH264 opens libavcodec's openh264 where libavcodec was built with it.
func newOpenH264(cfg VideoConfig) (VideoEncoder, error) {
	return newLibav("libopenh264", cfg, "", "", "")
}
