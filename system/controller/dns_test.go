package controller_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
	"plane/system/protocol"
)

func (r *rig) receiver() *peer { return r.dial(r.ServeDNS, "ns-1") }

// setChallenge adds a value for a cluster's challenge, as a proxy's.
func (r *rig) setChallenge(cluster, proxy, value string) {
	id, err := r.store.RegisterNode(r.Context(), port.NodeRegistration{Kind: port.ProxyNode, Cluster: cluster, Name: proxy, Connection: proxy})
	require.NoError(r, err)
	require.NoError(r, r.store.AddChallenge(r.Context(), cluster, id, value, time.Minute))
}

func (p *peer) lookUp(q protocol.TxtRecordRequest) []protocol.TxtRecordResponse {
	p.in <- protocol.EncodeFromDNS(q)
	return p.toDNS()
}

func (p *peer) toDNS() (all []protocol.TxtRecordResponse) {
	for _, f := range p.heard() {
		m, err := protocol.DecodeToDNS(f)
		require.NoError(p.r, err)
		all = append(all, m.(protocol.TxtRecordResponse))
	}
	return all
}

func TestAReceiverIsToldEveryValueOfACluster(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		r.setChallenge("c1.test", "px-1", "older")
		r.setChallenge("c1.test", "px-2", "newer")
		p := r.receiver()
		got := p.lookUp(protocol.TxtRecordRequest{Cluster: "C1.Test", RequestID: 7})
		require.Len(t, got, 1)
		require.Equal(t, "C1.Test", got[0].Cluster, "the name comes back as it was")
		require.Equal(t, uint64(7), got[0].RequestID)
		require.ElementsMatch(t, []string{"older", "newer"}, got[0].TxtValues)
		require.Equal(t, got[0].TxtValues[0], *got[0].TxtValue, "a receiver of 0.5.x knows of one")
	})
}

func TestAReceiverIsToldThatThereIsNothing(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		p := r.receiver()
		for _, cluster := range []string{"c1.test", "_no.cluster", "a..b", "c1.test:99999"} {
			require.Equal(t, []protocol.TxtRecordResponse{{Cluster: cluster}}, p.lookUp(protocol.TxtRecordRequest{Cluster: cluster}))
		}
	})
}

func TestGarbageFromAReceiverEndsNothing(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		p := r.receiver()
		for _, frame := range []string{"", "{", `{"Snooze":{}}`, `{"TxtRecordRequest":{}}`, `{"TxtRecordRequest":{"cluster":"` + strings.Repeat("a", 1000) + `"}}`} {
			p.in <- []byte(frame)
		}
		require.Len(t, p.lookUp(protocol.TxtRecordRequest{Cluster: "c1.test"}), 1)
	})
}

// What comes in while the store is away must not wait behind what came before.
func TestAReceiverIsToldThatTheStoreIsAway(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		silence := lookUp(func(ctx context.Context, _ []string) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		r.store.lookUp.Store(&silence)
		p := r.receiver()
		for i := range 100 {
			p.in <- protocol.EncodeFromDNS(protocol.TxtRecordRequest{Cluster: "c1.test", RequestID: uint64(i + 1)})
		}
		p.in <- protocol.EncodeFromDNS(protocol.TxtRecordRequest{Cluster: "c2.test"})
		pass(2 * time.Second)
		got := p.toDNS()
		require.Len(t, got, 100, "all but the one that could not tell this from an answer")
		for _, m := range got {
			require.True(t, m.Failed)
		}
		synctest.Wait()
	})
}

// Whatever names a flood thinks up, the store has one call at a time, and who asks
// for a cluster that is there waits for no more than two.
func TestAFloodOfNamesIsOneCallOfTheStore(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		r.setChallenge("c1.test", "px-1", "value")
		var calls [][]string
		let := make(chan struct{})
		slow := lookUp(func(_ context.Context, clusters []string) error {
			calls = append(calls, clusters)
			<-let
			return nil
		})
		r.store.lookUp.Store(&slow)
		p := r.receiver()
		ask := func(id uint64, cluster string) {
			p.in <- protocol.EncodeFromDNS(protocol.TxtRecordRequest{Cluster: cluster, RequestID: id})
		}
		ask(1, "first.test")
		synctest.Wait()
		const flood = 500
		for i := range uint64(flood) {
			ask(2+i, fmt.Sprintf("x%d.test", i))
		}
		ask(flood+2, "C1.test")
		synctest.Wait()
		require.Equal(t, [][]string{{"first.test"}}, calls)
		let <- struct{}{}
		let <- struct{}{}
		got := p.toDNS()
		require.Len(t, got, flood+2)
		for i, m := range got {
			require.Equal(t, uint64(i+1), m.RequestID)
			if m.Cluster != "C1.test" {
				require.Empty(t, m.TxtValues, m.Cluster)
			}
		}
		require.Equal(t, []string{"value"}, got[flood+1].TxtValues)
		require.Len(t, calls, 2)
		require.Len(t, calls[1], flood+1)
	})
}
