//go:build !amd64

package confine

// deniedHere are the calls of this architecture only.
func deniedHere() []uint32 { return nil }
