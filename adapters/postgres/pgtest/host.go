package pgtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// program finds a program of PostgreSQL: on PATH, or where Debian puts it, the
// newest version first. Empty when there is none.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	newest, best := "", 0
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) //nolint:errcheck // the pattern is well-formed
	for _, path := range found {
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		if err == nil && version > best {
			newest, best = path, version
		}
	}
	return newest
}

// credential is whom servers run as: PostgreSQL refuses to run as root. Nil is
// this process's own user.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // which is what SysProcAttr wants to be told
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

// command is a program that runs as the server's user and ends with us.
func command(path string, args ...string) (*exec.Cmd, error) {
	who, err := credential()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...) //nolint:noctx // its end is that of this process, or asked for
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGQUIT}
	return cmd, nil
}

// startOnOwnThread starts a command whose death signal comes when this process
// ends, not when some thread of it does.
func startOnOwnThread(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never let go: the thread is the parent
		started <- cmd.Start()
		select {}
	}()
	return <-started
}

// run runs a program of PostgreSQL to its end.
func run(name string, args ...string) error {
	path := program(name)
	if path == "" {
		return fmt.Errorf("there is no %s on this machine", name)
	}
	cmd, err := command(path, args...)
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Pdeathsig = 0 // it may be another thread's child by then, and ends soon
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// memory is a file system in memory; a server there needs room.
const (
	memory     = "/dev/shm"
	memoryRoom = 2 << 30
)

// directory is what a server has on disk, and is gone when the server has been
// closed or this process has ended, however it did.
type directory struct {
	path  string
	alive *os.File // a shell waits for its end, and then tidies up
}

// newDirectory makes a directory that the server's user owns: on a real disk if
// it is to be durable, else in memory if there is room.
func newDirectory(durable bool) (*directory, error) {
	parent := ""
	var fs syscall.Statfs_t
	if !durable && syscall.Statfs(memory, &fs) == nil && fs.Bavail*uint64(fs.Bsize) > memoryRoom {
		parent = memory
	}
	path, err := os.MkdirTemp(parent, "plane-pgtest-")
	if err != nil {
		return nil, err
	}
	d := &directory{path: path}
	if err := d.removeAtEnd(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return d, giveAway(path)
}

// removeAtEnd has a shell of its own session wait until nobody holds alive any
// more, and remove the directory. The server, which ends at the same time, may
// need a moment to let go.
func (d *directory) removeAtEnd() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	script := `read -r _; for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$0" && break; sleep 0.3; done`
	cmd := exec.Command("/bin/sh", "-c", script, d.path) //nolint:noctx // it outlives us
	cmd.Dir = "/"
	cmd.Stdin = read
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = errors.Join(cmd.Start(), read.Close())
	if err != nil {
		return errors.Join(err, write.Close())
	}
	d.alive = write
	go cmd.Wait() //nolint:errcheck // so that it does not stay a zombie
	return nil
}

// giveAway makes the server's user the owner.
func giveAway(path string) error {
	who, err := credential()
	if err != nil || who == nil {
		return err
	}
	return os.Chown(path, int(who.Uid), int(who.Gid))
}

// initdb makes a data directory: a copy of one that was made before, in which
// case it takes 50 ms rather than 500.
func initdb(data string) error {
	args := []string{"-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"}
	kept, err := keptCluster(args)
	if err == nil && exec.Command("cp", "-a", "--", kept, data).Run() == nil { //nolint:noctx // some milliseconds
		return giveAwayAll(data)
	}
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	if err := run("initdb", append(args, "-D", data)...); err != nil {
		return err
	}
	if kept != "" {
		keep(data, kept)
	}
	return nil
}

// keptCluster is where the data directory that initdb makes is kept.
func keptCluster(args []string) (string, error) {
	version, err := exec.Command(program("postgres"), "--version").Output() //nolint:noctx // some milliseconds
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(version, "%q", args))
	kept := filepath.Join(cache, "plane-pgtest", hex.EncodeToString(sum[:8]))
	_, err = os.Stat(kept)
	return kept, err
}

// keep puts a copy of a data directory aside for others. It may fail: then they
// make their own.
func keep(data, kept string) {
	if os.MkdirAll(filepath.Dir(kept), 0o700) != nil {
		return
	}
	fresh, err := os.MkdirTemp(filepath.Dir(kept), "new-")
	if err != nil {
		return
	}
	defer os.RemoveAll(fresh)                                                            //nolint:errcheck // it has moved
	if exec.Command("cp", "-a", "--", data, filepath.Join(fresh, "data")).Run() == nil { //nolint:noctx // some milliseconds
		_ = os.Rename(filepath.Join(fresh, "data"), kept) // fails when another was first
	}
}

// giveAwayAll makes the server's user the owner of all that is there.
func giveAwayAll(path string) error {
	return filepath.WalkDir(path, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return giveAway(path)
	})
}
