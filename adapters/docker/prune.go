package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
)

// noteUse keeps an image from being pruned for a while: between a pull and the
// start there is no container yet that uses it.
func (r *Runtime) noteUse(ref string) {
	r.usedMu.Lock()
	defer r.usedMu.Unlock()
	r.used[ref] = time.Now()
}

// lately reports whether a backend here has wanted the image within PruneAge,
// and forgets what was wanted longer ago.
func (r *Runtime) lately() []string {
	r.usedMu.Lock()
	defer r.usedMu.Unlock()
	var refs []string
	for ref, at := range r.used {
		if time.Since(at) > r.cfg.PruneAge {
			delete(r.used, ref)
			continue
		}
		refs = append(refs, ref)
	}
	return refs
}

// Prune implements port.ContainerRuntime. It removes every image of the engine
// that no container uses, whoever's it is, and that no backend has wanted
// lately.
func (r *Runtime) Prune(ctx context.Context) error {
	if !r.cfg.PruneImages {
		return nil
	}
	kept, err := r.usedImages(ctx)
	if err != nil {
		return err
	}
	images, err := r.images(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, img := range images {
		if kept[img.ID] {
			continue
		}
		if err := r.removeImage(ctx, img); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// usedImages returns the ids of the images to keep.
func (r *Runtime) usedImages(ctx context.Context) (map[string]bool, error) {
	kept := map[string]bool{}
	for _, ref := range r.lately() {
		id, err := r.imageID(ctx, ref)
		if err != nil {
			return nil, err
		}
		kept[id] = true
	}
	ctx, cancel := r.call(ctx)
	defer cancel()
	all, err := r.engine.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", cause(ctx, err))
	}
	for _, c := range all {
		kept[c.ImageID] = true
	}
	return kept, nil
}

// imageID is empty when there is no such image.
func (r *Runtime) imageID(ctx context.Context, ref string) (string, error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	img, err := r.engine.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for image %q: %w", ref, cause(ctx, err))
	}
	return img.ID, nil
}

func (r *Runtime) images(ctx context.Context) ([]image.Summary, error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	images, err := r.engine.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", cause(ctx, err))
	}
	return images, nil
}

// removeImage removes an image by all its names. One that has come into use, or
// is gone, since it was listed is no failure.
func (r *Runtime) removeImage(ctx context.Context, img image.Summary) error {
	refs := slices.DeleteFunc(slices.Clone(img.RepoTags), func(tag string) bool { return tag == "<none>:<none>" })
	if len(refs) == 0 {
		refs = []string{img.ID}
	}
	for _, ref := range refs {
		if err := r.removeImageName(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runtime) removeImageName(ctx context.Context, ref string) error {
	ctx, cancel := r.call(ctx)
	defer cancel()
	_, err := r.engine.ImageRemove(ctx, ref, image.RemoveOptions{PruneChildren: true})
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("remove image %q: %w", ref, cause(ctx, err))
}
