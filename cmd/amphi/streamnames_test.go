package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/cluster/registry"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

const (
	// A template has at most namesAtOnce streams; manyNames are those of a room one after the other, more than the registry keeps (a hundred were tried, which takes two minutes).
	namesAtOnce = 4
	manyNames   = 20
)

// shows is a room whose streams are started and stopped by the API of one node.
type shows struct {
	t         *testing.T
	node      *Node   // that is asked
	others    []*Node // of its cluster
	room      string
	rooms     amphiv1connect.RoomServiceClient
	templates amphiv1connect.TemplateServiceClient
	streams   amphiv1connect.StreamServiceClient
	until     func(what string, cond func() bool)
}

func newShows(t *testing.T, node *Node, until func(what string, cond func() bool)) *shows {
	return &shows{t: t, node: node, room: devRoom, until: until,
		rooms:     amphiv1connect.NewRoomServiceClient(http.DefaultClient, node.URL(), manager(t)),
		templates: amphiv1connect.NewTemplateServiceClient(http.DefaultClient, node.URL(), manager(t)),
		streams:   amphiv1connect.NewStreamServiceClient(http.DefaultClient, node.URL(), manager(t)),
	}
}

// play makes the room, if it is not there, starts streams of these names in a new session, and waits until they are made.
func (s *shows) play(ctx context.Context, names ...string) {
	s.t.Helper()
	res, err := s.templates.GetTemplate(ctx, connect.NewRequest(&amphiv1.GetTemplateRequest{Name: "live-event"}))
	if err != nil {
		s.t.Fatal(err)
	}
	template := res.Msg
	template.Streams = nil
	for _, name := range names {
		template.Streams = append(template.Streams, &amphiv1.StreamSettings{
			Name: name, OpenPlayback: true, Roles: []string{"host"}, Width: 320, Height: 180})
	}
	for _, role := range template.GetRoles() {
		if to := role.GetSubscribe(); to.GetStream() != "" {
			to.Stream = names[0]
		}
	}
	set, err := s.templates.SetTemplate(ctx, connect.NewRequest(&amphiv1.SetTemplateRequest{Template: template}))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range s.others { // one of them may own the room, whose session goes by what that one knows
		s.until("every node knows the streams", func() bool {
			known := false
			n.registry.Read(func(r *amphiv1.Registry) {
				known = r.GetTemplates()["live-event"].GetRevision() >= set.Msg.GetRevision()
			})
			return known
		})
	}
	if _, err := s.rooms.GetRoom(ctx, connect.NewRequest(&amphiv1.GetRoomRequest{Room: s.room})); err != nil {
		if _, err := s.rooms.CreateRoom(ctx, connect.NewRequest(&amphiv1.CreateRoomRequest{Name: s.room, Template: "live-event"})); err != nil {
			s.t.Fatal(err)
		}
	}
	// What a program that ends says of itself may have begun a session from the template before.
	s.until("a session with the streams", func() bool {
		join(ctx, s.t, s.node, "host", "Host")
		err := s.start(ctx, names[0])
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			s.t.Fatalf("starting the stream %s: %v", names[0], err)
		}
		if err != nil {
			s.end(ctx)
		}
		return err == nil
	})
	for _, name := range names[1:] {
		if err := s.start(ctx, name); err != nil {
			s.t.Fatalf("starting the stream %s: %v", name, err)
		}
	}
	s.until(fmt.Sprintf("the streams %q are made", names), func() bool {
		list, err := s.streams.ListStreams(ctx, connect.NewRequest(&amphiv1.ListStreamsRequest{Room: s.room}))
		if err != nil {
			return false
		}
		for _, st := range list.Msg.GetStreams() {
			if st.GetState() == amphiv1.StreamState_STREAM_STATE_FAILED {
				s.t.Fatalf("the stream %s: %s", st.GetName(), st.GetFailure())
			}
		}
		for _, name := range names {
			if s.node.mesh != nil && !slices.ContainsFunc(s.all(), func(n *Node) bool { return n.mesh.director.at(s.room, name) != "" }) {
				return false // not known to the registry yet
			}
		}
		return s.made() == len(names)
	})
}

func (s *shows) start(ctx context.Context, name string) error {
	_, err := s.streams.StartStream(ctx, connect.NewRequest(&amphiv1.StartStreamRequest{Room: s.room, Stream: name}))
	return err
}

// made is how many programs all nodes compose.
func (s *shows) made() (n int) {
	for _, node := range s.all() {
		n += len(node.origin.Programs())
	}
	return n
}

func (s *shows) all() []*Node { return append([]*Node{s.node}, s.others...) }

// end ends the room's session.
func (s *shows) end(ctx context.Context) {
	s.t.Helper()
	if _, err := s.rooms.EndRoom(ctx, connect.NewRequest(&amphiv1.EndRoomRequest{Room: s.room})); err != nil {
		s.t.Fatal(err)
	}
	s.until("no stream is made any more", func() bool { return s.made() == 0 })
}

// many starts and stops streams, one name after the other.
func (s *shows) many(ctx context.Context) {
	s.t.Helper()
	for first := 0; first < manyNames; first += namesAtOnce {
		var names []string
		for i := first; i < first+namesAtOnce; i++ {
			names = append(names, fmt.Sprint("show", i))
		}
		s.play(ctx, names...)
		s.end(ctx)
	}
}

// object is the name of a part of a stream of the room, as one node serves it.
func (s *shows) object(stream string) string {
	code, multi := get(s.t, s.node.URL()+"/v1/hls/"+s.room+"/"+stream+"/index.m3u8")
	_, rest, found := strings.Cut(multi, "\n180p/")
	if code != http.StatusOK || !found {
		return ""
	}
	list, _, _ := strings.Cut(rest, "\n")
	code, media := get(s.t, s.node.URL()+"/v1/hls/"+s.room+"/"+stream+"/180p/"+list)
	if code != http.StatusOK {
		return ""
	}
	return newest(media)
}

// again deletes the room while its stream runs, makes it anew, and starts the stream again.
func (s *shows) again(ctx context.Context) {
	s.t.Helper()
	s.play(ctx, "main")
	var before, after string
	s.until("the stream is served", func() bool { before = s.object("main"); return before != "" })
	if _, err := s.rooms.DeleteRoom(ctx, connect.NewRequest(&amphiv1.DeleteRoomRequest{Room: s.room})); err != nil {
		s.t.Fatal(err)
	}
	s.play(ctx, "main")
	was, _, _ := strings.Cut(before, "-")
	s.until("the next stream of the name is served", func() bool {
		after = s.object("main")
		return after != "" && !strings.HasPrefix(after, was+"-")
	})
	now, _, _ := strings.Cut(after, "-")
	if len(now) < len(was) || len(now) == len(was) && now <= was {
		s.t.Errorf("objects are named by epoch %s after %s", now, was)
	}
}

func TestARoomHasManyStreamsOneAfterTheOther(t *testing.T) {
	t.Parallel()
	node := startNodeWith(t, Config{CompositorPath: fakeCompositor(t), CompositorCores: 1000})
	c := &clustered{t: t}
	ctx, cancel := context.WithTimeout(t.Context(), 8*clusterPatience)
	defer cancel()
	s := newShows(t, node, c.until)
	s.many(ctx)
	s.again(ctx)
}

func TestAClustersRoomHasManyStreamsOneAfterTheOther(t *testing.T) {
	t.Parallel()
	fake := fakeCompositor(t)
	c := startClusterWith(t, 3, func(cfg *Config) { cfg.CompositorPath, cfg.CompositorCores = fake, 1000 })
	ctx, cancel := context.WithTimeout(t.Context(), 8*clusterPatience)
	defer cancel()
	s := newShows(t, c.nodes[0].Node, c.until)
	s.others = []*Node{c.nodes[1].Node, c.nodes[2].Node}
	s.many(ctx)
	floor := func() (epoch uint64) {
		c.nodes[1].registry.Read(func(r *amphiv1.Registry) { epoch = r.GetOriginFloor() })
		return epoch
	}
	if n := len(originRecords{c.nodes[0].mesh.cluster}.in(s.room)); n != registry.MaxOrigins || floor() == 0 {
		t.Errorf("%d records of streams, above %d", n, floor())
	}
	// Of what the registry has forgotten no node serves anything.
	for _, n := range c.nodes {
		if code, _ := get(t, n.URL()+"/v1/hls/"+s.room+"/show0/index.m3u8"); code != http.StatusNotFound {
			t.Errorf("node %s: %d", n.cfg.ID, code)
		}
	}
	s.again(ctx)
	if o := c.nodes[0].mesh.streamOrigin(s.room, "main"); o.GetEpoch() <= floor() || floor() < 2 {
		t.Errorf("the stream is at %v, the floor at %d", o, floor())
	}
	jobs := func(n *clusterNode) int {
		n.mesh.desk.mu.Lock()
		defer n.mesh.desk.mu.Unlock()
		return len(n.mesh.desk.jobs)
	}
	c.until("the deleted room's stream is made nowhere", func() bool { return jobs(c.nodes[0])+jobs(c.nodes[1])+jobs(c.nodes[2]) == 1 })
}
