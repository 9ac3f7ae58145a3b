package postgres

import (
	"slices"

	"github.com/jackc/pgx/v5"
)

// OnThisMachine reports whether the database is reached without leaving this
// machine, by loopback addresses or Unix sockets alone.
func (c Config) OnThisMachine() bool {
	cc, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return false
	}
	hosts := []string{cc.Host}
	for _, f := range cc.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	return !slices.ContainsFunc(hosts, func(host string) bool { return !isLocal(host) })
}
