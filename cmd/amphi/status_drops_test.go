package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/udp"
)

func TestOccurred(t *testing.T) {
	t.Parallel()
	got := occurred(media.EngineStats{
		Drops:  map[string]uint64{"oversize": 2, "rate_limit": 3, "payload": 0},
		Socket: udp.Stats{Drops: map[udp.DropReason]uint64{udp.DropOversize: 5, udp.DropKernel: 0}},
	})
	if d := cmp.Diff(map[string]uint64{"oversize": 7, "rate_limit": 3}, got); d != "" {
		t.Error(d)
	}
}
