package docker

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"plane/system/port"
)

// bad is an ErrBadExecutable with an explanation for the user.
func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %w", port.ErrBadExecutable, fmt.Errorf(format, args...))
}

// The engine tells some refusals only by their text. These are parts of it, in
// lower case, as engines from 20.10 on write them.
var (
	portTakenTexts = []string{"port is already allocated", "address already in use", "failed to bind host port"}
	diskTexts      = []string{"storage-opt", "storage opt", "pquota"}
	imageTexts     = []string{"manifest unknown", "no matching manifest", "unauthorized", "access denied", "requested access to the resource is denied", "repository name not known"}
)

func says(err error, texts []string) bool {
	text := strings.ToLower(err.Error())
	for _, t := range texts {
		if strings.Contains(text, t) {
			return true
		}
	}
	return false
}

// refusal gives the sentinel for an engine's answer to a create or a start.
func refusal(err error, network string) error {
	switch {
	case says(err, portTakenTexts):
		return fmt.Errorf("%w: %w", port.ErrPortTaken, err)
	case says(err, diskTexts):
		return bad("resource_limits: disk_limit_bytes: this drone's storage cannot limit disk space: %w", err)
	case network != "" && errdefs.IsNotFound(err) && says(err, []string{"network"}):
		return bad("network_name: this drone's engine has no network %q: %w", network, err)
	case errdefs.IsInvalidArgument(err):
		return bad("the engine refuses it: %w", err)
	}
	return err
}

// pullRefusal gives the sentinel for a registry's answer that will not change
// by itself.
func pullRefusal(err error, image string) error {
	if errdefs.IsNotFound(err) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) ||
		errdefs.IsInvalidArgument(err) || says(err, imageTexts) {
		return bad("image %q cannot be pulled: %w", image, err)
	}
	return err
}
