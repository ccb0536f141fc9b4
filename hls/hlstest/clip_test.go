package hlstest

import "testing"

func TestLoad(t *testing.T) {
	t.Parallel()
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pictures, %d audio frames", len(c.Video), len(c.Audio))
}
