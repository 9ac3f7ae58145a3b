package ledger_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/ledger"
	"plane/system/port"
	"plane/system/protocol"
)

const (
	benchDrones   = 100
	benchBackends = 20_000
)

// full is a ledger with 100 drones and 20,000 ready backends that a proxy uses.
type full struct {
	*ledger.Ledger
	now   time.Time
	homes []port.NodeID // of backend i
	proxy port.NodeID
}

func fill(b *testing.B) *full {
	f := &full{Ledger: ledger.New(), now: epoch}
	for i := range benchDrones {
		name := fmt.Sprintf("dr-%d", i)
		id := f.RegisterNode(f.now, port.NodeRegistration{Kind: port.DroneNode, Cluster: cluster, Name: name, Connection: "1"})
		f.Heartbeats(f.now, []port.DroneHeartbeat{{Drone: id, Connection: "1", LocalTime: time.Unix(1000, 0)}})
	}
	f.proxy = f.RegisterNode(f.now, port.NodeRegistration{Kind: port.ProxyNode, Cluster: cluster, Name: "px", Connection: "1"})
	for i := range benchBackends {
		c := f.spawn(b, i)
		f.homes = append(f.homes, c.DroneID)
		f.AckActions(c.DroneID, []string{fmt.Sprintf("ak-%d", i)})
		f.RecordStates(f.now, []port.StateReport{{
			Drone: c.DroneID, BackendID: c.BackendID, State: backend.State{Status: backend.Ready, Address: "10.0.0.1:1"}, Time: f.now,
		}})
	}
	f.TakeHints()
	b.ReportAllocs()
	b.ResetTimer()
	return f
}

func (f *full) spawn(b *testing.B, i int) port.Connected {
	c, err := f.Connect(f.now, port.ConnectParams{
		Key: protocol.Key{Name: fmt.Sprintf("k-%d", i)}, Token: fmt.Sprintf("t-%d", i), TokenLife: time.Hour, PlacementSeed: uint64(i),
		Spawn: &port.SpawnParams{
			BackendID: fmt.Sprintf("b-%d", i), ActionID: fmt.Sprintf("ak-%d", i), Cluster: cluster, BestOf: 2,
			Executable: json.RawMessage(`{}`), Lifetime: 1e6 * time.Hour, MaxIdle: 5 * time.Minute, Healthy: time.Minute, Lease: lease.Default(),
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func id(i int) string { return fmt.Sprintf("b-%d", i%benchBackends) }

func BenchmarkSpawnAndEnd(b *testing.B) {
	f := fill(b)
	for i := range b.N {
		c := f.spawn(b, benchBackends+i)
		f.RecordStates(f.now, []port.StateReport{{Drone: c.DroneID, BackendID: c.BackendID, State: backend.State{Status: backend.Terminated}, Time: f.now}})
		f.TakeHints()
	}
}

func BenchmarkConnectToHeldKey(b *testing.B) {
	f := fill(b)
	for i := range b.N {
		if _, err := f.Connect(f.now, port.ConnectParams{Key: protocol.Key{Name: fmt.Sprintf("k-%d", i%benchBackends)}, Token: fmt.Sprintf("u-%d", i), TokenLife: time.Hour}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRouteToken(b *testing.B) {
	f := fill(b)
	for i := range b.N {
		if _, err := f.RouteToken(f.now, fmt.Sprintf("t-%d", i%benchBackends)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRenewKey(b *testing.B) {
	f := fill(b)
	for i := range b.N {
		if !f.RenewKeys(f.now, []port.Renewal{{Drone: f.homes[i%benchBackends], BackendID: id(i), Lease: lease.Default()}})[0] {
			b.Fatal("not renewed")
		}
	}
}

func BenchmarkKeepAliveOfAThousand(b *testing.B) {
	f := fill(b)
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = id(i)
	}
	for range b.N {
		f.KeepAlive(f.now, port.ProxyUse{Proxy: f.proxy, Backends: ids, Complete: true, AsOf: f.now})
	}
}

// BenchmarkSweep is one of every five seconds, over backends that all renew and
// are all in use.
func BenchmarkSweep(b *testing.B) {
	f := fill(b)
	params := port.SweepParams{Limit: 100, DroneLost: 2 * time.Minute, ProxyGone: time.Minute, HardAfter: time.Minute, LeaseGrace: time.Minute}
	ids := make([]string, benchBackends)
	renewals := make([]port.Renewal, benchBackends)
	for i := range ids {
		ids[i] = id(i)
		renewals[i] = port.Renewal{Drone: f.homes[i], BackendID: ids[i], Lease: lease.Default()}
	}
	for range b.N {
		b.StopTimer()
		f.now = f.now.Add(5 * time.Second)
		f.RenewKeys(f.now, renewals)
		f.KeepAlive(f.now, port.ProxyUse{Proxy: f.proxy, Backends: ids, Complete: true, AsOf: f.now})
		b.StartTimer()
		if n, _ := f.Sweep(f.now, params); n != 0 {
			b.Fatal("a used backend was swept")
		}
	}
}
