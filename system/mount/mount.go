// Package mount says which directory of a drone's machine a backend gets. It is
// the last line between what a key may be called and the machine's other files:
// controllers pass keys and paths through as they came.
//
// Pure rules, safe from anywhere. They look at names only; that no symbolic link
// leads out of the base is for the one to check who opens the directory.
package mount

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// The greatest lengths that Linux accepts, in bytes.
const (
	maxComponent = 255
	maxPath      = 4095
)

// ErrNoBase: a mount is asked for on a drone that offers none.
var ErrNoBase = errors.New("mount: this drone has no mount base; start it with --mount-base, or leave the mount out")

// Path returns the directory to mount: the path rel under base or, where rel is
// nil, the one that is named after the key. It is always strictly under base. A
// name may have several components, with single slashes between them; one that
// is absolute, empty, too long, or has an empty, "." or ".." component is
// refused rather than bent into something else, so that two names never mean
// the same directory.
func Path(base, keyName string, rel *string) (string, error) {
	if base == "" {
		return "", ErrNoBase
	}
	if !path.IsAbs(base) || strings.ContainsRune(base, 0) {
		return "", fmt.Errorf("mount: the mount base %q is not an absolute path", base)
	}
	what, sub := "the key's name", keyName
	if rel != nil {
		what, sub = "path", *rel
	}
	if err := local(sub); err != nil {
		return "", fmt.Errorf("mount: %s %q %w", what, clip(sub), err)
	}
	full := path.Join(base, sub)
	if len(full) > maxPath {
		return "", fmt.Errorf("mount: %s %q is too long: the whole path would have more than %d bytes", what, clip(sub), maxPath)
	}
	return full, nil
}

// local refuses what is not a plain relative path.
func local(sub string) error {
	switch {
	case sub == "":
		return errors.New("is empty, and cannot name a directory")
	case !utf8.ValidString(sub):
		return errors.New("is not UTF-8")
	case strings.ContainsRune(sub, 0):
		return errors.New("holds a NUL character")
	case path.IsAbs(sub):
		return errors.New("is absolute; it has to be relative to the mount base")
	}
	for component := range strings.SplitSeq(sub, "/") {
		switch {
		case component == "":
			return errors.New("has an empty component (// or a / at its end)")
		case component == "." || component == "..":
			return fmt.Errorf("has a component %q; it has to stay under the mount base", component)
		case len(component) > maxComponent:
			return fmt.Errorf("has a component of %d bytes; %d are the most", len(component), maxComponent)
		}
	}
	return nil
}

func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
