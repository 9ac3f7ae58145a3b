package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// connectTries is how often a connect is tried on a store that answers
// unclearly; repeating it is safe.
const connectTries = 3

// connectPause is the wait between such tries.
const connectPause = 200 * time.Millisecond

// holderPoll is how often a connect looks again for a holder that is ending,
// even without a hint.
const holderPoll = time.Second

// Connect finds or makes the backend of a key. It blocks for a store call, and
// for up to Timing.HolderWait more while the key's holder is ending. Repeating
// it after an unclear failure gives the same backend (G12).
func (c *Controller) Connect(ctx context.Context, req protocol.ConnectRequest) (protocol.ConnectResponse, error) {
	params, err := c.connectParams(req)
	if err != nil {
		return protocol.ConnectResponse{}, err
	}
	found, err := c.connect(ctx, params)
	if errors.Is(err, port.ErrBackendExists) && req.SpawnConfig.ID == nil {
		// A try of this very call made the backend, its answer was lost, and the
		// backend has ended since. The key is free again: another one.
		if params, err = c.connectParams(req); err == nil {
			found, err = c.connect(ctx, params)
		}
	}
	if err != nil {
		return protocol.ConnectResponse{}, c.connectError(req, err)
	}
	return c.connectResponse(params, found)
}

// connect asks the store, again where the answer was unclear or the holder is
// about to end.
func (c *Controller) connect(ctx context.Context, params port.ConnectParams) (found port.Connected, err error) {
	waiting, cancel := port.WithTimeout(ctx, c.clock, c.cfg.Timing.HolderWait)
	defer cancel()
	h := holderWatch{c: c, news: c.tasks.EventCount()}
	defer h.leave()
	for try := 1; ; {
		seen := h.news.Read()
		err = c.call(ctx, func(ctx context.Context) (err error) {
			found, err = c.store.Connect(ctx, params)
			return err
		})
		switch {
		case err == nil || ctx.Err() != nil || isAnswer(err):
			return found, err
		case errors.Is(err, port.ErrKeyUnhealthy):
			if h.await(waiting, found.BackendID, seen) != nil {
				return found, err
			}
		default:
			if try++; try > connectTries {
				return found, err
			}
			if cause := c.clock.Sleep(ctx, connectPause); cause != nil {
				return found, err
			}
		}
	}
}

// holderWatch listens for news of a key's holder from one look at the store to
// the next. It belongs to one task.
type holderWatch struct {
	c      *Controller
	news   port.EventCount
	holder string
	cancel func() // nil while there is no holder
}

// await blocks until there is news of the holder since the count was seen, or
// for a poll's time. For a holder that was not listened for until now it returns
// at once: the news may have come between the look that found it and this, and
// only another look can tell.
func (h *holderWatch) await(ctx context.Context, holder string, seen uint64) error {
	if h.cancel == nil || h.holder != holder {
		h.leave()
		h.holder, h.cancel = holder, h.c.hints.Subscribe(backendTopic(holder), h.news.Advance)
		return context.Cause(ctx)
	}
	return h.c.await(ctx, h.news, seen, min(holderPoll, h.c.cfg.Timing.HolderWait))
}

// leave ends the listening; harmless twice.
func (h *holderWatch) leave() {
	if h.cancel != nil {
		h.cancel()
		h.cancel = nil
	}
}

// isAnswer reports whether the store has said no, as opposed to nothing clear.
func isAnswer(err error) bool {
	for _, answer := range []error{port.ErrKeyUnheld, port.ErrKeyHeld, port.ErrNoDrone, port.ErrBackendExists, port.ErrStaticUser} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

// connectParams checks a request and draws what the store shall not draw.
func (c *Controller) connectParams(req protocol.ConnectRequest) (port.ConnectParams, error) {
	auth, err := object("auth", req.Auth)
	if err != nil {
		return port.ConnectParams{}, err
	}
	if req.User != nil {
		if err := validUser(*req.User); err != nil {
			return port.ConnectParams{}, err
		}
	}
	p := port.ConnectParams{
		Key:           protocol.Key{Name: name.New(name.Key, c.rnd)},
		Token:         name.NewToken(c.rnd),
		SecretToken:   name.NewToken(c.rnd),
		User:          req.User,
		UserData:      auth,
		TokenLife:     c.cfg.Timing.TokenLife,
		PlacementSeed: c.rnd.Uint64(),
		RefuseStatic:  req.User != nil || auth != nil,
	}
	if req.Key != nil {
		if err := validKey(*req.Key); err != nil {
			return p, err
		}
		p.Key = *req.Key
	}
	if req.SpawnConfig != nil {
		p.Spawn, err = c.spawnParams(*req.SpawnConfig, p.RefuseStatic)
	}
	return p, err
}

// maxKeyText is how long each text of a key may be, in bytes: room for a path
// or two identifiers, and small enough for an index.
const maxKeyText = 1024

// maxUser is how long a user may be, in bytes. Revocations are found by it, so
// it has to fit in an index: who connects can be revoked (G8).
const maxUser = 1024

func validUser(user string) error {
	if len(user) > maxUser {
		return invalid("user: %d bytes are more than the %d that are allowed", len(user), maxUser)
	}
	return nil
}

func validKey(k protocol.Key) error {
	for _, f := range []struct{ field, text string }{{"key.name", k.Name}, {"key.namespace", k.Namespace}, {"key.tag", k.Tag}} {
		if len(f.text) > maxKeyText {
			return invalid("%s: %d bytes are more than the %d that are allowed", f.field, len(f.text), maxKeyText)
		}
		if bytes.IndexByte([]byte(f.text), 0) >= 0 {
			return invalid("%s: a NUL character is not allowed", f.field)
		}
	}
	if k.Name == "" {
		return invalid("key.name: is empty; leave key out to have one made up")
	}
	return nil
}

func (c *Controller) spawnParams(s protocol.SpawnConfig, forUser bool) (*port.SpawnParams, error) {
	p := &port.SpawnParams{
		BackendID: name.New(name.Backend, c.rnd),
		ActionID:  c.newActionID(),
		Cluster:   c.cfg.DefaultCluster,
		Pool:      s.Pool,
		BestOf:    c.cfg.BestOf,
		Healthy:   c.cfg.Timing.Unhealthy,
		Lease:     c.cfg.Lease,
	}
	if s.Cluster != nil {
		p.Cluster = *s.Cluster
	}
	if p.Cluster == "" {
		return nil, refuse(protocol.NoClusterProvided, nil, "spawn_config.cluster: name a cluster; this controller has no default one")
	}
	cluster, err := name.ParseCluster(p.Cluster)
	if err != nil {
		return nil, refuse(protocol.InvalidClusterName, nil, "spawn_config.%v", err)
	}
	p.Cluster = cluster.String()
	if s.ID != nil {
		if err := name.Validate(name.Backend, *s.ID); err != nil {
			return nil, invalid("spawn_config.id: %v", err)
		}
		p.BackendID = *s.ID
	}
	if s.Subdomain != nil && *s.Subdomain != "" {
		if err := name.ValidateSubdomain(*s.Subdomain); err != nil {
			return nil, invalid("spawn_config.%v", err)
		}
		p.Subdomain = *s.Subdomain
	}
	if p.Executable, err = object("spawn_config.executable", s.Executable); err != nil {
		return nil, err
	}
	if p.Executable == nil {
		return nil, invalid("spawn_config.executable: is missing")
	}
	if p.Asks, err = protocol.ParseAsks(p.Executable); err != nil {
		return nil, invalid("spawn_config.%v", err)
	}
	if p.Lifetime, err = seconds("spawn_config.lifetime_limit_seconds", s.LifetimeLimitSeconds); err != nil {
		return nil, err
	}
	if p.MaxIdle, err = seconds("spawn_config.max_idle_seconds", s.MaxIdleSeconds); err != nil {
		return nil, err
	}
	if s.UseStaticToken {
		if forUser {
			return nil, invalid("spawn_config.use_static_token: %v; leave user and auth out", port.ErrStaticUser)
		}
		p.StaticToken = name.NewStaticToken(c.rnd)
	}
	return p, nil
}

// object accepts a JSON object; nothing and null are nil.
func object(field string, raw json.RawMessage) (json.RawMessage, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	if raw[0] != '{' || !json.Valid(raw) {
		return nil, invalid("%s: want an object", field)
	}
	return raw, nil
}

// mostSeconds is a hundred years: more than a time.Duration can hold thrice.
const mostSeconds = 100 * 365 * 24 * 3600

func seconds(field string, n *int64) (time.Duration, error) {
	if n == nil {
		return 0, nil
	}
	if *n < 1 || *n > mostSeconds {
		return 0, invalid("%s: %d is not between 1 and %d; leave it out for no limit", field, *n, int64(mostSeconds))
	}
	return time.Duration(*n) * time.Second, nil
}

func (c *Controller) connectResponse(p port.ConnectParams, found port.Connected) (protocol.ConnectResponse, error) {
	cluster, err := name.ParseCluster(found.Cluster)
	if err != nil {
		return protocol.ConnectResponse{}, refuse(protocol.Other, err, "backend %s is recorded with a cluster that has no valid name", found.BackendID)
	}
	r := protocol.ConnectResponse{
		BackendID:   found.BackendID,
		Spawned:     found.Spawned,
		Status:      found.Status,
		Token:       p.Token,
		SecretToken: &p.SecretToken,
		StatusURL:   c.cfg.ControllerURL + "/pub/b/" + found.BackendID + "/status",
	}
	if found.StaticToken != "" {
		r.Token, r.SecretToken = found.StaticToken, nil
	}
	if found.Subdomain != "" {
		r.Subdomain = &found.Subdomain
	}
	r.URL = cluster.URL(found.Subdomain, r.Token)
	if found.Spawned {
		r.Drone = &found.Drone
		c.cfg.Log.Info("gave a key to a new backend", "backend", found.BackendID, "drone", found.Drone, "cluster", found.Cluster)
	}
	return r, nil
}

// connectError says in words why there is no backend.
func (c *Controller) connectError(req protocol.ConnectRequest, err error) error {
	switch {
	case errors.Is(err, port.ErrKeyUnheld):
		return refuse(protocol.KeyUnheldNoSpawnConfig, nil, "nothing holds the key; give a spawn_config to start a backend for it")
	case errors.Is(err, port.ErrKeyHeld):
		return refuse(protocol.KeyHeld, nil, "the key is held by a backend with another tag")
	case errors.Is(err, port.ErrKeyUnhealthy):
		return refuse(protocol.KeyHeldUnhealthy, nil, "the backend that holds the key is ending; try again in some seconds")
	case errors.Is(err, port.ErrNoDrone):
		return refuse(protocol.NoDroneAvailable, nil, "%s", noDrone(err))
	case errors.Is(err, port.ErrBackendExists) && req.SpawnConfig.ID != nil:
		return invalid("spawn_config.id: the name %q was given to a backend of another key", *req.SpawnConfig.ID)
	case errors.Is(err, port.ErrStaticUser):
		return invalid("user, auth: the backend that holds the key has a static token, for which they have no meaning; leave them out")
	}
	return databaseError(err)
}

func noDrone(err error) string {
	if explained, ok := errors.AsType[*port.NoDroneError](err); ok {
		return explained.Explanation
	}
	return port.ErrNoDrone.Error()
}

func refuse(kind protocol.ErrorKind, cause error, format string, args ...any) error {
	return &protocol.APIError{Kind: kind, Message: fmt.Sprintf(format, args...), Cause: cause}
}

func invalid(format string, args ...any) error {
	return refuse(protocol.InvalidRequest, nil, format, args...)
}

// databaseError hides what the store said from the caller, who may be anybody.
func databaseError(err error) error {
	return refuse(protocol.DatabaseError, err, "the store did not answer as it should; trying again is safe")
}
