package port

import (
	"context"
	"time"
)

// ChallengeStore keeps what the DNS receiver answers for the ACME DNS-01
// challenges of each cluster: a set of TXT values. Proxies of one cluster that
// order certificates at the same time each add their own values and never touch
// those of another. Like those of Store its methods are atomic, block for about
// one round trip, and may be called from any number of tasks; ages are on the
// store's clock.
type ChallengeStore interface {
	// LeaseCertificate gives the proxy the cluster's certificate lease for term,
	// or extends it (never shortens it); false when another proxy holds it, which
	// one does not that is connected nowhere and was not heard from lately
	// (placement.Lately). Proxies of 0.5.x, and DNS receivers of 0.5.x, which know
	// one value only, need it; ours do without.
	LeaseCertificate(ctx context.Context, cluster string, proxy NodeID, term time.Duration) (bool, error)
	// ReleaseCertificate gives the lease up, if the proxy holds it, and deletes
	// the proxy's values. Harmless twice.
	ReleaseCertificate(ctx context.Context, cluster string, proxy NodeID) error
	// AddChallenge adds one of the proxy's values for life; one that is there
	// already becomes its newest, and lives at least as long. When the proxy holds
	// the lease, that is extended to last at least as long, too. Beyond
	// MaxChallenges the proxy's oldest value gives way. Harmless twice.
	AddChallenge(ctx context.Context, cluster string, proxy NodeID, value string, life time.Duration) error
	// Challenges returns, in the place of each cluster, its values that live: those
	// of the proxy that holds the lease first, then the others, the newest first
	// each. None, and no error, where there are none. It is one round trip for any
	// number of clusters: whoever asks from the internet can think of many.
	Challenges(ctx context.Context, clusters []string) ([][]string, error)
}

// MaxChallenges is how many values one proxy may have at once: an order for a
// name and its wildcard needs two, and a second try may overlap with the first.
const MaxChallenges = 8
