package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/cluster/identity"
)

const day = 24 * time.Hour

func caCommand() *cobra.Command {
	a := &app{}
	return group("ca", "The cluster's certificates: init, issue", a, caInit(a), caIssue(a))
}

func caInit(a *app) *cobra.Command {
	var dir, name string
	var days int
	cmd := &cobra.Command{
		Use: "init", Short: "Make the authority that signs the nodes' certificates", Args: exactly(0),
		Long: "Makes the authority of a cluster, once: ca.pem, which every node gets, and ca.key, which no node gets.\n" +
			"Keep the directory where you issue certificates, and a copy of it. Existing files are never overwritten.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			life, err := lifeOf(days)
			if err != nil {
				return err
			}
			authority, err := identity.New(name, life)
			if err != nil {
				return err
			}
			if err := authority.Save(dir); err != nil {
				return err
			}
			return a.files(cmd, authority.Expires(), filepath.Join(dir, identity.CAFile), filepath.Join(dir, identity.CAKeyFile))
		},
	}
	cmd.Flags().StringVar(&dir, "out", "ca", "directory for ca.pem and ca.key")
	cmd.Flags().StringVar(&name, "name", "amphi", "the cluster's name, for people who read the certificate")
	cmd.Flags().IntVar(&days, "days", int(identity.AuthorityLife/day), "how long the authority is valid")
	return cmd
}

func caIssue(a *app) *cobra.Command {
	var dir, node, out string
	var days int
	cmd := &cobra.Command{
		Use: "issue", Short: "Make a certificate and a key for a node", Args: exactly(0),
		Long: "Makes NODE.pem and NODE.key, which belong on this node only. Issuing them again replaces them; a running\n" +
			"node takes new files within a second or two, without a restart.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if node == "" {
				return usage(errors.New("--node is missing: the id of the node, as in its configuration"))
			}
			if !identity.ValidNode(node) {
				return usage(fmt.Errorf("--node %q: want 1 to %d of a-z, A-Z, 0-9, \".\", \"-\", \"_\"", node, identity.MaxNode))
			}
			life, err := lifeOf(days)
			if err != nil {
				return err
			}
			authority, err := identity.LoadAuthority(dir)
			if errors.Is(err, fs.ErrNotExist) {
				return &problem{err: err, advice: "Make the authority with amphi ca init --out " + dir + ", or say where it is with --ca.", exit: exitFailed}
			}
			if err != nil {
				return err
			}
			cert, key, err := authority.Issue(node, life)
			if err != nil {
				return err
			}
			certFile, keyFile := filepath.Join(out, node+".pem"), filepath.Join(out, node+".key")
			if err := writeIssued(out, certFile, cert, keyFile, key); err != nil {
				return err
			}
			expires := time.Now().Add(life)
			if expires.After(authority.Expires()) {
				expires = authority.Expires()
			}
			return a.files(cmd, expires, certFile, keyFile)
		},
	}
	cmd.Flags().StringVar(&dir, "ca", "ca", "directory of the authority")
	cmd.Flags().StringVar(&node, "node", "", "id of the node")
	cmd.Flags().StringVar(&out, "out", ".", "directory for the two files")
	cmd.Flags().IntVar(&days, "days", int(identity.NodeLife/day), "how long the certificate is valid")
	return cmd
}

func lifeOf(days int) (time.Duration, error) {
	const most = 100 * 365
	if days < 1 || days > most {
		return 0, usage(fmt.Errorf("--days %d is not from 1 to %d", days, most))
	}
	return time.Duration(days) * day, nil
}

// writeIssued puts both files in place whole: a running node may be reading them.
func writeIssued(dir, certFile string, cert []byte, keyFile string, key []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{{keyFile, key, 0o600}, {certFile, cert, 0o644}} {
		if err := os.WriteFile(f.name+".new", f.data, f.mode); err != nil {
			return fmt.Errorf("writing a certificate: %w", err)
		}
		if err := os.Rename(f.name+".new", f.name); err != nil {
			return fmt.Errorf("writing a certificate: %w", err)
		}
	}
	return nil
}

// files tells what was written.
func (a *app) files(cmd *cobra.Command, expires time.Time, cert, key string) error {
	value := struct {
		Certificate string `json:"certificate"`
		Key         string `json:"key"`
		ExpiresMs   int64  `json:"expires_ms"`
	}{cert, key, expires.UnixMilli()}
	return a.printValue(cmd, value, func(w io.Writer) {
		row(w, "certificate", cert)
		row(w, "key", key)
		row(w, "expires", when(value.ExpiresMs))
	})
}
