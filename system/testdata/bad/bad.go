// Package bad breaks every rule that arch_test.go holds role code to, once, on
// the line that the comment names.
package bad

import (
	"context"
	crand "crypto/rand" // imports crypto/rand
	"maps"
	"math/rand/v2" // imports math/rand/v2
	"net"          // imports net
	"os"           // imports os
	"sync"
	"time"

	"plane/system/controller" // imports another role
	"plane/system/port"
)

type guarded struct {
	mu sync.Mutex // mutex beside port
}

func everything(ctx context.Context, m map[string]int, clock port.Clock) {
	defer func() { _ = recover() }() // recover
	c := make(chan int)              // channel
	go func() {}()                   // go statement
	for range m {                    // range over a map
	}
	for range maps.Keys(m) { // unsorted maps.Keys
	}
	for range c { // receives from a channel
	}
	select { // select
	default:
	}
	_ = time.Now()                                // time.Now
	_ = time.Since(time.Time{})                   // time.Since
	_ = time.Until(time.Time{})                   // time.Until
	time.Sleep(0)                                 // time.Sleep
	_ = time.After(0)                             // time.After
	_ = time.AfterFunc(0, nil)                    // time.AfterFunc
	_ = time.NewTimer(0)                          // time.NewTimer
	_ = time.NewTicker(1)                         // time.NewTicker
	_ = time.Tick(1)                              // time.Tick
	_, _ = context.WithTimeout(ctx, 0)            // context.WithTimeout
	_, _ = context.WithDeadline(ctx, time.Time{}) // context.WithDeadline
	_ = context.AfterFunc(ctx, nil)               // context.AfterFunc
	_ = context.Background()                      // context.Background
	_ = context.TODO()                            // context.TODO
	_, _ = rand.N(1), crand.Reader
	_, _ = os.Args, net.IPv4zero
	_ = controller.Config{}
}
