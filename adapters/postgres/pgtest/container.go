package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	dockercontainer "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"github.com/jackc/pgx/v5"
)

// officialImage is pulled when the engine has none of that name.
const officialImage = "postgres:17-alpine"

// serve ends the server when nobody holds the container's standard input any
// more: with this process, however that ends.
const serve = `docker-entrypoint.sh postgres -c fsync=off -c full_page_writes=off -c max_connections=200 & cat >/dev/null; kill -QUIT $!; wait`

// errNoContainer: a server cannot be had as a container.
var errNoContainer = errors.New("no container")

// container starts the official image and returns the server's URL. The server
// ends when keep is collected or this process has ended.
func container(ctx context.Context) (url string, keep any, err error) {
	engine, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return "", nil, err
	}
	if _, err := engine.Ping(ctx); err != nil {
		return "", nil, fmt.Errorf("%w: no engine answers", errNoContainer)
	}
	tag, err := findImage(ctx, engine)
	if err != nil {
		return "", nil, err
	}
	port := nat.Port("5432/tcp")
	made, err := engine.ContainerCreate(ctx, &dockercontainer.Config{
		Image: tag, Entrypoint: []string{"sh", "-c", serve}, Env: []string{"POSTGRES_HOST_AUTH_METHOD=trust"},
		ExposedPorts: nat.PortSet{port: {}}, OpenStdin: true, StdinOnce: true, AttachStdin: true,
	}, &dockercontainer.HostConfig{
		AutoRemove: true, Tmpfs: map[string]string{"/var/lib/postgresql/data": ""},
		PortBindings: nat.PortMap{port: {{HostIP: "127.0.0.1"}}},
	}, nil, nil, "")
	if err != nil {
		return "", nil, fmt.Errorf("create a PostgreSQL container: %w", err)
	}
	stream, err := engine.ContainerAttach(ctx, made.ID, dockercontainer.AttachOptions{Stream: true, Stdin: true})
	if err != nil {
		return "", nil, fmt.Errorf("attach to the PostgreSQL container: %w", err)
	}
	if err := engine.ContainerStart(ctx, made.ID, dockercontainer.StartOptions{}); err != nil {
		return "", nil, fmt.Errorf("start the PostgreSQL container: %w", err)
	}
	info, err := engine.ContainerInspect(ctx, made.ID)
	if err != nil {
		return "", nil, fmt.Errorf("inspect the PostgreSQL container: %w", err)
	}
	bound := info.NetworkSettings.Ports[port]
	if len(bound) == 0 {
		return "", nil, errors.New("the PostgreSQL container has no port")
	}
	url = fmt.Sprintf("postgres://postgres@127.0.0.1:%s/postgres?sslmode=disable", bound[0].HostPort)
	return url, stream.Conn, answers(ctx, url)
}

// findImage returns an official image that the engine has, or has pulled.
func findImage(ctx context.Context, engine *client.Client) (tag string, err error) {
	images, err := engine.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "postgres"))})
	if err == nil {
		for _, i := range images {
			if len(i.RepoTags) > 0 {
				return i.RepoTags[0], nil
			}
		}
	}
	pull, err := engine.ImagePull(ctx, officialImage, image.PullOptions{})
	if err == nil {
		_, err = io.Copy(io.Discard, pull)
		err = errors.Join(err, pull.Close())
	}
	if err != nil {
		return "", fmt.Errorf("%w: no image postgres is here, and %s cannot be pulled", errNoContainer, officialImage)
	}
	return officialImage, nil
}

// answers waits until the server takes connections.
func answers(ctx context.Context, url string) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	var why error
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return conn.Close(ctx)
		}
		if ctx.Err() == nil {
			why = err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", why)
		}
	}
}
