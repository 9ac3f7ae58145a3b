// Package executor runs backends through an external executor: a program of the
// user's own that listens on a Unix socket and speaks JSON lines (protocol.md,
// "External executor"). Runtime is the agent's side of it; Killer is the lease
// guard's hand.
//
// The protocol can neither list nor inspect, so the package owns a file with
// what it knows: each backend that the executor was asked to spawn, written
// before it is asked, what it answered, and how the backend ended. List and
// Inspect answer from that, and an agent that starts again adopts from it. What
// only the executor could know is said to be unknown: while there is no
// connection, whether a backend still runs is an error. After each new
// connection ends may have been missed, so Exits fails once (the caller lists
// all), and the executor has to vouch for each backend (WaitForBackend); one
// that it refuses three times is ended with Terminate, or its key would be held
// by it for ever.
//
// A backend is spawned at most once. A request that is cut off, or not answered
// in time, is unclear. For a Spawn that means: a late answer counts, also on a
// later connection; without one the next Start does not spawn a second
// container but ends the first. A Spawn that takes effect after the backend was
// ended is ended again when its answer comes. What an executor refuses is
// final, as it was in Plane 0.5: it does its own retries.
//
// The methods of Runtime may be called from any goroutine. A broken connection
// is dialled again with growing waits. A line that is malformed or too long
// ends the connection; kinds of messages and ids that are unknown are skipped.
// When the disk fails nothing is spawned, and what is known counts until the
// process ends. Requests, which hold secrets, are in no log and no error, and
// the executor's refusals only without the values of the request.
//
// # What is left to the executor
//
// It chooses the port (ContainerSpec.Port is not used), so half of G7 is its
// own: it must not give a port to another backend before 45 s have passed since
// the end of the backend that had it was recorded. A port that a known backend
// still has is refused here and the new backend is ended; more cannot be seen
// from here. It must bind on the address that the drone was given (--ip).
//
// The rest is what the guarantees need of it: Terminate with hard=true ends the
// backend within 5 s (F6), and answers Ok(false), not Err, for one that does not
// run or was never there; only that, or a TerminateEvent, counts as an end.
// Terminate is harmless twice. With hard=false it asks the program to end and
// does not kill. Backends go on when a connection ends (G10). The lease guard
// opens a second connection for its kills: an executor that serves one at a
// time may close the older one, as that of 0.5 does, for the agent comes back.
// Memory that ran out cannot be told.
package executor
