package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"plane/adapters/httpproxy"
	"plane/adapters/metrics"
	"plane/system/drone"
	"plane/system/proxy"
)

// metricsFlag lets a role be asked what it uses and holds.
func metricsFlag(cmd *cobra.Command, address *string) {
	cmd.Flags().StringVar(address, "metrics", "", "address, host:port, to serve Prometheus metrics on; keep it to yourself (default: none)")
}

// withMetrics runs a role, and serves its metrics meanwhile if an address was
// given.
func withMetrics(ctx context.Context, address string, log *slog.Logger, run func(ctx context.Context) error, gauges ...metrics.Gauge) error {
	if address == "" {
		return run(ctx)
	}
	listener, err := listen(ctx, address, "--metrics")
	if err != nil {
		return err
	}
	log.Info("metrics are served", "address", listener.Addr().String())
	server := metrics.NewServer(metrics.New(gauges...), log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return run(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	g.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return context.Cause(ctx)
	})
	return g.Wait()
}

func proxyGauges(p *proxy.Proxy) []metrics.Gauge {
	return []metrics.Gauge{
		{Name: "plane_proxy_connected", Help: "1 while a controller is connected.", Value: func() float64 { return oneIf(p.Ready()) }},
		{Name: "plane_proxy_open_uses", Help: "Requests and connections that are open.", Value: func() float64 { return float64(p.Size().Uses) }},
		{Name: "plane_proxy_used_backends", Help: "Backends that are in use.", Value: func() float64 { return float64(p.Size().Backends) }},
		{Name: "plane_proxy_routes", Help: "Routes that are remembered.", Value: func() float64 { return float64(p.Size().Routes) }},
		{Name: "plane_proxy_lookups", Help: "Routes that are being asked for.", Value: func() float64 { return float64(p.Size().Lookups) }},
	}
}

// certificateGauges tell when the certificate that is served ends.
func certificateGauges(c httpproxy.Certificates) []metrics.Gauge {
	return []metrics.Gauge{{
		Name: "plane_proxy_certificate_expiry_timestamp_seconds",
		Help: "When the certificate that is served expires, since the Unix epoch; 0 while there is none.",
		Value: func() float64 {
			certificate, _ := c.Current() // an expired one is told, too
			if certificate == nil || certificate.Leaf == nil {
				return 0
			}
			return float64(certificate.Leaf.NotAfter.Unix())
		},
	}}
}

func droneGauges(d *drone.Drone) []metrics.Gauge {
	return []metrics.Gauge{
		{Name: "plane_drone_connected", Help: "1 while a controller is connected.", Value: func() float64 { return oneIf(d.Connected()) }},
		{Name: "plane_drone_backends", Help: "Backends that the drone looks after, ended ones included until a controller knows.", Value: func() float64 { return float64(d.Backends()) }},
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
