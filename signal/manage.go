package signal

import (
	"context"
	"net/http"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/api"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/room"
)

// management is the API's way into the rooms.
type management struct{ *Server }

// Call implements api.Rooms.
func (m management) Call(ctx context.Context, name string, cmd *amphiv1.Command) (*amphiv1.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, ownerWait)
	defer cancel()
	r, err := m.replicas.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Release()
	return r.Call(ctx, "", cmd)
}

// View implements api.Rooms.
func (m management) View(ctx context.Context, name string, f func(*room.Replica)) error {
	ctx, cancel := context.WithTimeout(ctx, ownerWait)
	defer cancel()
	r, err := m.replicas.Open(name)
	if err != nil {
		return err
	}
	defer r.Release()
	return r.View(ctx, f)
}

// Active implements api.Rooms.
func (m management) Active() map[string]int { return m.owner.Active() }

func (s *Server) managementAPI() http.Handler {
	deps := api.Deps{Registry: s.deps.Registry, Rooms: management{s}, Nodes: s.deps.Nodes, Logger: s.log,
		Authorize: func(token string) error {
			_, err := s.verify(token, auth.Management)
			return err
		}}
	return api.Handler(deps)
}
