// Package route holds the rules by which a proxy takes a request to a backend:
// how a path names its token, which Host belongs to a cluster, what headers a
// backend gets to see, and what a proxy may still believe of an answer that a
// controller gave a while ago.
//
// Path, host and header rules are pure functions. Table is the proxy's memory:
// routes, tokens that lead nowhere, questions under way and uses of backends.
// Its methods take a lock of their own, never block on anything else, take the
// time as an argument and may be called from any task at once. What has to
// happen outside (waking tasks, closing connections) is returned to the caller,
// who does it without the lock.
//
// Table promises, as long as the answers that it is given are true at some
// moment between question and answer:
//   - a route is given out only for Policy.usable after the question was sent,
//     so that an address may be given to another backend once no answer can
//     name it and that time has passed (G7);
//   - a removal or a revocation takes effect at once, and an answer that was
//     under way at that moment does not undo it (G8);
//   - tokens that lead nowhere never take the place of those that do.
//
// Nothing here survives a restart, and nothing needs to: what is forgotten is
// asked again.
package route
