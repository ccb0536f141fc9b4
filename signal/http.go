package signal

import (
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/amphi-sfu/amphi/proto"
)

// routes are the paths of PROTOCOL.md that this package answers.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/signal", func(w http.ResponseWriter, r *http.Request) {
		s.sockets.Serve(w, r, s.open)
	})
	return mux
}

// writeError answers a plain HTTP request with an error as PROTOCOL.md section 5 has it.
func (s *Server) writeError(w http.ResponseWriter, err error) {
	s.logInternal(err)
	body, _ := protojson.Marshal(proto.Wire(err))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(proto.CodeOf(err).HTTPStatus())
	_, _ = w.Write(append(append([]byte(`{"error":`), body...), "}\n"...))
}
