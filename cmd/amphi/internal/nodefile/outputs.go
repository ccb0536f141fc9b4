package nodefile

import (
	"net/url"
	"slices"
	"strings"

	"github.com/amphi-sfu/amphi/signal/webhook"
)

// outputs is where recordings go, and who is told what happens.
func (r *reader) outputs(s *section, c *Config) {
	recordings := s.sub("recordings")
	c.Recordings = r.path(recordings.text("dir", ""))
	bucket := recordings.sub("s3")
	if recordings.has("s3") {
		c.Bucket = &Bucket{
			Endpoint: bucket.required("endpoint", "the store's address, such as https://s3.eu-west-1.amazonaws.com"),
			Name:     bucket.required("bucket", "the bucket's name"),
			Region:   bucket.text("region", ""), Prefix: bucket.text("prefix", ""),
			AccessKey: bucket.required("access_key", "what the store knows this node by"), SecretKey: bucket.required("secret_key", "what belongs to access_key"),
			PathStyle: bucket.flag("path_style"),
		}
		r.httpURL(bucket, "endpoint", c.Bucket.Endpoint)
	}
	bucket.end()
	recordings.end()
	hooks := s.subs("webhooks")
	if len(hooks) > webhook.MaxTargets {
		s.bad("webhooks", "there are %d; at most %d are possible", len(hooks), webhook.MaxTargets)
	}
	for _, h := range hooks {
		hook := Webhook{URL: h.required("url", "the address to tell"), Secrets: h.texts("secrets"), Events: h.texts("events")}
		if len(hook.Secrets) == 0 {
			h.bad("secrets", "it is missing: one secret, two while they are exchanged; amphi keys new makes one")
		}
		if len(hook.Secrets) > 2 {
			h.bad("secrets", "there are %d; two are enough to exchange them", len(hook.Secrets))
		}
		for _, secret := range hook.Secrets {
			if _, err := webhook.ParseSecret(secret); err != nil {
				h.bad("secrets", "%v", err)
			}
		}
		for _, e := range hook.Events {
			if !happens(e) {
				h.bad("events", "%.80q never happens; there are %s, and beginnings such as peer.*", e, strings.Join(eventTypes, ", "))
			}
		}
		r.httpURL(h, "url", hook.URL)
		h.end()
		c.Webhooks = append(c.Webhooks, hook)
	}
}

// eventTypes are those of PROTOCOL.md section 5.
var eventTypes = []string{
	"session.started", "session.ended", "peer.joined", "peer.left", "peer.role_changed",
	"stream.started", "stream.live", "stream.stopped", "stream.failed",
	"recording.started", "recording.paused", "recording.resumed", "recording.retrying", "recording.stopped", "recording.failed",
	"push.starting", "push.live", "push.retrying", "push.stopped", "push.failed",
	"asset.ready", "asset.failed", "storage.ok", "storage.away", "storage.full", "storage.denied",
}

// happens tells whether there are events of a type, or of a beginning with a star.
func happens(e string) bool {
	beginning, some := strings.CutSuffix(e, "*")
	return slices.ContainsFunc(eventTypes, func(t string) bool { return t == e || some && strings.HasPrefix(t, beginning) })
}

func (r *reader) httpURL(s *section, key, text string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		s.bad(key, "it is not an http or https address")
	}
}
