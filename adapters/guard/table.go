package guard

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"plane/adapters/internal/durable"
	"plane/system/name"
)

// table is the directory with a file for each guarded backend.
type table string

// row is a file's content.
type row struct {
	Boot     string        `json:"boot"`
	Deadline time.Duration `json:"deadline_ns"` // since that boot
}

func (t table) put(backendID, boot string, deadline time.Duration) error {
	content, err := json.Marshal(row{boot, deadline})
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(string(t), backendID), content)
}

func (t table) remove(backendID string) error {
	return durable.Remove(filepath.Join(string(t), backendID))
}

// load reads the deadlines of this boot. Those of other boots are dropped: the
// backends ended with the machine. A row that cannot be understood counts as
// passed.
func (t table) load(boot string, log *slog.Logger) (map[string]time.Duration, error) {
	if err := os.MkdirAll(string(t), 0o700); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(string(t))
	if err != nil {
		return nil, err
	}
	deadlines := map[string]time.Duration{}
	for _, f := range files {
		path := filepath.Join(string(t), f.Name())
		if name.Validate(name.Backend, f.Name()) != nil {
			// Half a write of a guard that was killed.
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var r row
		switch err := json.Unmarshal(content, &r); {
		case err != nil:
			log.Error("a deadline is damaged; killing its backend", "backend", f.Name(), "error", err)
			deadlines[f.Name()] = 0
		case r.Boot == boot:
			deadlines[f.Name()] = r.Deadline
		default:
			if err := t.remove(f.Name()); err != nil {
				return nil, fmt.Errorf("drop a deadline of another boot: %w", err)
			}
		}
	}
	return deadlines, nil
}
