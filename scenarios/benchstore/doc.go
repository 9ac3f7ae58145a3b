// Command benchstore measures what Plane asks of PostgreSQL, against what 0.5.x
// asks of it, on one server in one run: `make bench-store`.
//
// It starts a server of its own from the host's binaries, with fsync on and its
// data on a real disk, makes a database for each contender, and ends the server
// when it is done or is interrupted. Contenders take turns, cell by cell and
// round by round, and the medians over the rounds are shown, since what else a
// machine does comes and goes. It prints the goals beside the figures and never
// fails for being slow; an operation that fails ends it.
//
// The parts:
//   - connect: connects per second and their latency, to a held key and to a
//     new one;
//   - rest: statements per second and processor time of the server for live
//     backends at rest, whose leases are renewed and whose proxies say that
//     they are in use;
//   - history: connect once more, with and without a long past in the tables.
package main
