package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// The range of ports that is given out unless something else is asked for. It
// lies below the ports that Linux gives to outgoing connections.
const (
	DefaultLowPort  = 10000
	DefaultHighPort = 29999
)

// Boottime is the machine's time since it was started. It counts while the
// machine is suspended, and nobody can set it.
type Boottime interface {
	SinceBoot() time.Duration
	BootID() string
}

// Ports gives out the machine's ports; it implements port.Ports for one drone.
//
// All drones of a machine have to use one file: any number of processes may
// have it open at once. A port that was not released stays with its backend
// for ever, through restarts of the agent and of the machine; ReleaseOthers
// gives back those of backends that the drone no longer knows. Those of a drone
// that never comes back stay taken; when no drone runs on the machine, the file
// may be deleted.
//
// Quarantines are counted on the machine's time since boot. After a boot they
// are counted anew from when the row is first seen, which is only ever longer.
type Ports struct {
	file      *file
	owner     string
	low, high int
	clock     Boottime
}

var portMigrations = []string{`
	CREATE TABLE port (
		port       INTEGER PRIMARY KEY,
		owner      TEXT NOT NULL,
		backend_id TEXT NOT NULL,
		-- The rest is null while the backend has the port, and says then how
		-- long nobody gets it. Times are nanoseconds since the boot.
		quarantine INTEGER,
		boot       TEXT,
		free_at    INTEGER
	) STRICT;
	CREATE UNIQUE INDEX port_held ON port (owner, backend_id) WHERE free_at IS NULL;`,
}

// replaceQuarantine is how long a port is left alone that another program has.
const replaceQuarantine = 10 * time.Minute

// DefaultPortsPath is where all drones of the machine find the file: in
// /var/lib/plane for root, else in the user's state directory.
func DefaultPortsPath() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/plane/ports.db", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "plane", "ports.db"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the table of ports: %w", err)
	}
	return filepath.Join(home, ".local", "state", "plane", "ports.db"), nil
}

// OpenPorts opens the machine's table of ports, or makes it, for the drone that
// owner names uniquely on the machine (its cluster and name). Ports from low to
// high are given out.
func OpenPorts(path, owner string, low, high int, clock Boottime) (*Ports, error) {
	if low < 1 || high > 65535 || low > high {
		return nil, fmt.Errorf("range of ports %d-%d: want two ports from 1 to 65535, the lower one first", low, high)
	}
	f, err := openFile(path, "stop all drones of this machine and their backends, delete the file, and start them again", portMigrations)
	if err != nil {
		return nil, fmt.Errorf("table of ports: %w", err)
	}
	// This is the first sight of what was released in an earlier boot.
	now, boot := int64(clock.SinceBoot()), clock.BootID()
	err = f.write(context.Background(), "open", func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE port SET boot = ?1, free_at = ?2 + quarantine WHERE boot != ?1", boot, now)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("table of ports: %w", err), f.close())
	}
	return &Ports{file: f, owner: owner, low: low, high: high, clock: clock}, nil
}

// Close closes the table.
func (p *Ports) Close() error { return p.file.close() }

// Acquire implements port.Ports.
func (p *Ports) Acquire(ctx context.Context, backendID string) (port int, err error) {
	err = p.file.write(ctx, "acquire a port in", func(tx *sql.Tx) error {
		port, err = p.acquire(ctx, tx, backendID)
		return err
	})
	if err != nil {
		return 0, err
	}
	return port, nil
}

// Replace implements port.Ports.
func (p *Ports) Replace(ctx context.Context, backendID string) (port int, err error) {
	err = p.file.write(ctx, "replace a port in", func(tx *sql.Tx) error {
		if err := p.release(ctx, tx, backendID, replaceQuarantine); err != nil {
			return err
		}
		port, err = p.acquire(ctx, tx, backendID)
		return err
	})
	if err != nil {
		return 0, err
	}
	return port, nil
}

// Release implements port.Ports.
func (p *Ports) Release(ctx context.Context, backendID string, quarantine time.Duration) error {
	return p.file.write(ctx, "release a port in", func(tx *sql.Tx) error {
		return p.release(ctx, tx, backendID, quarantine)
	})
}

// ReleaseOthers releases the ports that this drone's journal has forgotten:
// those of all backends but the ones to keep. To be called before the drone
// starts, for an agent may have stopped between forgetting a backend and
// releasing its port, and a journal may have been lost. Harmless twice.
func (p *Ports) ReleaseOthers(ctx context.Context, keep []string, quarantine time.Duration) error {
	kept := make(map[string]bool, len(keep))
	for _, id := range keep {
		kept[id] = true
	}
	return p.file.write(ctx, "release ports in", func(tx *sql.Tx) error {
		var forgotten []string
		err := each(ctx, tx, "SELECT port, backend_id, owner FROM port WHERE free_at IS NULL", func(_ int64, backendID, owner string) error {
			if owner == p.owner && !kept[backendID] {
				forgotten = append(forgotten, backendID)
			}
			return nil
		})
		for _, id := range forgotten {
			err = errors.Join(err, p.release(ctx, tx, id, quarantine))
		}
		return err
	})
}

func (p *Ports) release(ctx context.Context, tx *sql.Tx, backendID string, quarantine time.Duration) error {
	quarantine = max(quarantine, 0)
	_, err := tx.ExecContext(ctx, `UPDATE port SET quarantine = ?, boot = ?, free_at = ?
		WHERE owner = ? AND backend_id = ? AND free_at IS NULL`,
		int64(quarantine), p.clock.BootID(), int64(p.clock.SinceBoot()+quarantine), p.owner, backendID)
	return err
}

func (p *Ports) acquire(ctx context.Context, tx *sql.Tx, backendID string) (int, error) {
	var port int
	err := tx.QueryRowContext(ctx, "SELECT port FROM port WHERE owner = ? AND backend_id = ? AND free_at IS NULL", p.owner, backendID).Scan(&port)
	if !errors.Is(err, sql.ErrNoRows) {
		return port, err
	}
	taken, err := p.taken(ctx, tx)
	if err != nil {
		return 0, err
	}
	port, err = p.draw(ctx, taken)
	if err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO port (port, owner, backend_id) VALUES (?, ?, ?)", port, p.owner, backendID)
	return port, err
}

// taken drops the rows whose quarantine is over, and returns the rest.
func (p *Ports) taken(ctx context.Context, tx *sql.Tx) (map[int]bool, error) {
	if _, err := tx.ExecContext(ctx, "DELETE FROM port WHERE free_at <= ?", int64(p.clock.SinceBoot())); err != nil {
		return nil, err
	}
	taken := map[int]bool{}
	err := each(ctx, tx, "SELECT port, backend_id, owner FROM port", func(port int64, _, _ string) error {
		taken[int(port)] = true
		return nil
	})
	return taken, err
}

// draw picks one of the free ports at random, so that a port that was just given
// back is not the likeliest next one.
func (p *Ports) draw(ctx context.Context, taken map[int]bool) (int, error) {
	free := make([]int, 0, p.high-p.low+1)
	for port := p.low; port <= p.high; port++ {
		if !taken[port] {
			free = append(free, port)
		}
	}
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	for _, port := range free {
		switch vacant, err := isVacant(ctx, port); {
		case err != nil:
			return 0, err
		case vacant:
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port from %d to %d is free: %d are held by backends or in quarantine, other programs listen on the rest; end backends or widen the range",
		p.low, p.high, p.high-p.low+1-len(free))
}

// isVacant reports whether nothing listens on the port, on any address.
func isVacant(ctx context.Context, port int) (bool, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(port))
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("try whether port %d is free: %w", port, err)
	}
	return true, l.Close()
}
