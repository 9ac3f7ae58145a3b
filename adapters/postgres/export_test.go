package postgres

// GatherNothing has every batch begin at once.
func GatherNothing(s *Store) { s.renewals.gather, s.beats.gather = 0, 0 }
