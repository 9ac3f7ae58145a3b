package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// makeDirectory makes dir, which is under base, with what is missing above it.
// Nothing between the two may be a symbolic link: backends write below the base
// and could lead another backend's mount to where they please.
//
// The engine resolves the path once more when it mounts. What is in between
// could still be exchanged by a backend whose own mount lies above dir; whoever
// nests mounts lets the outer backend see the inner one's files anyway.
func makeDirectory(base, dir string) error {
	sub, err := filepath.Rel(base, dir)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return fmt.Errorf("mount: open the mount base: %w", err)
	}
	defer root.Close()
	reached := ""
	for component := range strings.SplitSeq(sub, string(filepath.Separator)) {
		reached = filepath.Join(reached, component)
		if err := root.Mkdir(reached, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("mount: make the directory: %w", err)
		}
		info, err := root.Lstat(reached)
		if err != nil {
			return fmt.Errorf("mount: look at the directory: %w", err)
		}
		if !info.IsDir() {
			return bad("mount: %q under the mount base is not a directory, or is a symbolic link", reached)
		}
	}
	return nil
}
