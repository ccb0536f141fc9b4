package load

import (
	"context"
	"fmt"
	"net/url"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/player"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// watcher is one peer that plays the stream.
type watcher struct {
	result *player.Result // set when it has ended
}

// watch joins with the role that watches and plays until ctx ends.
func (r *run) watch(ctx context.Context, i int, ready func()) {
	who := fmt.Sprintf("HLS player %d", i)
	if r.cfg.Crowd {
		ready()
		r.played(who, r.crowd.Play(ctx, player.Config{URL: r.stream, Client: r.http}, r.counting.Load))
		return
	}
	token, err := r.cfg.Token(r.cfg.Roles.Watch, fmt.Sprintf("load-player-%d", i))
	if err != nil {
		r.fail(who, err)
		return
	}
	joining, cancel := context.WithTimeout(ctx, joinTimeout)
	c, err := client.Dial(joining, client.Config{
		URL: r.cfg.URL, Token: token, Agent: "amphi-load", OnMessage: r.chat.receive,
		Join: &amphiv1.Join{Name: fmt.Sprintf("Player %d", i)},
	})
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.fail(who, err)
		}
		return
	}
	defer leave(c)
	r.chat.add(c)
	ready()
	r.played(who, player.Play(ctx, player.Config{URL: r.stream, Client: r.http}))
}

// played keeps what a player measured.
func (r *run) played(who string, res *player.Result) {
	r.mu.Lock()
	r.watchers = append(r.watchers, &watcher{result: res})
	r.mu.Unlock()
	if res.LastError != nil && !res.Started {
		r.fail(who, res.LastError)
	}
}

// edgeStatus is how the node that is played from serves other nodes' streams; nil: not known.
func (r *run) edgeStatus(ctx context.Context) *amphiv1.EdgeStatus {
	if r.cfg.EdgeStatus == nil || r.cfg.Players == 0 {
		return nil
	}
	s, err := r.cfg.EdgeStatus(ctx)
	if err != nil {
		r.fail("the edge's status", err)
	}
	return s
}

// streamURL finds a stream's path on the node.
func streamURL(node, path string) (string, error) {
	base, err := url.Parse(node)
	if err != nil {
		return "", fmt.Errorf("parsing the node's URL: %w", err)
	}
	u, err := base.Parse(path)
	if err != nil {
		return "", fmt.Errorf("parsing the stream's URL: %w", err)
	}
	return u.String(), nil
}
