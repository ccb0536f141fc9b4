package packager

import (
	"fmt"
	"strconv"
	"strings"
)

// Name is what an object's name says. Part is -1 for a whole segment; Init is the
// version of an init section, or -1.
type Name struct {
	Epoch uint64
	MSN   uint64
	Part  int
	Init  int
	Text  bool // WebVTT
}

func (n Name) String() string {
	switch {
	case n.Init >= 0:
		return fmt.Sprintf("%d-init%d.mp4", n.Epoch, n.Init)
	case n.Text && n.Part < 0:
		return fmt.Sprintf("%d-%d.vtt", n.Epoch, n.MSN)
	case n.Part >= 0:
		return fmt.Sprintf("%d-%d.%d.m4s", n.Epoch, n.MSN, n.Part)
	default:
		return fmt.Sprintf("%d-%d.m4s", n.Epoch, n.MSN)
	}
}

// maxName is longer than any name of ours.
const maxName = 64

// ParseName reads an object's name; ok is false for everything that String does
// not write.
func ParseName(s string) (n Name, ok bool) {
	if len(s) > maxName {
		return Name{}, false
	}
	epoch, rest, ok := strings.Cut(s, "-")
	if !ok {
		return Name{}, false
	}
	n.Part, n.Init = -1, -1
	var err error
	if n.Epoch, err = strconv.ParseUint(epoch, 10, 64); err != nil {
		return Name{}, false
	}
	if v, isInit := strings.CutPrefix(rest, "init"); isInit {
		if v, ok = strings.CutSuffix(v, ".mp4"); ok {
			n.Init, ok = number(v)
		}
		return n, ok && n.String() == s
	}
	if rest, n.Text = strings.CutSuffix(rest, ".vtt"); !n.Text {
		if rest, ok = strings.CutSuffix(rest, ".m4s"); !ok {
			return Name{}, false
		}
	}
	msn, part, isPart := strings.Cut(rest, ".")
	if n.MSN, err = strconv.ParseUint(msn, 10, 63); err != nil {
		return Name{}, false
	}
	if isPart {
		if n.Part, ok = number(part); !ok {
			return Name{}, false
		}
	}
	return n, n.String() == s
}

func number(s string) (int, bool) {
	v, err := strconv.ParseUint(s, 10, 16)
	return int(v), err == nil
}
