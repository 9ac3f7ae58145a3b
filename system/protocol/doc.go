// Package protocol holds the messages that go over Plane's sockets and its
// HTTP API, and their JSON. It is wire-compatible with Plane 0.5.x; fields and
// messages that only Plane in Go knows are marked "ours", and a 0.5.x peer
// skips them.
//
// Decoding is strict about what it accepts (sizes, names, times, enum values)
// and lenient about what it does not know: fields it has never heard of are
// skipped, and an unknown kind of message is reported as ErrUnknownMessage, to
// be skipped by the reader. Errors name the field. Everything here is a value
// or a pure function and safe for use from anywhere at once.
package protocol
