package proto

// The sources that Amphi knows; applications add their own with the prefix "x-".
const (
	SourceMic         = "mic"
	SourceCamera      = "camera"
	SourceScreen      = "screen"
	SourceScreenAudio = "screen-audio"
	SourcePrefix      = "x-"
)
