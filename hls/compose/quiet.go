package compose

import (
	"errors"
	"time"
)

// ErrQuiet is why a process was ended that took what it was sent and gave nothing for it.
var ErrQuiet = errors.New("it gives nothing for what it is sent")

const (
	// quietLook is how often it is looked what a transcoder gave.
	quietLook = 250 * time.Millisecond
	// quietMost is for how many looks in a row one kind of input may come without any output of its kind: 3 s; before the first
	// output 10 s. Looks are counted instead of time, so that a machine that stood still makes nobody suspicious.
	quietMost, quietFirst = 12, 40
)

// quiet notices that one kind of output is missing while input of its kind comes.
type quiet struct {
	in, out         int // so far
	lastIn, lastOut int // at the last look
	looks           int // in a row with input alone
}

// look says whether it has been quiet for too long. A look without input tells nothing.
func (q *quiet) look() bool {
	if q.out != q.lastOut {
		q.looks = 0
	} else if q.in != q.lastIn {
		q.looks++
	}
	q.lastIn, q.lastOut = q.in, q.out
	if q.out == 0 {
		return q.looks >= quietFirst
	}
	return q.looks >= quietMost
}
