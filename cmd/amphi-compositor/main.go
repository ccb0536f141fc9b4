//go:build cgo

// Command amphi-compositor makes the picture and the sound of one live program.
// A node starts it with one end of a socket pair as descriptor 3 and talks to it
// in the frames of hls/wire; it exits when the node closes the other end.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/confine"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/label"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/program"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/transcode"
	"github.com/amphi-sfu/amphi/hls/wire"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "amphi-compositor:", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("amphi-compositor", flag.ContinueOnError)
	version := flags.Bool("version", false, "print version and licence, and exit")
	fontDir := flags.String("fonts", "", "directory of Noto fonts (default: Debian's)")
	width := flags.Int("thumbnail", 0, "instead: make a JPEG, at most so many pixels wide, of the H.264 keyframe on standard input")
	transcodes := flags.Bool("transcode", false, "instead: transcode what one publisher sends")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *version {
		_, err := fmt.Fprintf(stdout, "amphi-compositor %s\n%s\nlibavcodec: %s\n%s\n", revision(), av.Version(), av.Licence(),
			"Linked with x264 through libavcodec, this program as a whole is under the GNU General Public License, version 2 or later.")
		return err
	}
	av.Quiet()
	if *width > 0 {
		if err := confine.Apply(); err != nil {
			fmt.Fprintln(os.Stderr, "amphi-compositor: running unconfined:", err)
		}
		return thumbnail(stdin, stdout, *width)
	}
	conn, err := net.FileConn(os.NewFile(wire.FD, "node"))
	if err != nil {
		return fmt.Errorf("opening descriptor %d (a node starts this program, not a person): %w", wire.FD, err)
	}
	// An interrupt from the terminal goes to the whole group; the node decides when this process ends.
	signal.Ignore(syscall.SIGINT)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if *transcodes {
		if err := confine.Apply(); err != nil {
			log.Warn("running unconfined", "err", err)
		}
		return transcode.Run(ctx, log, conn)
	}
	dirs := label.DefaultDirs()
	if *fontDir != "" {
		dirs = []string{*fontDir}
	}
	fonts, err := label.Load(dirs)
	if err != nil {
		return fmt.Errorf("loading fonts: %w", err)
	}
	if err := confine.Apply(); err != nil {
		log.Warn("running unconfined", "err", err)
	}
	p, err := program.New(program.Config{Logger: log, Fonts: fonts, Version: revision()}, conn)
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

// revision is the version that the build recorded.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v = s.Value[:12]
		}
	}
	return v
}
