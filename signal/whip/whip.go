// Package whip is WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) over HTTP: the requests, their limits and
// answers. What they do in a room is the business of its Stage.
package whip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Request is one client's wish to publish or to play.
type Request struct {
	// Token is the app token.
	Token string
	Room  string
	// Track is the track to play; empty plays the stage.
	Track string
	Offer string
	// Host is the name or address by which the client reached this node.
	Host string
	// Region is where the client would be served, empty if it did not say.
	Region string
	// Redirected says that another node sent the client here, with a token of that node's.
	Redirected bool
}

// Elsewhere is the error of a Stage that sends the client on, once, to another node.
type Elsewhere struct {
	// URL is that of the node.
	URL string
	// Ticket is an app token of few seconds that lets the client in there: most clients leave their own out when
	// they follow a redirection to another host.
	Ticket string
}

// Error implements error.
func (e *Elsewhere) Error() string { return "another node serves this client: " + e.URL }

// ticket is the query's key of a redirected client's token.
const ticket = "ticket"

// Stage takes requests into rooms. Its methods may be called from any goroutine; errors have codes, or are Elsewhere.
type Stage interface {
	// Publish joins with the token's role and publishes every section of the offer.
	Publish(ctx context.Context, r Request) (Session, error)
	// Play joins with the token's role and receives.
	Play(ctx context.Context, r Request) (Session, error)
	// End ends the session with this id; not_found when there is none.
	End(ctx context.Context, id string) error
}

// Session is a client that publishes or plays.
type Session struct {
	// ID cannot be guessed: it is all that is needed to end the session.
	ID     string
	Answer string
	// ICEServers are what the client may use to get through.
	ICEServers []*amphiv1.IceServer
	// Gone is closed when the client has left the room, for whatever reason.
	Gone <-chan struct{}
}

// Handler serves /v1/whip/{room} and /v1/whep/{room}, and what they locate below them.
func Handler(stage Stage, log *slog.Logger) http.Handler {
	h := &handler{stage: stage, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/whip/{room}", h.post(stage.Publish))
	mux.HandleFunc("POST /v1/whep/{room}", h.post(stage.Play))
	for _, kind := range []string{"whip", "whep"} {
		mux.HandleFunc("OPTIONS /v1/"+kind+"/{room}", h.options("POST, OPTIONS"))
		mux.HandleFunc("OPTIONS /v1/"+kind+"/{room}/{id}", h.options("DELETE, OPTIONS"))
		mux.HandleFunc("DELETE /v1/"+kind+"/{room}/{id}", h.delete)
		mux.HandleFunc("/v1/"+kind+"/{room}", h.notAllowed("POST, OPTIONS"))
		mux.HandleFunc("/v1/"+kind+"/{room}/{id}", h.notAllowed("DELETE, OPTIONS"))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		allowAnyOrigin(w)
		h.fail(w, proto.Errorf(proto.NotFound, "there is nothing at this path"))
	})
	return mux
}

type handler struct {
	stage Stage
	log   *slog.Logger
}

func (h *handler) post(do func(context.Context, Request) (Session, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		allowAnyOrigin(w)
		req, err := read(r)
		if err != nil {
			h.fail(w, err)
			return
		}
		session, err := do(r.Context(), req)
		if on := (*Elsewhere)(nil); errors.As(err, &on) {
			redirect(w, r, on)
			return
		}
		if err != nil {
			h.fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/sdp")
		w.Header().Set("Location", r.URL.Path+"/"+session.ID)
		for _, link := range links(session.ICEServers) {
			w.Header().Add("Link", link)
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, session.Answer)
	}
}

// redirect sends a client on (RFC 9725 section 4.5).
func redirect(w http.ResponseWriter, r *http.Request, on *Elsewhere) {
	query := r.URL.Query()
	query.Set(ticket, on.Ticket)
	w.Header().Set("Location", strings.TrimRight(on.URL, "/")+r.URL.EscapedPath()+"?"+query.Encode())
	w.Header().Set("Cache-Control", "no-store")
	write(w, http.StatusTemporaryRedirect, proto.Errorf(proto.Redirected, "%v", on))
}

// links are the Link headers that name ICE servers (RFC 9725 section 4.6).
func links(servers []*amphiv1.IceServer) []string {
	var list []string
	for _, s := range servers {
		for _, url := range s.GetUrls() {
			link := fmt.Sprintf(`<%s>; rel="ice-server"`, url)
			if s.GetUsername() != "" {
				link += fmt.Sprintf(`; username=%q; credential=%q; credential-type="password"`, s.GetUsername(), s.GetCredential())
			}
			list = append(list, link)
		}
	}
	return list
}

// read checks a request as far as HTTP goes.
func read(r *http.Request) (Request, error) {
	query := r.URL.Query()
	req := Request{Room: r.PathValue("room"), Track: query.Get("track"), Host: r.Host, Region: query.Get("region"), Token: query.Get(ticket)}
	req.Redirected = req.Token != ""
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	switch token = strings.TrimSpace(token); {
	case ok && strings.EqualFold(scheme, "bearer") && token != "":
		req.Token = token // it lives longer than a ticket, which is in the address that the client may use again
	case !req.Redirected:
		return req, proto.Errorf(proto.Unauthenticated, "an app token is needed: Authorization: Bearer")
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/sdp" {
		return req, proto.Errorf(proto.InvalidMessage, "the body has to be application/sdp")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, proto.MaxSDP+1))
	switch {
	case err != nil:
		return req, proto.Errorf(proto.InvalidMessage, "the body could not be read")
	case len(body) > proto.MaxSDP:
		return req, proto.Errorf(proto.SDPTooLarge, "an offer has at most %d bytes", proto.MaxSDP)
	case !strings.HasPrefix(string(body), "v=0"):
		return req, proto.Errorf(proto.SDPInvalid, "the offer is not SDP")
	}
	req.Offer = string(body)
	return req, nil
}

// notAllowed refuses the methods that a resource does not have, PATCH among them: there is no trickle and no ICE
// restart (RFC 9725 section 4.3), and so no ETag.
func (h *handler) notAllowed(allow string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		allowAnyOrigin(w)
		w.Header().Set("Allow", allow)
		write(w, http.StatusMethodNotAllowed, proto.Errorf(proto.InvalidArgument, "this resource takes %s only", allow))
	}
}

func (h *handler) options(allow string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		allowAnyOrigin(w)
		w.Header().Set("Access-Control-Allow-Methods", allow)
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		w.Header().Set("Access-Control-Max-Age", "86400")
		// RFC 9725 section 4.1: what the body of a POST may be.
		w.Header().Set("Accept-Post", "application/sdp")
		w.WriteHeader(http.StatusNoContent)
	}
}

func (h *handler) delete(w http.ResponseWriter, r *http.Request) {
	allowAnyOrigin(w)
	if err := h.stage.End(r.Context(), r.PathValue("id")); err != nil {
		h.fail(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// allowAnyOrigin lets pages of any origin use this: a token authenticates, not a cookie.
func allowAnyOrigin(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Expose-Headers", "Location, Link")
}

func (h *handler) fail(w http.ResponseWriter, err error) {
	code := proto.CodeOf(err)
	if code == proto.Internal {
		h.log.Error("whip request failed", "err", err)
	}
	if code.Retryable() {
		w.Header().Set("Retry-After", "1")
	}
	if code.HTTPStatus() == http.StatusUnauthorized {
		// RFC 6750 section 3.
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	write(w, code.HTTPStatus(), err)
}

func write(w http.ResponseWriter, status int, err error) {
	body, _ := protojson.Marshal(proto.Wire(err))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(append([]byte(`{"error":`), body...), "}\n"...))
}
