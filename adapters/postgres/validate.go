package postgres

// Validate says what is wrong with the settings as such, without asking a
// server: URLs that are none, a password file that cannot be read. Its errors
// wrap ErrConfig, where waiting would not cure them.
func (c Config) Validate() error {
	for _, url := range []string{c.URL, c.ListenURL} {
		if url == "" {
			continue
		}
		if _, err := c.parse(url); err != nil {
			return err
		}
	}
	return nil
}
