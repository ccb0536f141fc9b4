package signal

import (
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/amphi-sfu/amphi/proto"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/whip"
	"github.com/amphi-sfu/amphi/signal/ws"
)

// routes are the paths of PROTOCOL.md that this package answers.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/signal", func(w http.ResponseWriter, r *http.Request) {
		s.sockets.Serve(w, r, func(conn *ws.Conn) ws.Handler { return s.open(conn, r.Host) })
	})
	mux.HandleFunc("POST /v1/token", s.serveToken)
	mux.HandleFunc("OPTIONS /v1/token", func(w http.ResponseWriter, _ *http.Request) {
		allowAnyOrigin(w)
		w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/v1/signal", s.notAllowed("GET"))
	mux.HandleFunc("/v1/token", s.notAllowed("POST, OPTIONS"))
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, _ *http.Request) {
		allowAnyOrigin(w)
		s.writeError(w, proto.Errorf(proto.NotFound, "there is nothing at this path"))
	})
	sessions := whip.Handler(s.headless, s.log)
	mux.Handle("/v1/whip/", sessions)
	mux.Handle("/v1/whep/", sessions)
	management := s.managementAPI()
	for _, service := range []string{amphiv1connect.RoomServiceName, amphiv1connect.PeerServiceName, amphiv1connect.TemplateServiceName,
		amphiv1connect.StreamServiceName, amphiv1connect.RecordingServiceName, amphiv1connect.PushServiceName, amphiv1connect.AssetServiceName, amphiv1connect.WebhookServiceName,
		amphiv1connect.SessionServiceName, amphiv1connect.NodeServiceName} {
		mux.Handle("/"+service+"/", management)
	}
	return mux
}

// allowAnyOrigin lets pages of any origin use this: no cookie authenticates anybody here.
func allowAnyOrigin(w http.ResponseWriter) { w.Header().Set("Access-Control-Allow-Origin", "*") }

// notAllowed refuses methods that a path does not have.
func (s *Server) notAllowed(allow string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		allowAnyOrigin(w)
		w.Header().Set("Allow", allow)
		writeStatus(w, http.StatusMethodNotAllowed, proto.Errorf(proto.InvalidArgument, "this path takes %s only", allow))
	}
}

// writeError answers a plain HTTP request with an error as PROTOCOL.md section 5 has it.
func (s *Server) writeError(w http.ResponseWriter, err error) {
	s.logInternal(err)
	writeStatus(w, proto.CodeOf(err).HTTPStatus(), err)
}

func writeStatus(w http.ResponseWriter, status int, err error) {
	body, _ := protojson.Marshal(proto.Wire(err))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(append([]byte(`{"error":`), body...), "}\n"...))
}
