package main

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// The goals. They are printed beside the figures, and nothing fails for missing
// them: a busy machine would.
const (
	goalHeldRate, goalFreshRate       = 4.0, 12.0  // times the peer's connects per second, at most clients
	goalHeldLatency, goalFreshLatency = 0.75, 0.25 // of the peer's latency, at one client
	goalRest                          = 1.0 / 20   // of one statement each
	goalHistory                       = 0.10       // difference that a long past may make
)

// rates prints connects per second.
func rates(out io.Writer, ours, peer map[cell]figures, peerName string) {
	fmt.Fprintf(out, "\n| connect to | clients | Plane, connects/s | %s, connects/s | ratio | goal |\n|---|--:|--:|--:|--:|---|\n", peerName)
	for _, k := range kinds {
		for _, n := range clients {
			goal := ""
			if n == clients[len(clients)-1] {
				goal = fmt.Sprintf("at least %.0f", pick(k, goalHeldRate, goalFreshRate))
			}
			o, p := ours[cell{k, n}].perSecond, peer[cell{k, n}].perSecond
			fmt.Fprintf(out, "| a %s key | %d | %.0f | %.0f | %s | %s |\n", k, n, o, p, ratio(o/p), goal)
		}
	}
}

// latencies prints how long a connect takes for the only client.
func latencies(out io.Writer, ours, peer map[cell]figures, peerName string) {
	fmt.Fprintf(out, "\n| latency at 1 client | | Plane | %s | ratio | goal |\n|---|---|--:|--:|--:|---|\n", peerName)
	for _, k := range kinds {
		o, p := ours[cell{k, 1}], peer[cell{k, 1}]
		fmt.Fprintf(out, "| a %s key | median | %s | %s | %s | at most %.2f |\n", k, ms(o.median), ms(p.median),
			ratio(float64(o.median)/float64(p.median)), pick(k, goalHeldLatency, goalFreshLatency))
		fmt.Fprintf(out, "| | 99 %% | %s | %s | %s | |\n", ms(o.p99), ms(p.p99), ratio(float64(o.p99)/float64(p.p99)))
	}
}

// efforts prints what a connect costs the server, which says more than rates do
// where other programs want the processors too.
func efforts(out io.Writer, ours, peer map[cell]figures, peerName string) {
	fmt.Fprintf(out, "\n| processor time of the server per connect | clients | Plane | %s | ratio |\n|---|--:|--:|--:|--:|\n", peerName)
	for _, k := range kinds {
		for _, n := range clients {
			o, p := ours[cell{k, n}].server, peer[cell{k, n}].server
			fmt.Fprintf(out, "| a %s key | %d | %s | %s | %s |\n", k, n, ms(o), ms(p), ratio(float64(o)/float64(p)))
		}
	}
}

// pasts prints what a long history costs.
func pasts(out io.Writer, long, empty map[cell]figures) {
	goal := fmt.Sprintf("within %.0f %%", 100*goalHistory)
	fmt.Fprint(out, "\n| connect to | clients | | with history | without | difference | goal |\n|---|--:|---|--:|--:|--:|---|\n")
	for _, k := range kinds {
		for _, n := range clients {
			l, e := long[cell{k, n}], empty[cell{k, n}]
			fmt.Fprintf(out, "| a %s key | %d | connects/s | %.0f | %.0f | %+.0f %% | %s |\n", k, n, l.perSecond, e.perSecond, 100*(l.perSecond/e.perSecond-1), goal)
			if n == 1 {
				fmt.Fprintf(out, "| | | median latency | %s | %s | %+.0f %% | %s |\n", ms(l.median), ms(e.median), 100*(float64(l.median)/float64(e.median)-1), goal)
			}
		}
	}
}

func pick(k kind, held, fresh float64) float64 {
	if k == freshKind {
		return fresh
	}
	return held
}

func ratio(r float64) string { return strconv.FormatFloat(r, 'f', 2, 64) }

func ms(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 2, 64) + " ms"
}

// costs prints what live backends at rest cost the server.
func costs(out io.Writer, ours, each cost) {
	fmt.Fprint(out, "\n| the server, per second | Plane | one statement each | ratio | goal |\n|---|--:|--:|--:|---|\n")
	goal := fmt.Sprintf("at most %.2f", goalRest)
	fmt.Fprintf(out, "| statements | %.0f | %.0f | %s | %s |\n", ours.statements, each.statements, fine(ours.statements/each.statements), goal)
	fmt.Fprintf(out, "| processor time | %.1f ms | %.1f ms | %s | %s |\n", 1000*ours.processor, 1000*each.processor, fine(ours.processor/each.processor), goal)
}

func fine(r float64) string { return strconv.FormatFloat(r, 'f', 3, 64) }
