package apiclient

// HastyPeers is NewPeers with limits of a test's own.
var HastyPeers = newPeers
