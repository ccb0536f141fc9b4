package negotiate

import "fmt"

// Reason says in one word why an offer was refused.
type Reason string

// Reasons.
const (
	TooLarge        Reason = "sdp_too_large"
	TooManySections Reason = "sdp_too_many_sections"
	Malformed       Reason = "sdp_malformed"
	NoBundle        Reason = "sdp_no_bundle"
	NoICE           Reason = "sdp_no_ice"
	NoFingerprint   Reason = "sdp_no_fingerprint"
	NoRTCPMux       Reason = "sdp_no_rtcp_mux"
	NoMedia         Reason = "sdp_no_media"
	ICELite         Reason = "sdp_ice_lite"
	Changed         Reason = "sdp_changed"
	UnknownSection  Reason = "sdp_unknown_section"
)

// Error is the error for every offer that cannot be answered.
type Error struct {
	Reason Reason
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Reason, e.Detail) }

func refuse(r Reason, format string, args ...any) error {
	return &Error{Reason: r, Detail: fmt.Sprintf(format, args...)}
}
