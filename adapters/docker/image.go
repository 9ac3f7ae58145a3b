package docker

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// File is a file of an image.
type File struct {
	Path   string // in the image, absolute
	Source string // on this machine; empty: an empty directory
	Mode   int64  // permission bits, with 01000 for a sticky directory
}

// contentLabel is on an image that BuildImage has made; it is a hash of all that
// the image was made from.
const contentLabel = "dev.plane.content"

// BuildImage makes an image out of nothing but the files, which are written in
// this order; it runs entrypoint. An image of that tag with the same content is
// left as it is, so calling twice is harmless; one with other content is
// replaced. It works on any engine, without a registry or a builder.
func BuildImage(ctx context.Context, tag string, entrypoint []string, files ...File) error {
	engine, err := connect(ctx, "")
	if err != nil {
		return err
	}
	defer engine.Close()
	changes, err := imageConfig(entrypoint, files)
	if err != nil {
		return fmt.Errorf("docker: build image %s: %w", tag, err)
	}
	have, err := engine.ImageInspect(ctx, tag)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("docker: look for image %s: %w", tag, err)
	}
	if err == nil && have.Config != nil && have.Config.Labels[contentLabel] == changes.content {
		return nil
	}
	if err := importImage(ctx, engine, tag, changes, files); err != nil {
		return fmt.Errorf("docker: build image %s: %w", tag, err)
	}
	return removeReplaced(ctx, engine, have)
}

// removeReplaced removes an image that has lost its only name. One that a
// container uses stays.
func removeReplaced(ctx context.Context, engine *client.Client, old image.InspectResponse) error {
	if old.ID == "" || len(old.RepoTags) > 1 {
		return nil
	}
	_, err := engine.ImageRemove(ctx, old.ID, image.RemoveOptions{PruneChildren: true})
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("docker: remove the replaced image: %w", err)
}

// config is an image's configuration as lines of a Dockerfile.
type config struct {
	lines   []string
	content string
}

func imageConfig(entrypoint []string, files []File) (config, error) {
	run, err := json.Marshal(entrypoint)
	if err != nil {
		return config{}, err
	}
	hash := sha256.New()
	hash.Write(run)
	if err := writeTar(hash, files); err != nil {
		return config{}, err
	}
	c := config{content: hex.EncodeToString(hash.Sum(nil))}
	c.lines = []string{"ENTRYPOINT " + string(run), "LABEL " + contentLabel + "=" + c.content}
	return c, nil
}

func importImage(ctx context.Context, engine *client.Client, tag string, c config, files []File) error {
	reader, writer := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		err := writeTar(writer, files)
		writer.CloseWithError(err)
		wrote <- err
	}()
	body, err := engine.ImageImport(ctx, image.ImportSource{Source: reader, SourceName: "-"}, tag, image.ImportOptions{Changes: c.lines})
	if err == nil {
		err = errors.Join(readMessages(body, func(message) {}), body.Close())
	}
	reader.CloseWithError(errors.New("the engine takes no more"))
	if failed := <-wrote; err == nil {
		err = failed
	}
	return err
}

// writeTar writes the files with nothing in it that differs from one machine or
// day to the next.
func writeTar(w io.Writer, files []File) error {
	archive := tar.NewWriter(w)
	for _, f := range files {
		if err := writeFile(archive, f); err != nil {
			return err
		}
	}
	return archive.Close()
}

func writeFile(archive *tar.Writer, f File) error {
	header := tar.Header{Name: strings.TrimPrefix(path.Clean(f.Path), "/"), Mode: f.Mode, ModTime: time.Unix(0, 0)}
	if f.Source == "" {
		header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
		return archive.WriteHeader(&header)
	}
	source, err := os.Open(f.Source)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // only read from
	info, err := source.Stat()
	if err != nil {
		return err
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := archive.WriteHeader(&header); err != nil {
		return err
	}
	_, err = io.Copy(archive, source)
	return err
}
