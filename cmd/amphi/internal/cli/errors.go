package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Exit codes of the program.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3 // the server answered with a code
	exitUnreachable = 4
)

// problem is an error with what the operator can do about it.
type problem struct {
	err    error
	advice string
	exit   int
}

func (p *problem) Error() string {
	if p.advice == "" {
		return p.err.Error()
	}
	return p.err.Error() + "\n" + p.advice
}

func (p *problem) Unwrap() error { return p.err }

func usage(err error) error { return &problem{err: err, exit: exitUsage} }

// ExitCode is the program's exit code for an error of a command: 0 for nil, 1 failed, 2 wrong usage,
// 3 refused by the server, 4 the server can't be reached.
func ExitCode(err error) int {
	var p *problem
	switch {
	case err == nil:
		return 0
	case errors.As(err, &p):
		return p.exit
	}
	return exitFailed
}

// advice says what to do about a code; codes that speak for themselves are not listed.
var advice = map[proto.Code]string{
	proto.Unauthenticated:  "Check --key and --secret against the server's keys, and that both clocks agree.",
	proto.TokenExpired:     "Check that the clocks of this machine and the server agree.",
	proto.PermissionDenied: "The management API needs a management token; app tokens can't use it.",
	proto.NotFound:         "See what there is with amphi room list, amphi peer list ROOM, amphi template list.",
	proto.RoleFull:         "Raise max_peers of the role in the template, or move somebody out of it first.",
	proto.RoomFull:         "Raise max_peers in the template's limits.",
	proto.RoomDisabled:     "Enable it with amphi room enable ROOM.",
	proto.RoomLocked:       "Unlock it with amphi room unlock ROOM.",
	proto.Conflict:         "Somebody else changed it in between: read it again and repeat.",
	proto.InvalidArgument:  "See the command's --help for what it takes.",
	proto.RateLimited:      "Wait a moment and repeat.",
	proto.Unavailable:      "Repeat in a moment; if it stays, look at amphi node list and the server's log.",
	proto.Timeout:          "Repeat in a moment; if it stays, look at amphi node list and the server's log.",
	proto.StreamFailed:     "See the server's log; amphi doctor tells whether the compositor is there.",
	proto.EncryptedRoom:    "Use a room whose template is not end_to_end_encrypted for streams, WHIP and WHEP.",
	proto.Internal:         "See the server's log.",
}

// explain turns an error of the management API into code, message and what to do.
func explain(url string, err error) error {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err
	}
	for _, d := range ce.Details() {
		msg, derr := d.Value()
		if derr != nil {
			continue
		}
		if e, ok := msg.(*amphiv1.Error); ok {
			return &problem{err: proto.FromWire(e), advice: advice[proto.Code(e.GetCode())], exit: exitRefused}
		}
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return &problem{
			err:    fmt.Errorf("%s: %s can't be trusted: %w", proto.Unavailable, url, untrusted.Err),
			advice: "Use the name that its certificate is for. A certificate that was made for trying is accepted with --insecure.",
			exit:   exitUnreachable,
		}
	}
	var op *net.OpError
	if errors.As(err, &op) || ce.Code() == connect.CodeDeadlineExceeded || errors.Is(err, context.DeadlineExceeded) {
		return &problem{
			err:    fmt.Errorf("%s: %s can't be reached: %w", proto.Unavailable, url, ce.Unwrap()),
			advice: "Is the server running there? Start one with amphi dev, or give another address with --url.",
			exit:   exitUnreachable,
		}
	}
	if ce.Code() == connect.CodeUnimplemented {
		return &problem{
			err:    fmt.Errorf("%s has no management API: %w", url, ce.Unwrap()),
			advice: "Check --url; an older server may lack this command.",
			exit:   exitRefused,
		}
	}
	return &problem{err: fmt.Errorf("%s answered: %w", url, err), exit: exitRefused}
}
