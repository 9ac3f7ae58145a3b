package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"plane/adapters/docker"
	"plane/adapters/guard"
	"plane/system/port"
)

// siblingConfirm is how long a call of a guard may take whose container may have
// to be started first.
const siblingConfirm = 10 * time.Second

// defaultSocket is where the engine is unless DOCKER_HOST says something else.
const defaultSocket = "/var/run/docker.sock"

// sibling is where the guard of an agent runs that is in a container, with which
// a process of its own would end.
type sibling struct {
	engine *docker.Runtime // nil: no container is needed
	self   string          // the agent's container
	shared []string        // what has to be in mounts
}

// find looks for the container that this process runs in. There is none to look
// for when the engine, and so every backend, is in there too. It fails when the
// engine is outside and has no such container: a guard could not outlive it.
func (s *sibling) find(ctx context.Context, engine *docker.Runtime) error {
	self, inside, unclear := guard.OwnContainer()
	if !inside && unclear == nil {
		return nil
	}
	if self != "" {
		_, err := engine.Mounts(ctx, self)
		if err == nil {
			s.engine, s.self = engine, self
			return nil
		}
		if !errors.Is(err, port.ErrNoContainer) {
			return fmt.Errorf("look at the agent's own container: %w", err)
		}
		unclear = fmt.Errorf("the engine has no container %s", self)
	}
	beside, err := engine.Beside(ctx)
	if err == nil && !beside {
		err = fmt.Errorf("the agent runs in a container, and its lease guard would end with it: run the agent in a container of the engine that runs its backends, or in none (%w)", unclear)
	}
	return err
}

// launcher starts the guard's container.
func (s *sibling) launcher(settings guardSettings) (guard.SiblingLauncher, error) {
	program, err := os.Executable()
	if err != nil {
		return guard.SiblingLauncher{}, fmt.Errorf("find this program in its container: %w", err)
	}
	settings.Stay = true
	shared := s.shared
	if socket := s.engine.Socket(); socket != "" {
		shared = append(shared, socket)
	}
	return guard.SiblingLauncher{
		Engine: s.engine, Name: guardContainer(settings.Drone), Self: s.self,
		Command: append([]string{program}, settings.arguments()...), Shared: shared,
	}, nil
}

// guardContainer is what a drone's guard container is called. No backend's
// container can be: there is no dot in a backend's name.
func guardContainer(drone string) string { return "plane-guard." + drone }

// withSocketHint says what is likely missing when an agent in a container cannot
// reach its engine.
func withSocketHint(err error) error {
	_, inside, unclear := guard.OwnContainer()
	_, absent := os.Stat(defaultSocket)
	if !inside && unclear == nil || absent == nil || os.Getenv("DOCKER_HOST") != "" {
		return err
	}
	return fmt.Errorf("%w; an agent in a container needs the engine's socket: start it with -v %s:%[2]s", err, defaultSocket)
}
