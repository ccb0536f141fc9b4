// Package nodefile reads the YAML file that configures a node, and says by line and key what is wrong with it.
package nodefile

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/cluster/identity"
)

// Roles of a node.
const (
	RoleStage    = "stage"
	RoleAudience = "audience"
	RoleOrigin   = "origin"
	RoleVoter    = "voter"
)

// Ports of a cluster, where the file says nothing else.
const (
	defaultHTTP    = ":7880"
	defaultMetrics = "127.0.0.1:6789"
	defaultGossip  = ":7946"
	defaultListen  = ":7947"
	defaultTrunk   = ":7948"
	defaultTURN    = 3478
	defaultTURNTLS = 5349
	defaultDrain   = time.Minute
	defaultRegion  = "local"
)

const (
	maxFile = 1 << 20
	maxName = 64
	// minSecret is the shortest secret that is worth the name, in bytes.
	minSecret = 16
)

// Config is what the file says, with defaults filled in and paths made absolute.
type Config struct {
	// File is the file itself.
	File string
	// Node is this node's id, Region and Zone where it stands: zone is the failure domain within the region.
	Node, Region, Zone string
	Roles              []string
	// Data is the directory of all that must outlive a restart; empty only without a cluster: in memory.
	Data string
	// HTTP is HOST:PORT. URL is how clients reach it; empty only without a cluster.
	HTTP, URL string
	// Advertise is the address that other nodes are told; the zero Addr only without a cluster.
	Advertise netip.Addr
	// PublicIPs are told to clients for media; empty: Advertise, or those of this machine.
	PublicIPs []netip.Addr
	// Metrics is HOST:PORT of metrics and pprof; empty: nowhere.
	Metrics string
	// MediaUDP and MediaTCP are HOST:PORT; empty: beside HTTP.
	MediaUDP, MediaTCP string
	// RTMP is HOST:PORT at which encoders publish; empty: nowhere.
	RTMP string
	// TURNPort and TURNTLSPort; 0: none.
	TURNPort, TURNTLSPort uint16
	// CompositorCores is the CPU for live streams; 0: as many cores as the machine has.
	CompositorCores float64
	// TLSCert and TLSKey are files of a certificate for HTTPS; both empty: plain HTTP.
	TLSCert, TLSKey string
	// Drain is how long the node takes at most to move everything away when it is told to end.
	Drain time.Duration
	// Keys are API keys that the cluster shall have.
	Keys []Key
	// Recordings is the directory of recordings; empty: below Data. Bucket keeps them instead of it; nil: none does.
	Recordings string
	Bucket     *Bucket
	// Webhooks are told what happens.
	Webhooks []Webhook
	// Cluster is nil for a node that is alone.
	Cluster *Cluster
}

// Bucket is one of an S3-compatible object store.
type Bucket struct {
	Endpoint, Region, Name, Prefix string
	AccessKey, SecretKey           string
	// PathStyle puts the bucket's name into the path.
	PathStyle bool
}

// Webhook is who is told what happens.
type Webhook struct {
	URL     string
	Secrets []string
	// Events are types or beginnings such as "peer.*"; empty: all.
	Events []string
}

// Key is an API key.
type Key struct{ ID, Secret string }

// Cluster is what makes a node one of several.
type Cluster struct {
	Name string
	// CA, Cert, Key and GossipKeys are files.
	CA, Cert, Key, GossipKeys string
	// Gossip, Listen and Trunk are HOST:PORT.
	Gossip, Listen, Trunk string
	Seeds                 []string
	// BootstrapExpect is the number of voters of the first election; 0: this node never begins a cluster.
	BootstrapExpect int
	// Allow are the networks that gossip may come from; empty: all.
	Allow []netip.Prefix
}

// Has tells whether the node has a role.
func (c Config) Has(role string) bool { return slices.Contains(c.Roles, role) }

// Load reads a file. The error lists all faults, each with its line.
func Load(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	if info.Size() > maxFile {
		return Config{}, fmt.Errorf("reading the configuration: %s is larger than %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(absolute, data)
}

// Parse reads the contents of the file at path, an absolute one, from which relative paths in it begin.
func Parse(path string, data []byte) (Config, error) {
	f := &faults{file: filepath.Base(path)}
	root, err := parse(f, data)
	if err != nil {
		return Config{}, err
	}
	r := &reader{dir: filepath.Dir(path)}
	s := newSection(f, "", root, 1)
	c := r.node(s)
	c.File = path
	s.end()
	return c, f.err()
}

// reader turns sections into a Config.
type reader struct{ dir string }

func (r *reader) node(s *section) Config {
	clustered := s.has("cluster")
	c := Config{
		Node:    s.required("node", "this node's id, such as ams-1"),
		Region:  s.text("region", ""),
		Roles:   s.texts("roles"),
		Data:    r.path(s.text("data", "")),
		HTTP:    r.address(s, "http", defaultHTTP, false),
		URL:     s.text("url", ""),
		Metrics: r.address(s, "metrics", defaultMetrics, true),
	}
	c.Zone = s.text("zone", c.Node)
	if c.Node != "" && !identity.ValidNode(c.Node) {
		s.bad("node", "%.80q is not an id: want 1 to %d of a-z, A-Z, 0-9, \".\", \"-\", \"_\"", c.Node, identity.MaxNode)
	}
	if c.Region == "" && !clustered {
		c.Region = defaultRegion
	}
	for key, value := range map[string]string{"region": c.Region, "zone": s.text("zone", "")} {
		if len(value) > maxName || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }) {
			s.bad(key, "%.80q: want up to %d characters of ASCII without spaces", value, maxName)
		}
	}
	r.roles(s, &c, clustered)
	r.reach(s, &c)
	r.ports(s, &c)
	c.Keys = r.keys(s)
	r.outputs(s, &c)
	if cluster := s.sub("cluster"); clustered {
		c.Cluster = r.cluster(cluster)
		cluster.end()
		r.needsOfCluster(s, c)
	}
	return c
}

// needsOfCluster are the keys that a node needs only among others.
func (r *reader) needsOfCluster(s *section, c Config) {
	for key, advice := range map[string]string{
		"region": "where the node stands, such as eu-west",
		"data":   "a directory for what must outlive a restart, such as /var/lib/amphi",
		"url":    "how clients reach this node, such as https://ams-1.example.org:7880",
	} {
		if s.text(key, "") == "" {
			s.bad(key, "it is missing: %s", advice)
		}
	}
	if !c.Advertise.IsValid() && !s.has("advertise") {
		s.bad("advertise", "it is missing: the address at which the other nodes reach this one")
	}
	if c.Cluster.BootstrapExpect > 0 && !c.Has(RoleVoter) {
		s.bad("roles", "bootstrap_expect is for voters: add voter, or set it to 0")
	}
}

func (r *reader) roles(s *section, c *Config, clustered bool) {
	if len(c.Roles) == 0 {
		if clustered {
			s.bad("roles", "it is missing: some of stage, audience, origin, voter")
		}
		c.Roles = []string{RoleStage, RoleOrigin}
		return
	}
	seen := map[string]bool{}
	for _, role := range c.Roles {
		switch role {
		case RoleStage, RoleAudience, RoleOrigin, RoleVoter:
		default:
			s.bad("roles", "%.80q is not one of stage, audience, origin, voter", role)
		}
		if seen[role] {
			s.bad("roles", "%s is there twice", role)
		}
		seen[role] = true
	}
}

// reach is how others find the node.
func (r *reader) reach(s *section, c *Config) {
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || len(c.URL) > 256 {
			s.bad("url", "%.80q is not like https://ams-1.example.org:7880", c.URL)
		}
		c.URL = strings.TrimSuffix(c.URL, "/")
	}
	if text := s.text("advertise", ""); text != "" {
		c.Advertise = r.ip(s, "advertise", text)
	}
	for _, text := range s.texts("public_ips") {
		if ip := r.ip(s, "public_ips", text); ip.IsValid() {
			c.PublicIPs = append(c.PublicIPs, ip)
		}
	}
}

func (r *reader) ip(s *section, key, text string) netip.Addr {
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.IsUnspecified() || ip.IsMulticast() {
		s.bad(key, "%.80q is not an address at which a machine can be reached, such as 10.0.0.1", text)
		return netip.Addr{}
	}
	return ip.Unmap()
}

func (r *reader) ports(s *section, c *Config) {
	media := s.sub("media")
	c.MediaUDP, c.MediaTCP = r.address(media, "udp", "", true), r.address(media, "tcp", "", true)
	media.end()
	c.RTMP = r.address(s, "rtmp", "", true)
	c.CompositorCores = s.decimal("compositor_cores", 0.1, 1024, 0)
	turn := s.sub("turn")
	c.TURNPort = uint16(turn.number("port", 0, 65535, defaultTURN))
	c.TURNTLSPort = uint16(turn.number("tls_port", 0, 65535, defaultTURNTLS))
	turn.end()
	tls := s.sub("tls")
	c.TLSCert, c.TLSKey = r.path(tls.text("cert", "")), r.path(tls.text("key", ""))
	if (c.TLSCert == "") != (c.TLSKey == "") {
		tls.bad("cert", "HTTPS needs both tls.cert and tls.key")
	}
	tls.end()
	c.Drain = defaultDrain
	if text := s.text("drain", ""); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second || d > 24*time.Hour {
			s.bad("drain", "%.80q is not a time from 1s to 24h, such as 60s", text)
		} else {
			c.Drain = d
		}
	}
}

func (r *reader) keys(s *section) []Key {
	var keys []Key
	seen := map[string]bool{}
	for _, k := range s.subs("keys") {
		key := Key{ID: k.required("id", "amphi keys new makes one"), Secret: k.required("secret", "amphi keys new makes one")}
		k.end()
		if key.Secret != "" && len(key.Secret) < minSecret {
			k.bad("secret", "it is shorter than %d characters; amphi keys new makes one", minSecret)
		}
		if seen[key.ID] {
			k.bad("id", "there are two keys of this id")
		}
		seen[key.ID] = true
		keys = append(keys, key)
	}
	return keys
}

func (r *reader) cluster(s *section) *Cluster {
	const issue = "a file that amphi ca issue made"
	c := &Cluster{
		Name:            s.required("name", "the cluster's name, the same on all its nodes"),
		CA:              r.path(s.required("ca", "ca.pem, which amphi ca init made")),
		Cert:            r.path(s.required("cert", issue)),
		Key:             r.path(s.required("key", issue)),
		GossipKeys:      r.path(s.required("gossip_key_file", "a file with a key in it, from amphi keys new --gossip")),
		Gossip:          r.address(s, "gossip", defaultGossip, false),
		Listen:          r.address(s, "listen", defaultListen, false),
		Trunk:           r.address(s, "trunk", defaultTrunk, false),
		Seeds:           s.texts("seeds"),
		BootstrapExpect: s.number("bootstrap_expect", 0, 9, 0),
	}
	if len(c.Name) > maxName {
		s.bad("name", "it is longer than %d bytes", maxName)
	}
	for _, seed := range c.Seeds {
		if !hostPort(seed) {
			s.bad("seeds", "%.80q is not HOST:PORT, such as 10.0.0.2:7946", seed)
		}
	}
	for _, text := range s.texts("allow") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			s.bad("allow", "%.80q is not a network, such as 10.0.0.0/8", text)
			continue
		}
		c.Allow = append(c.Allow, prefix.Masked())
	}
	return c
}

// path is absolute: relative ones begin where the file is.
func (r *reader) path(text string) string {
	if text == "" || filepath.IsAbs(text) {
		return text
	}
	return filepath.Join(r.dir, text)
}

// address is HOST:PORT to listen on, or :PORT; empty where that is allowed.
func (r *reader) address(s *section, key, fallback string, mayBeEmpty bool) string {
	text := s.text(key, fallback)
	if text == "" && mayBeEmpty {
		return ""
	}
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		s.bad(key, "%.80q is not HOST:PORT or :PORT", text)
	}
	return text
}

// hostPort tells whether text is an address to call.
func hostPort(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
