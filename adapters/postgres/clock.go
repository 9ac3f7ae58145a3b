package postgres

// The store's clock is a row in the database, plane.clock, that every controller
// ticks when it reads the latest revocations, twice a second. It shows
//
//	greatest(last, least(wall clock - behind, last + 1 s))
//
// and a tick makes last what it shows, and behind what it is behind the wall
// clock then. So while it is ticked it runs like the server's wall clock, but
// nothing that happens between two ticks counts for more than a second, nor for
// less than nothing:
//
//   - an outage of any length, of the database or of all controllers: 1 s at
//     most;
//   - a step of the wall clock: forward 1 s, backward 0 s, and then it goes on;
//   - a fail-over to a machine whose wall clock is another: the same.
//
// It is slow rather than fast, and a slow clock is safe: a key comes back later,
// never earlier. A lease of 60 s lasts 60 / 1.02 = 58.8 s at least where the
// clock runs 2 % fast; a drone needs 50 / 0.98 + 5 = 56.0 s to be rid of the
// backend (lease.Timing.Validate). What is left, 2.8 s, is room for two such
// events in one term of a lease.
//
// A transaction takes its row locks first and reads the clock in a later
// statement, which sees the tick that another has committed meanwhile. A lease
// that is counted from an older tick would be too short.
//
// What people see (the times of states, when a backend was made) is the wall
// clock or the drone's; ages and limits go by the store's clock. After an outage
// that one is behind, for good, by what the outage lasted; nothing depends on
// the difference.
