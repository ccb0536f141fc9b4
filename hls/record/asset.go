package record

import "time"

// Type of an asset.
type Type string

// The types.
const (
	Program   Type = "program"   // MP4, index in front
	Playlist  Type = "playlist"  // VOD playlist (HLS) with the files that it lists
	Chat      Type = "chat"      // JSON lines
	Thumbnail Type = "thumbnail" // JPEG
)

// Asset is a file that a recording left, or a playlist with its files.
type Asset struct {
	// ID is unique: the recording's and the file's name.
	ID          string `json:"id"`
	Recording   string `json:"recording"`
	Type        Type   `json:"type"`
	Room        string `json:"room"`
	Session     string `json:"session,omitempty"`
	Stream      string `json:"stream,omitempty"`
	Variant     string `json:"variant,omitempty"`
	ContentType string `json:"content_type"`
	// File is the name of the file in the recording's directory, With those of files that it needs beside it.
	File string   `json:"file"`
	With []string `json:"with,omitempty"`
	// Size in bytes of all files. Checksum is "sha256:" and the hexadecimal digest of File.
	Size     int64  `json:"size"`
	Checksum string `json:"checksum"`
	// Duration of a program or playlist; At is the time in the program that a thumbnail shows.
	Duration time.Duration `json:"duration,omitempty"`
	At       time.Duration `json:"at,omitempty"`
	// Started is when its first picture was there.
	Started time.Time `json:"started,omitzero"`
	Created time.Time `json:"created"`
	Width   int       `json:"width,omitempty"`
	Height  int       `json:"height,omitempty"`
}

// contentTypes by the ends of names.
var contentTypes = map[string]string{
	".mp4": "video/mp4", ".m3u8": "application/vnd.apple.mpegurl", ".jsonl": "application/jsonl", ".jpg": "image/jpeg",
}
