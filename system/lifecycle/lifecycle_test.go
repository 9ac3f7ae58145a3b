package lifecycle_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/lifecycle"
)

var (
	t0     = time.Unix(1_700_000_000, 0)
	limits = lifecycle.Limits{Grace: 30 * time.Second, Ready: 300 * time.Second, Lease: lease.Default()}
)

func after(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

// life is one whose lease was taken at t0.
func life(s backend.State) lifecycle.Life {
	return lifecycle.Life{State: s, Deadlines: lease.Default().Deadlines(t0), ReadyBy: after(300)}
}

func alive(s backend.Status) lifecycle.Life {
	st := backend.State{Status: s}
	if s == backend.Waiting || s == backend.Ready {
		st.Address = "10.0.0.1:1"
	}
	return life(st)
}

func ending(kind backend.Kind, reason backend.Reason) lifecycle.Life {
	return alive(backend.Ready).Terminate(t0, kind, reason, "", limits)
}

func TestASpawnAndItsLease(t *testing.T) {
	for name, c := range map[string]struct {
		now    float64
		status backend.Status
		fresh  bool
	}{
		"at once":                            {0, backend.Loading, true},
		"just before it is due for renewal":  {29.9, backend.Loading, true},
		"due for renewal":                    {30, backend.Loading, false},
		"soft deadline passed":               {40, backend.Terminated, false},
		"hard deadline passed":               {50, backend.Terminated, false},
		"taken in the future by a bad clock": {-0.001, backend.Loading, false},
		"taken far in the future":            {-1e6, backend.Loading, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := lifecycle.Spawned(after(c.now), lease.Default().Deadlines(t0), limits)
			require.Equal(t, c.status, l.State.Status)
			require.Equal(t, c.fresh, l.Fresh(after(c.now)))
			require.False(t, l.Deadlines.HardTerminateAt.After(after(c.now+50)))
			if c.status == backend.Terminated {
				require.Equal(t, backend.KeyExpired, l.State.Reason)
				require.NotEmpty(t, l.State.Message)
			}
		})
	}
}

func TestWhatTimeDoes(t *testing.T) {
	lateReady := alive(backend.Waiting)
	lateReady.ReadyBy = after(20)
	for name, c := range map[string]struct {
		life   lifecycle.Life
		now    float64
		status backend.Status
		reason backend.Reason
	}{
		"nothing before the soft deadline":          {alive(backend.Ready), 39.9, backend.Ready, ""},
		"soft deadline":                             {alive(backend.Ready), 40, backend.Terminating, backend.KeyExpired},
		"hard deadline, the soft one was missed":    {alive(backend.Ready), 50, backend.HardTerminating, backend.KeyExpired},
		"soft deadline while loading":               {alive(backend.Loading), 40, backend.Terminating, backend.KeyExpired},
		"no HTTP answer in time":                    {lateReady, 20, backend.HardTerminating, backend.StartupTimeout},
		"a soft termination before its end":         {ending(backend.Soft, backend.Swept), 29.9, backend.Terminating, backend.Swept},
		"a soft termination turns hard":             {ending(backend.Soft, backend.Swept), 30, backend.HardTerminating, backend.Swept},
		"a hard deadline in a soft termination":     {alive(backend.Ready).Terminate(after(35), backend.Soft, backend.External, "", limits), 50, backend.HardTerminating, backend.External},
		"a hard termination stays what it is":       {ending(backend.Hard, backend.External), 1000, backend.HardTerminating, backend.External},
		"what is over stays over, whatever happens": {ending(backend.Hard, backend.External).Gone(), 1000, backend.Terminated, backend.External},
	} {
		t.Run(name, func(t *testing.T) {
			next := c.life.At(after(c.now), limits)
			require.Equal(t, c.status.String(), next.State.Status.String())
			require.Equal(t, c.reason, next.State.Reason)
			if next.State.Status != c.life.State.Status {
				require.False(t, c.life.NextDue().After(after(c.now)), "it must have been due by then")
				require.False(t, c.life.NextDue().IsZero())
			}
		})
	}
}

func TestNothingIsDueBeforeTheNextDue(t *testing.T) {
	for _, l := range []lifecycle.Life{
		alive(backend.Loading), alive(backend.Starting), alive(backend.Waiting), alive(backend.Ready),
		ending(backend.Soft, backend.Swept),
	} {
		due := l.NextDue()
		require.Equal(t, l, l.At(due.Add(-time.Nanosecond), limits))
		require.NotEqual(t, l.State.Status, l.At(due, limits).State.Status)
	}
	require.Zero(t, ending(backend.Hard, backend.Swept).NextDue())
}

func TestWhatALookAtTheContainerMeans(t *testing.T) {
	running := lifecycle.Sight{Presence: lifecycle.Running, Address: "10.0.0.1:1"}
	three := 3
	ended := lifecycle.Sight{Presence: lifecycle.Ended, ExitCode: &three}
	for name, c := range map[string]struct {
		life   lifecycle.Life
		sight  lifecycle.Sight
		status backend.Status
		reason backend.Reason
	}{
		"started":                       {alive(backend.Starting), running, backend.Waiting, ""},
		"runs as before":                {alive(backend.Ready), running, backend.Ready, ""},
		"runs at another address":       {alive(backend.Ready), lifecycle.Sight{Presence: lifecycle.Running, Address: "10.0.0.1:2"}, backend.HardTerminating, backend.InternalError},
		"runs although it is to end":    {ending(backend.Soft, backend.Swept), running, backend.Terminating, backend.Swept},
		"not there yet":                 {alive(backend.Starting), lifecycle.Sight{Presence: lifecycle.Absent}, backend.Starting, ""},
		"created, not started":          {alive(backend.Starting), lifecycle.Sight{Presence: lifecycle.Created}, backend.Starting, ""},
		"gone":                          {alive(backend.Waiting), lifecycle.Sight{Presence: lifecycle.Absent}, backend.Terminated, ""},
		"ended by itself":               {alive(backend.Ready), ended, backend.Terminated, ""},
		"ended before it answered HTTP": {alive(backend.Waiting), ended, backend.Terminated, ""},
		"ended as it was told to":       {ending(backend.Soft, backend.Swept), ended, backend.Terminated, backend.Swept},
	} {
		t.Run(name, func(t *testing.T) {
			next := c.life.Seen(t0, c.sight, limits)
			require.Equal(t, c.status.String(), next.State.Status.String())
			require.Equal(t, c.reason, next.State.Reason)
			if c.sight.Presence == lifecycle.Ended {
				require.Equal(t, 3, *next.State.ExitCode)
			}
		})
	}
}

func TestWhichOffersAreTaken(t *testing.T) {
	for name, c := range map[string]struct {
		now, asked, local float64
		ok                bool
	}{
		"from the last request":               {31, 31, 31, true},
		"from an earlier request":             {33, 33, 31, true},
		"from a later time than was sent":     {33, 31, 32, false},
		"after the lease has run out":         {50, 31, 31, false},
		"so late that it has run out as well": {90, 39, 39, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := alive(backend.Ready).CheckOffer(after(c.now), after(c.asked), lease.Default().Deadlines(after(c.local)), limits)
			require.Equal(t, c.ok, err == nil, "%v", err)
		})
	}
	require.Error(t, alive(backend.Ready).CheckOffer(after(1), time.Time{}, lease.Default().Deadlines(after(1)), limits), "nothing was asked")
	require.False(t, lifecycle.Newer(lease.Default().Deadlines(t0), lease.Default().Deadlines(t0)))
	require.True(t, lifecycle.Newer(lease.Default().Deadlines(after(0.001)), lease.Default().Deadlines(t0)))
}

func TestTheNextStep(t *testing.T) {
	type known = lifecycle.Known
	over := ending(backend.Hard, backend.External).Gone()
	soft, hard := ending(backend.Soft, backend.External), ending(backend.Hard, backend.External)
	for name, c := range map[string]struct {
		life  lifecycle.Life
		known known
		want  lifecycle.Step
	}{
		"a new spawn waits for the journal":       {alive(backend.Loading), known{Container: lifecycle.Absent}, lifecycle.None},
		"then pulls":                              {alive(backend.Loading), known{Container: lifecycle.Absent, Saved: true}, lifecycle.Pull},
		"no start without a lease":                {alive(backend.Starting), known{Container: lifecycle.Absent, Saved: true}, lifecycle.None},
		"no start before the journal":             {alive(backend.Starting), known{Container: lifecycle.Absent, Startable: true}, lifecycle.None},
		"start":                                   {alive(backend.Starting), known{Container: lifecycle.Absent, Saved: true, Startable: true}, lifecycle.Start},
		"what is unclear is looked at first":      {alive(backend.Starting), known{Saved: true, Startable: true}, lifecycle.Inspect},
		"a taken port":                            {alive(backend.Starting), known{Container: lifecycle.Absent, Saved: true, Startable: true, PortTaken: true}, lifecycle.NewPort},
		"hopeless":                                {alive(backend.Starting), known{Container: lifecycle.Created, Saved: true, Doomed: true}, lifecycle.Discard},
		"probe":                                   {alive(backend.Waiting), known{Container: lifecycle.Running, Saved: true}, lifecycle.Probe},
		"an exit is looked at before a probe":     {alive(backend.Waiting), known{Saved: true}, lifecycle.Inspect},
		"ready":                                   {alive(backend.Ready), known{Container: lifecycle.Running, Saved: true}, lifecycle.None},
		"stop":                                    {soft, known{Container: lifecycle.Running}, lifecycle.Stop},
		"stop once":                               {soft, known{Container: lifecycle.Running, Asked: true}, lifecycle.None},
		"kill, whatever the journal does":         {hard, known{Container: lifecycle.Running}, lifecycle.Kill},
		"kill what is not known":                  {hard, known{}, lifecycle.Kill},
		"ended before anything ran":               {soft, known{Container: lifecycle.Absent}, lifecycle.Discard},
		"no end while a start may still happen":   {soft, known{Container: lifecycle.Absent, Unsettled: true}, lifecycle.None},
		"the end is written before what shows it": {over, known{}, lifecycle.None},
		"goes":                                      {over, known{Saved: true}, lifecycle.Discard},
		"the port waits for the controller":         {over, known{Saved: true, Removed: true, Expired: true}, lifecycle.None},
		"the port is given back":                    {over, known{Saved: true, Removed: true, Acked: true}, lifecycle.Release},
		"remembered until the spawn has run out":    {over, known{Saved: true, Removed: true, Acked: true, Released: true}, lifecycle.None},
		"forgotten":                                 {over, known{Saved: true, Removed: true, Acked: true, Released: true, Expired: true}, lifecycle.Forget},
		"a hard end is not kept waiting by a probe": {hard, known{Container: lifecycle.Running, Saved: true}, lifecycle.Kill},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want.String(), lifecycle.Plan(c.life, c.known).String())
		})
	}
}
