package proto

import (
	"errors"
	"fmt"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Error is an error with a code and words that may be shown to the client.
type Error struct {
	Code    Code
	Message string
	Details map[string]string
}

// Errorf makes an Error; the message is for the client and must hold nothing secret.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Wire is the error as clients get it. Errors that are not an Error become "internal", without their text.
func Wire(err error) *amphiv1.Error {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: Internal, Message: "something went wrong on the server"}
	}
	return &amphiv1.Error{Code: string(e.Code), Message: e.Message, Retryable: e.Code.Retryable(), Details: e.Details}
}

// FromWire turns a received error back into an Error; nil stays nil.
func FromWire(e *amphiv1.Error) error {
	if e == nil {
		return nil
	}
	return &Error{Code: Code(e.GetCode()), Message: e.GetMessage(), Details: e.GetDetails()}
}

// CodeOf is the code inside err: "" for nil, Internal for an error without one.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}
