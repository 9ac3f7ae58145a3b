// Package scenarios runs whole clusters on real parts: the plane binary as
// separate processes, a real container engine, real sockets, a real browser.
//
// They are the only tests that wait on a wall clock, always for something, and
// never for longer than Plane promises that it takes. They start what they
// need on ports and in directories of their own, so they run beside each other,
// and end it again with everything that it has started, also when they fail.
// What needs a container engine or a browser is skipped where there is none.
//
// The flag -plane names a binary to use instead of one built from this tree.
package scenarios
