package route

// voids remembers removals and revocations in their order, to tell which of
// them came after a question was sent: its answer may be from before them.
type voids struct {
	last    uint64 // the number of the latest
	floor   uint64 // the greatest number that had to be forgotten
	removed *lru[uint64]
	revoked *lru[uint64]
}

func newVoids(most int) *voids {
	v := &voids{}
	forgotten := func(_ string, n uint64) { v.floor = max(v.floor, n) }
	v.removed, v.revoked = newLRU(most, forgotten), newLRU(most, forgotten)
	return v
}

func revokedKey(backend, user string) string { return backend + "\x00" + user }

func (v *voids) remove(backend string) { v.note(v.removed, backend) }

func (v *voids) revoke(backend, user string) { v.note(v.revoked, revokedKey(backend, user)) }

func (v *voids) note(l *lru[uint64], key string) {
	v.last++
	l.put(key, v.last)
}

// wasRemoved reports whether the backend is known to be removed.
func (v *voids) wasRemoved(backend string) bool {
	_, ok := v.removed.get(backend)
	return ok
}

// since reports whether an answer that names the route may be older than a
// removal or revocation that came after the one numbered seen.
func (v *voids) since(seen uint64, r Route) bool {
	if seen < v.floor {
		return true
	}
	if n, ok := v.removed.get(r.BackendID); ok && n > seen {
		return true
	}
	if r.User == nil {
		return false
	}
	n, ok := v.revoked.get(revokedKey(r.BackendID, *r.User))
	return ok && n > seen
}
