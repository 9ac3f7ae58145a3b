package route

import (
	"strings"

	"plane/system/name"
)

// HostMatch says what a Host header has to do with a cluster.
type HostMatch int

// The ways in which a Host can belong to a cluster.
const (
	HostMissing HostMatch = iota // there is none
	HostForeign                  // it names something else
	HostCluster                  // it is the cluster's own
	HostSub                      // it is one label below the cluster
)

// MatchHost compares a Host header with the cluster; for HostSub it also returns
// the label, in lower case. The port must be the cluster's; 443 may be left out,
// or given. Case does not matter.
func MatchHost(host string, cluster name.Cluster) (HostMatch, string) {
	if host == "" {
		return HostMissing, ""
	}
	h, err := name.ParseCluster(host)
	if err != nil || h.Port != cluster.Port {
		return HostForeign, ""
	}
	if h.Host == cluster.Host {
		return HostCluster, ""
	}
	label, parent, ok := strings.Cut(h.Host, ".")
	if !ok || parent != cluster.Host {
		return HostForeign, ""
	}
	return HostSub, label
}

// HostAllows reports whether a request under such a Host may reach a backend
// with the subdomain; nil or empty is a backend without one.
func HostAllows(match HostMatch, label string, subdomain *string) bool {
	if subdomain == nil || *subdomain == "" {
		return match == HostCluster
	}
	return match == HostSub && strings.EqualFold(label, *subdomain)
}
