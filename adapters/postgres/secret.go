package postgres

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

// setPassword reads the password's file, if there is one.
func (c Config) setPassword(cc *pgx.ConnConfig) error {
	if c.PasswordFile == "" {
		return nil
	}
	password, err := readPassword(c.PasswordFile)
	cc.Password = password
	return err
}

// readPassword returns the first line of a file.
func readPassword(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		if at, ok := errors.AsType[*fs.PathError](err); ok {
			err = at.Err
		}
		return "", fmt.Errorf("%w: read the database password from %s: %w", ErrConfig, path, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", fmt.Errorf("%w: the first line of %s is to be the database password, and is empty", ErrConfig, path)
	}
	return line, nil
}

// discreet is an error that does not tell the password, whatever the driver or
// the server has put into its text.
func discreet(err error, cc *pgx.ConnConfig) error {
	if err == nil || cc.Password == "" || !strings.Contains(err.Error(), cc.Password) {
		return err
	}
	return &blotted{text: strings.ReplaceAll(err.Error(), cc.Password, "xxxxx"), err: err}
}

// blotted is an error with another text.
type blotted struct {
	text string
	err  error
}

func (e *blotted) Error() string { return e.text }

// Is finds sentinels in the error; its parts are not given out, since their
// text would be.
func (e *blotted) Is(target error) bool { return errors.Is(e.err, target) }

// verifies reports whether the server has to prove who it is.
func verifies(cfg *tls.Config) bool {
	return cfg != nil && (!cfg.InsecureSkipVerify || cfg.VerifyPeerCertificate != nil || cfg.VerifyConnection != nil)
}
