package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/clock"
	"plane/adapters/websocket"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// putDummyDNSCommand has the DNS receivers answer something for a cluster, so
// that the way to them can be tried without a certificate authority.
func (a *admin) putDummyDNSCommand() *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:   "put-dummy-dns --cluster CLUSTER",
		Short: "Have the DNS receivers answer a made-up challenge of a cluster, to try the way to them",
		Long: `Have the DNS receivers answer a made-up challenge of a cluster, to try the way to them:
"dig TXT _acme-challenge.CLUSTER" shows it then, for ten minutes.

This takes the cluster's certificate lease as a proxy of Plane 0.5 does. It fails
while such a proxy holds the lease, and those wait until the value is gone.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cluster == "" {
				return usage("--cluster is needed")
			}
			ctx, cancel := short(cmd)
			defer cancel()
			c, err := name.ParseCluster(cluster)
			if err != nil {
				return usage("--cluster: %w", err)
			}
			dialer, err := websocket.NewDialer(websocket.Options{URL: a.controller, Path: websocket.ProxyPath(c.String()), Version: version()})
			if err != nil {
				return usage("--controller: %w", err)
			}
			value, err := putDummy(ctx, dialer)
			if err != nil {
				return fmt.Errorf("put a challenge for %s: %w", c, err)
			}
			return a.done(cmd, map[string]string{"cluster": c.String(), "txt_value": value}, "DNS receivers answer for %s now: %q\n", c, value)
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster")
	return cmd
}

// putDummy plays a proxy that orders a certificate.
func putDummy(ctx context.Context, dialer port.Dialer) (string, error) {
	conn, err := dialer.Dial(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close("done")
	own := protocol.Handshake{Version: version(), Name: name.New(name.Proxy, clock.Rand{})}
	if err := conn.Send(ctx, protocol.EncodeHandshake(own)); err != nil {
		return "", err
	}
	frame, err := conn.Recv(ctx)
	if err != nil {
		return "", err
	}
	if _, err := protocol.DecodeHandshake(frame, name.Controller); err != nil {
		return "", err
	}
	if _, err := request(ctx, conn, protocol.CertManagerRequest{CertLeaseRequest: true}, "another proxy holds the cluster's certificate lease, or a dummy was put in the last ten minutes; try again later"); err != nil {
		return "", err
	}
	value := fmt.Sprintf("dummy from %s at %s", own.Name, time.Now().UTC().Format(time.RFC3339))
	return request(ctx, conn, protocol.CertManagerRequest{SetTxtRecord: &protocol.SetTxtRecord{TxtValue: value}}, "the controller did not take the value")
}

// request waits for a yes; refused says what a no means. It returns the value
// that was to be set, if there is one.
func request(ctx context.Context, conn port.Conn, req protocol.CertManagerRequest, refused string) (string, error) {
	if err := conn.Send(ctx, protocol.EncodeFromProxy(req)); err != nil {
		return "", err
	}
	for {
		frame, err := conn.Recv(ctx)
		if err != nil {
			return "", err
		}
		m, err := protocol.DecodeToProxy(frame)
		answer, ok := m.(protocol.CertManagerResponse)
		if err != nil || !ok {
			continue // something else that proxies are told
		}
		yes, value := answer.CertLeaseResponse, ""
		if req.SetTxtRecord != nil {
			yes, value = answer.SetTxtRecordResponse, req.SetTxtRecord.TxtValue
		}
		if yes == nil || !yes.Accepted {
			return "", errors.New(refused)
		}
		return value, nil
	}
}
