package cli

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/cluster/gossip"
	"github.com/amphi-sfu/amphi/proto"
)

// apiKey is a new key; the server gets id and secret or public_key.
type apiKey struct {
	ID         string `json:"id"`
	Secret     string `json:"secret,omitempty"`
	PublicKey  string `json:"public_key,omitempty"`
	PrivateKey string `json:"private_key,omitempty"`
	// GossipKey has nothing to do with the others: a new cluster needs one as well.
	GossipKey string `json:"gossip_key,omitempty"`
}

func keysCommand() *cobra.Command {
	a := &app{}
	var kind string
	var gossipOnly bool
	fresh := &cobra.Command{
		Use: "new", Short: "Make an API key and a gossip key", Args: exactly(0),
		Long: "Makes an API key and a key for gossip between nodes, and prints them; nothing is stored or sent. With --type\n" +
			"eddsa or es256 it makes a key pair: the server gets the public half only. With --gossip it prints a line for\n" +
			"the gossip key file, and nothing else.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if gossipOnly {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), gossip.NewKey())
				return err
			}
			k, err := newKey(kind)
			if err != nil {
				return err
			}
			return a.printValue(cmd, k, func(w io.Writer) {
				row(w, "id", k.ID)
				if k.Secret != "" {
					row(w, "secret", k.Secret)
					row(w, "gossip key", k.GossipKey)
					return
				}
				fmt.Fprint(w, "\n", k.PublicKey, "\n", k.PrivateKey)
			})
		},
	}
	fresh.Flags().BoolVar(&gossipOnly, "gossip", false, "only a key of gossip, as its file has it")
	fresh.Flags().StringVar(&kind, "type", "hs256", "hs256, eddsa or es256")
	return group("keys", "API keys and gossip keys", a, fresh)
}

func newKey(kind string) (*apiKey, error) {
	k := &apiKey{ID: proto.NewID("ak_")}
	switch kind {
	case "hs256":
		secret := make([]byte, 32)
		// crypto/rand.Read never fails since Go 1.24.
		_, _ = rand.Read(secret)
		k.Secret, k.GossipKey = base64.RawURLEncoding.EncodeToString(secret), gossip.NewKey()
		return k, nil
	case "eddsa":
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("making a key: %w", err)
		}
		return k, k.encode(public, private)
	case "es256":
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("making a key: %w", err)
		}
		return k, k.encode(private.Public(), private)
	}
	return nil, usage(fmt.Errorf("--type %q is not hs256, eddsa or es256", kind))
}

func (k *apiKey) encode(public crypto.PublicKey, private crypto.PrivateKey) error {
	pub, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("encoding the public key: %w", err)
	}
	priv, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("encoding the private key: %w", err)
	}
	k.PublicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}))
	k.PrivateKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: priv}))
	return nil
}
