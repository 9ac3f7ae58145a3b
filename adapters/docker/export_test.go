package docker

// CutExits breaks the event stream as an engine's restart would.
func CutExits(r *Runtime) { r.exits.cancel() }

// Listener is what Beside asks.
var Listener = listener
