//go:build cgo

package program

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
)

func TestMain(m *testing.M) {
	av.Quiet()
	goleak.VerifyTestMain(m)
}
