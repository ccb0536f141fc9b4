package signal

import (
	"context"
	"strings"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/whip"
)

// Headless takes clients without a WebSocket into rooms, as WHIP and WHEP do.
func (s *Server) Headless() whip.Stage { return s.headless }

// Encoder is what a stream key lets an encoder do that speaks neither WebSocket nor HTTP.
type Encoder struct {
	Token, Room, Role string
	// Publish are the publish settings of the role.
	Publish *amphiv1.PublishParams
}

// Encoder tells what a stream key stands for: it is an app token or a room code. remote is the address of who shows it; each
// may try only so often, as codes can be guessed. Errors have codes and don't repeat the key.
func (s *Server) Encoder(key, remote string) (Encoder, error) {
	if !s.addresses.allow(remote) {
		return Encoder{}, proto.Errorf(proto.RateLimited, "too many tries; wait a little")
	}
	e, err := s.encoder(key)
	if err != nil {
		s.addresses.failed(remote)
	}
	return e, err
}

func (s *Server) encoder(key string) (Encoder, error) {
	e := Encoder{Token: key}
	if strings.Count(key, ".") != 2 { // no JWT (RFC 7519)
		answer, err := s.redeem(context.Background(), key, "")
		if err != nil {
			return Encoder{}, err
		}
		e.Token = answer.Token
	}
	grant, err := s.verify(e.Token, auth.App)
	if err != nil {
		return Encoder{}, err
	}
	record, err := s.records.joinable(context.Background(), grant.Room)
	if err != nil {
		return Encoder{}, err
	}
	template, err := s.records.template(record.GetTemplate())
	if err != nil {
		return Encoder{}, err
	}
	e.Room, e.Role = record.GetName(), grant.Role
	for _, role := range template.GetRoles() {
		if role.GetName() == grant.Role {
			e.Publish = role.GetPublish()
		}
	}
	if !e.Publish.GetVideo() && !e.Publish.GetAudio() {
		return Encoder{}, proto.Errorf(proto.PermissionDenied, "this role publishes neither camera nor microphone")
	}
	return e, nil
}
