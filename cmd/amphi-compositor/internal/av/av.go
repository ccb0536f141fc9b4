// Package av is a thin binding of our own over libavcodec, libswscale and
// libopus: decoders, one canvas, a scaler into rectangles of it, encoders.
// Objects hold C memory until Close (or Free); none is for concurrent use.
package av

/*
#cgo pkg-config: libavcodec libavutil libswscale libswresample opus
#cgo CFLAGS: -O3
#include "av.h"
#include <opus.h>
*/
import "C"

import (
	"fmt"
	"time"
)

// Fault is what one of the libraries answered.
type Fault struct {
	code C.int
}

// Error is the library's own text.
func (f Fault) Error() string {
	var b [128]C.char
	C.amphi_error(f.code, &b[0], C.int(len(b)))
	return C.GoString(&b[0])
}

func fault(doing string, code C.int) error {
	if code >= 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, Fault{code})
}

// Quiet keeps libav from writing about broken streams to standard error:
// publishers decide how broken they are. Call it before anything else.
func Quiet() { C.amphi_log_level(C.AV_LOG_FATAL) }

// Version names the libraries in use.
func Version() string {
	n := func(v C.uint) string { return fmt.Sprintf("%d.%d.%d", v>>16, v>>8&255, v&255) }
	return fmt.Sprintf("libavcodec %s, libavutil %s, libswscale %s, %s",
		n(C.avcodec_version()), n(C.avutil_version()), n(C.swscale_version()), C.GoString(C.opus_get_version_string()))
}

// Licence is libavcodec's: "GPL version 2 or later" where it has x264.
func Licence() string { return C.GoString(C.avcodec_license()) }

// ThreadTime is the CPU time of the calling thread; lock the goroutine to its
// thread (runtime.LockOSThread) for differences to mean something.
func ThreadTime() time.Duration { return time.Duration(C.amphi_thread_ns()) }
