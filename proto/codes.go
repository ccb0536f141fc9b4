// Package proto holds the words of the wire that are not messages: error codes, WebSocket
// close codes, identifiers and their limits. The schemas are in amphi/v1; PROTOCOL.md rules.
package proto

// Code is a stable, machine-readable reason. The list in PROTOCOL.md is complete; codes are only ever added.
type Code string

// The codes, grouped as in PROTOCOL.md.
const (
	InvalidMessage   Code = "invalid_message"
	InvalidArgument  Code = "invalid_argument"
	MessageTooLarge  Code = "message_too_large"
	RateLimited      Code = "rate_limited"
	LimitExceeded    Code = "limit_exceeded"
	Conflict         Code = "conflict"
	NotFound         Code = "not_found"
	Unauthenticated  Code = "unauthenticated"
	TokenExpired     Code = "token_expired"
	PermissionDenied Code = "permission_denied"
	CodeUnknown      Code = "code_unknown"
	CodeDisabled     Code = "code_disabled"
	RoomDisabled     Code = "room_disabled"
	RoomLocked       Code = "room_locked"
	RoomFull         Code = "room_full"
	RoleFull         Code = "role_full"
	RoomEnded        Code = "room_ended"
	Removed          Code = "removed"
	Banned           Code = "banned"
	ChatPaused       Code = "chat_paused"
	ChatBlocked      Code = "chat_blocked"
	NotJoined        Code = "not_joined"
	AlreadyJoined    Code = "already_joined"
	ResumeExpired    Code = "resume_expired"
	Replaced         Code = "replaced"
	SlowClient       Code = "slow_client"
	ClientTimeout    Code = "client_timeout"
	SDPInvalid       Code = "sdp_invalid"
	SDPTooLarge      Code = "sdp_too_large"
	TrackNotFound    Code = "track_not_found"
	StreamFailed     Code = "stream_failed"
	EncryptedRoom    Code = "encrypted_room"
	Redirected       Code = "redirected"
	Unavailable      Code = "unavailable"
	Shutdown         Code = "shutdown"
	Timeout          Code = "timeout"
	Internal         Code = "internal"
)

// facts is what a code implies on each carrier.
type facts struct {
	retryable bool
	http      int
	close     int
}

// WebSocket close codes besides the standard ones (RFC 6455 section 7.4).
const (
	CloseNormal          = 1000
	CloseGoingAway       = 1001
	CloseTooBig          = 1009
	CloseTryAgainLater   = 1013
	CloseUnauthenticated = 4001
	CloseInvalidMessage  = 4002
	CloseRateLimited     = 4003
	CloseRemoved         = 4004
	CloseRoomEnded       = 4005
	CloseReplaced        = 4006
	CloseTimeout         = 4008
	CloseRefused         = 4009
	CloseRedirected      = 4010
)

var table = map[Code]facts{
	InvalidMessage:   {false, 400, CloseInvalidMessage},
	InvalidArgument:  {false, 400, CloseInvalidMessage},
	MessageTooLarge:  {false, 413, CloseTooBig},
	RateLimited:      {true, 429, CloseRateLimited},
	LimitExceeded:    {false, 409, CloseRefused},
	Conflict:         {false, 409, CloseRefused},
	NotFound:         {false, 404, CloseRefused},
	Unauthenticated:  {false, 401, CloseUnauthenticated},
	TokenExpired:     {false, 401, CloseUnauthenticated},
	PermissionDenied: {false, 403, CloseRefused},
	CodeUnknown:      {false, 404, CloseRefused},
	CodeDisabled:     {false, 403, CloseRefused},
	RoomDisabled:     {false, 403, CloseRefused},
	RoomLocked:       {false, 403, CloseRefused},
	RoomFull:         {true, 409, CloseRefused},
	RoleFull:         {true, 409, CloseRefused},
	RoomEnded:        {false, 410, CloseRoomEnded},
	Removed:          {false, 403, CloseRemoved},
	Banned:           {false, 403, CloseRemoved},
	ChatPaused:       {true, 409, CloseRefused},
	ChatBlocked:      {false, 403, CloseRefused},
	NotJoined:        {false, 409, CloseRefused},
	AlreadyJoined:    {false, 409, CloseRefused},
	ResumeExpired:    {false, 410, CloseRefused},
	Replaced:         {false, 409, CloseReplaced},
	SlowClient:       {true, 503, CloseTryAgainLater},
	ClientTimeout:    {true, 408, CloseTimeout},
	SDPInvalid:       {false, 400, CloseRefused},
	SDPTooLarge:      {false, 413, CloseRefused},
	TrackNotFound:    {false, 404, CloseRefused},
	StreamFailed:     {true, 503, CloseRefused},
	EncryptedRoom:    {false, 409, CloseRefused},
	Redirected:       {true, 421, CloseRedirected},
	Unavailable:      {true, 503, CloseTryAgainLater},
	Shutdown:         {true, 503, CloseGoingAway},
	Timeout:          {true, 504, CloseTryAgainLater},
	Internal:         {true, 500, CloseTryAgainLater},
}

// Retryable tells whether the same request may succeed later, unchanged. Unknown codes are not.
func (c Code) Retryable() bool { return table[c].retryable }

// HTTPStatus is the status of an HTTP answer with this code; 500 for an unknown one.
func (c Code) HTTPStatus() int {
	if f, ok := table[c]; ok {
		return f.http
	}
	return 500
}

// CloseCode is the WebSocket close code of a connection that ends for this reason.
func (c Code) CloseCode() int {
	if f, ok := table[c]; ok {
		return f.close
	}
	return CloseTryAgainLater
}

// Codes lists every code, in no particular order.
func Codes() []Code {
	all := make([]Code, 0, len(table))
	for c := range table {
		all = append(all, c)
	}
	return all
}
