package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Verdicts of a check.
const (
	good = "ok"
	warn = "warning"
	bad  = "failed"
)

// finding is what one check found.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Found   string `json:"found"`
	Advice  string `json:"advice,omitempty"`
}

func doctorCommand() *cobra.Command {
	a := &app{}
	var config string
	cmd := a.flags(&cobra.Command{
		Use: "doctor", Short: "Check this machine and the node: configuration, certificates, ports, UDP buffers, clock, compositor", Args: exactly(0),
		Long: "Checks this machine and the node at --url. With --config it checks what a node needs before it is started:\n" +
			"the file, certificates and keys, ports, disk, clock and whether the seeds answer.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var findings []finding
			if config != "" {
				findings = append(checkup(cmd.Context(), config), machine()...)
			} else {
				findings = a.examine(cmd.Context())
			}
			err := a.printValue(cmd, findings, func(w io.Writer) {
				for _, f := range findings {
					row(w, f.Verdict, f.Check, f.Found)
				}
				for _, f := range findings {
					if f.Verdict != good && f.Advice != "" {
						fmt.Fprintf(w, "\n%s: %s\n", f.Check, f.Advice)
					}
				}
			})
			if err != nil {
				return err
			}
			for _, f := range findings {
				if f.Verdict == bad {
					return &problem{err: fmt.Errorf("doctor: %s: %s", f.Check, f.Found), exit: exitFailed}
				}
			}
			return nil
		},
	})
	cmd.Flags().StringVar(&config, "config", "", "the configuration of a node to check, as of amphi serve")
	return cmd
}

// machine checks what every node needs of a machine.
func machine() []finding {
	return []finding{
		checkBuffer("/proc/sys/net/core/rmem_max", "UDP receive buffer"),
		checkBuffer("/proc/sys/net/core/wmem_max", "UDP send buffer"),
		checkFiles(), checkCompositor(),
	}
}

func (a *app) examine(ctx context.Context) []finding {
	node, clock := a.checkNode(ctx)
	findings := []finding{node}
	if clock != nil {
		findings = append(findings, *clock)
	}
	if node.Verdict == bad {
		// No node to ask: see whether one could start here.
		for _, p := range ports[:5] {
			findings = append(findings, checkPort(p))
		}
	}
	return append(findings, machine()...)
}

// checkNode asks the node whether it is ready, and compares its clock with this machine's.
func (a *app) checkNode(ctx context.Context) (node finding, clock *finding) {
	node = finding{Check: "node", Verdict: bad, Advice: "Start one with amphi dev, or give its address with --url."}
	ctx, cancel := context.WithTimeout(ctx, min(a.timeout, 5*time.Second))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(a.url, "/")+"/readyz", nil)
	if err != nil {
		node.Found = err.Error()
		return node, nil
	}
	sent := time.Now()
	res, err := a.httpClient().Do(req)
	if err != nil {
		node.Found = fmt.Sprintf("%s can't be reached: %v", a.url, err)
		return node, nil
	}
	_ = res.Body.Close()
	node.Found = fmt.Sprintf("%s answers %s after %v", a.url, res.Status, time.Since(sent).Round(time.Millisecond))
	node.Verdict = good
	if res.StatusCode != http.StatusOK {
		node.Verdict, node.Advice = bad, "The node runs but takes no clients; its log says why."
	}
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		clock = checkClock(time.Since(date))
	}
	return node, clock
}

// checkClock judges a difference that the Date header gives to the second. Tokens allow for 30 s.
func checkClock(off time.Duration) *finding {
	f := &finding{Check: "clock", Verdict: good, Found: "within 2 s of the node's"}
	if off = off.Abs(); off > 2*time.Second {
		f.Found = fmt.Sprintf("%v away from the node's", off.Round(time.Second))
		f.Verdict = warn
		f.Advice = "Synchronise the clocks, for instance with systemd-timesyncd: tokens are refused beyond 30 s, and latency figures are wrong."
		if off > 30*time.Second {
			f.Verdict = bad
		}
	}
	return f
}

func checkPort(p port) finding {
	f := finding{
		Check: fmt.Sprintf("port %d/%s", p.Port, p.Protocol), Verdict: good, Found: "free",
		Advice: "Stop what uses it, or start the node on another with --http or --turn-port; see who with: ss -lnptu",
	}
	addr := ":" + strconv.Itoa(p.Port)
	for protocol := range strings.SplitSeq(p.Protocol, "+") {
		var c io.Closer
		var err error
		if protocol == "udp" {
			c, err = net.ListenPacket("udp", addr)
		} else {
			c, err = net.Listen("tcp", addr)
		}
		if err != nil {
			f.Verdict, f.Found = warn, err.Error()
			return f
		}
		_ = c.Close()
	}
	return f
}

// wantBuffer holds about 50 ms of 800 Mbit/s.
const wantBuffer = 5 << 20

func checkBuffer(file, name string) finding {
	key := strings.ReplaceAll(strings.TrimPrefix(file, "/proc/sys/"), "/", ".")
	f := finding{Check: name, Verdict: good}
	data, err := os.ReadFile(file)
	if err != nil {
		f.Verdict, f.Found = warn, "can't be read: "+err.Error()
		return f
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		f.Verdict, f.Found = warn, fmt.Sprintf("%s holds %q", file, data)
		return f
	}
	f.Found = fmt.Sprintf("at most %d KiB", n>>10)
	if n < wantBuffer {
		f.Verdict = warn
		f.Advice = fmt.Sprintf("Bursts may be lost. As root: sysctl -w %s=%d, and the same in /etc/sysctl.d to keep it.", key, wantBuffer)
	}
	return f
}

func checkFiles() finding {
	const want = 65_536
	f := finding{Check: "open files", Verdict: good}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		f.Verdict, f.Found = warn, err.Error()
		return f
	}
	f.Found = fmt.Sprintf("at most %d", lim.Max)
	if lim.Max < want {
		f.Verdict = warn
		f.Advice = fmt.Sprintf("Each client needs one. Raise it to %d: LimitNOFILE= in the systemd unit, or ulimit -Hn.", want)
	}
	return f
}

// checkCompositor looks where the node looks: beside its own binary, then in PATH.
func checkCompositor() finding {
	f := finding{Check: "compositor", Verdict: good, Advice: "Streams can't start without it. Build it with make build, or install the package."}
	const name = "amphi-compositor"
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(beside); err == nil && info.Mode()&0o111 != 0 {
			f.Found = beside
			return f
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		f.Verdict, f.Found = warn, name+" is neither beside this program nor in PATH"
		return f
	}
	f.Found = path
	return f
}
