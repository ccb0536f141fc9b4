package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/amphi-sfu/amphi/cluster/gossip"
	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/nodefile"
)

const (
	// expiresSoon is how long before its end a certificate is worth a warning.
	expiresSoon = 30 * day
	seedTimeout = 3 * time.Second
	// slowDisk is how long a flush to disk may take before every decision of the cluster is slow.
	slowDisk = 50 * time.Millisecond
)

// checkup examines what a configuration says, before the node is started or while it runs.
func checkup(ctx context.Context, file string) []finding {
	cfg, err := nodefile.Load(file)
	if err != nil {
		return []finding{{Check: "configuration", Verdict: bad, Found: err.Error(), Advice: "Correct these; deploy/amphi.yaml explains each key."}}
	}
	found := []finding{{Check: "configuration", Verdict: good, Found: fmt.Sprintf("node %s in %s", cfg.Node, cfg.Region)}, checkSynchronised()}
	if cfg.Data != "" {
		found = append(found, checkData(cfg.Data))
	}
	found = append(found, checkListen("tcp", "http", cfg.HTTP),
		checkListen("udp", "media.udp", cmp.Or(cfg.MediaUDP, above(cfg.HTTP, 2))), checkListen("tcp", "media.tcp", cmp.Or(cfg.MediaTCP, above(cfg.HTTP, 1))))
	if cfg.RTMP != "" {
		found = append(found, checkListen("tcp", "rtmp", cfg.RTMP))
	}
	if cfg.TLSCert != "" {
		found = append(found, checkSite(cfg))
	} else if cfg.Cluster != nil {
		found = append(found, finding{Check: "HTTPS", Verdict: warn, Found: "off",
			Advice: "Browsers need it for cameras and microphones: set tls, or put a proxy with TLS in front and give its address as url."})
	}
	if cfg.Cluster == nil {
		return found
	}
	c := cfg.Cluster
	found = append(found, checkCertificate(cfg), checkGossipKeys(c.GossipKeys), checkSecret("node's key", c.Key), checkAdvertise(cfg),
		checkListen("tcp", "cluster.listen", c.Listen), checkListen("tcp", "cluster.gossip", c.Gossip),
		checkListen("udp", "cluster.gossip", c.Gossip), checkListen("udp", "cluster.trunk", c.Trunk))
	if c.BootstrapExpect > 0 && c.BootstrapExpect%2 == 0 {
		found = append(found, finding{Check: "bootstrap_expect", Verdict: warn, Found: fmt.Sprintf("%d voters", c.BootstrapExpect),
			Advice: "An even number of voters survives no more losses than one less: have 3 or 5."})
	}
	return append(found, checkSeeds(ctx, c.Seeds)...)
}

// above is the address whose port lies so far above another one's, as the node has its media ports.
func above(address string, offset int) string {
	host, port, err := net.SplitHostPort(address)
	n, bad := strconv.Atoi(port)
	if err != nil || bad != nil || n == 0 {
		return address
	}
	return net.JoinHostPort(host, strconv.Itoa(n+offset))
}

// checkSite judges the certificate for HTTPS, without which the node does not start.
func checkSite(cfg nodefile.Config) finding {
	f := finding{Check: "HTTPS certificate", Verdict: bad, Advice: "Give files that this user may read in tls: the chain, the site's own certificate first, and its key."}
	pair, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
	if err != nil {
		f.Found = err.Error()
		return f
	}
	f.Verdict, f.Found, f.Advice = good, "valid until "+pair.Leaf.NotAfter.UTC().Format(time.DateOnly), "Renew it; the node takes new files without a restart."
	if time.Until(pair.Leaf.NotAfter) < expiresSoon {
		f.Verdict = warn
	}
	if u, err := url.Parse(cfg.URL); err == nil && u.Hostname() != "" && pair.Leaf.VerifyHostname(u.Hostname()) != nil {
		f.Verdict, f.Found = warn, "it is not for "+u.Hostname()+", which clients are told"
		f.Advice = "Give one for the host in url, or let url be what the certificate is for."
	}
	return f
}

func checkCertificate(cfg nodefile.Config) finding {
	f := finding{Check: "certificate", Verdict: bad, Advice: fmt.Sprintf("Make one with amphi ca issue --node %s, and copy it with ca.pem to this machine.", cfg.Node)}
	i, err := identity.Load(identity.Config{Node: cfg.Node, Files: identity.Files{CA: cfg.Cluster.CA, Cert: cfg.Cluster.Cert, Key: cfg.Cluster.Key}})
	if err != nil {
		f.Found = err.Error()
		return f
	}
	f.Verdict, f.Found = good, "valid until "+i.Expires().UTC().Format(time.DateOnly)
	if time.Until(i.Expires()) < expiresSoon {
		f.Verdict = warn
	}
	return f
}

func checkGossipKeys(file string) finding {
	f := checkSecret("gossip keys", file)
	if f.Verdict == bad {
		f.Advice = "Make one with amphi keys new --gossip, and copy it to all nodes."
		return f
	}
	keys, err := gossip.LoadKeys(file)
	if err != nil {
		f.Verdict, f.Found = bad, err.Error()
	} else if f.Verdict == good {
		f.Found = fmt.Sprintf("%d", len(keys))
	}
	return f
}

// checkSecret judges who may read a file.
func checkSecret(name, file string) finding {
	f := finding{Check: name, Verdict: good, Found: file}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		f.Verdict, f.Found = bad, err.Error()
	case info.Mode().Perm()&0o007 != 0:
		f.Verdict, f.Found = warn, fmt.Sprintf("%s can be read by everybody on this machine", file)
		f.Advice = "chmod o= " + file
	}
	return f
}

// checkAdvertise looks whether this machine has the address that the others are told.
func checkAdvertise(cfg nodefile.Config) finding {
	f := finding{Check: "advertise", Verdict: good, Found: cfg.Advertise.String()}
	// Only an address of this machine can be bound.
	if socket, err := net.ListenPacket("udp", netip.AddrPortFrom(cfg.Advertise, 0).String()); err == nil {
		_ = socket.Close()
		return f
	}
	f.Verdict, f.Found = warn, fmt.Sprintf("%s is no address of this machine", cfg.Advertise)
	f.Advice = "That is right behind address translation only; all ports must then be forwarded unchanged."
	return f
}

// checkListen tries to open a port. A node that runs has it open.
func checkListen(network, key, address string) finding {
	f := finding{Check: key + " " + network, Verdict: good, Found: address + " is free"}
	var err error
	if network == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket(network, address); err == nil {
			_ = c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen(network, address); err == nil {
			_ = l.Close()
		}
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		f.Found = address + " is in use"
		f.Verdict, f.Advice = warn, "That is right when the node runs. Otherwise see who has it: ss -lnptu"
	case err != nil:
		f.Verdict, f.Found, f.Advice = bad, err.Error(), "Use an address of this machine, and a port that this user may open."
	}
	return f
}

// checkData writes, flushes and removes a small file, as the records do.
func checkData(dir string) finding {
	f := finding{Check: "data directory", Verdict: bad, Advice: "Make it, owned by the user that the node runs as: " + dir}
	name := filepath.Join(dir, ".doctor")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		f.Verdict, f.Found, f.Advice = warn, dir+" is not there yet", "The node makes it when it may."
		return f
	}
	if err != nil {
		f.Found = err.Error()
		return f
	}
	began := time.Now()
	_, err = file.Write(make([]byte, 4096))
	err = errors.Join(err, file.Sync(), file.Close(), os.Remove(name))
	took := time.Since(began)
	if err != nil {
		f.Found = err.Error()
		return f
	}
	f.Verdict, f.Found = good, fmt.Sprintf("flushes in %v", took.Round(10*time.Microsecond))
	if took > slowDisk {
		f.Verdict, f.Advice = warn, "Every decision of the cluster waits for the disks of most voters: use a faster one."
	}
	return f
}

// checkSynchronised asks the kernel whether something keeps the clock right.
func checkSynchronised() finding {
	f := finding{Check: "clock synchronised", Verdict: good, Found: "yes"}
	state, err := unix.Adjtimex(&unix.Timex{})
	switch {
	case err != nil:
		f.Verdict, f.Found = warn, err.Error()
	case state == unix.TIME_ERROR:
		f.Verdict, f.Found = warn, "no"
		f.Advice = "Run systemd-timesyncd or chrony: certificates and tokens go by the clock, and latency figures are wrong without it."
	}
	return f
}

// checkSeeds calls the seeds, all at once.
func checkSeeds(ctx context.Context, seeds []string) []finding {
	found := make([]finding, len(seeds))
	var wg sync.WaitGroup
	for i, seed := range seeds {
		wg.Go(func() {
			f := finding{Check: "seed " + seed, Verdict: good, Found: "answers"}
			ctx, cancel := context.WithTimeout(ctx, seedTimeout)
			defer cancel()
			began := time.Now()
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", seed)
			if err != nil {
				f.Verdict, f.Found = warn, err.Error()
				f.Advice = "Let TCP and UDP of this port pass between all nodes. A seed that is not started yet is no fault."
			} else {
				f.Found = fmt.Sprintf("answers after %v", time.Since(began).Round(10*time.Microsecond))
				_ = conn.Close()
			}
			found[i] = f
		})
	}
	wg.Wait()
	return found
}
