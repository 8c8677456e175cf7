// Crash dies in the way that its argument names: run it with GOTRACEBACK=crash and `ulimit -c unlimited`, or under a debugger
// that stops at SIGABRT. The numbers written before are the truth. Nothing here allocates after them; what the dying runtime
// allocates is named in `tests/crash.rs`.
package main

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"goref.test/fixtures/truth"
)

type Node struct {
	next *Node
	data [2]uint64
}

// V is 32 bytes.
type V [4]uint64

// Failure is an error that was made before the crash (at link time, but for its v) and says what it is without allocating.
type Failure struct {
	text string
	v    *V
}

func (f *Failure) Error() string { return f.text }

var (
	//goref:expect path="$P.head" count=1 bytes=24
	//goref:expect path="$P.head -> next. (*$P.Node)" count=9999 bytes=239976
	head *Node
	//goref:expect path="$P.table -> $mapval. (*$P.V)" count=1000 bytes=32000
	table = map[int64]*V{}
	//goref:expect path="$P.parked.v" count=50 bytes=1600
	park    = make(chan struct{})
	started = make(chan struct{})
	//goref:expect path="$P.failure -> v. (*$P.V)" count=1 bytes=32
	failure = &Failure{"a failure", new(V)}
	missing *V
	mutex   sync.Mutex

	spinning int32
	sink     uint64
	held     func()

	// A func value, so that calling it takes the goroutine's own closure out of the register for closures.
	announce = func() { atomic.AddInt32(&spinning, 1) }
)

//go:noinline
func newV() *V { return new(V) }

//go:noinline
func parked(v *V) {
	started <- struct{}{}
	<-park
	v[0]++
}

//go:noinline
func crash(way string) {
	switch way {
	case "panic":
		panic(failure)
	case "nil":
		sink = missing[1]
	case "deadlock":
		select {}
	case "unlock":
		mutex.Unlock() // a fatal error of package sync: no panic that could be recovered
	case "unstarted":
		h := held
		held = nil
		go h()
		truth.Kill(syscall.SIGABRT)
	case "quit":
		truth.Kill(syscall.SIGQUIT)
	case "spin", "preempted", "prologue", "abort":
		truth.Kill(syscall.SIGABRT)
	}
}

// spin holds v in a register: no pointer map says so where the signal finds it.
//
//go:noinline
func spin(v *V) {
	announce()
	for {
		v[0]++
	}
}

// entered is called over and over, and holds what the caller gives away: where the goroutine is stopped in the prologue, to be
// preempted, the arguments are in the places where registers are spilled.
//
//go:noinline
func entered(v *V, s []*V, n uint64) (*V, []*V, uint64) {
	return v, s, entered2(n, [8]uint64{n})
}

//go:noinline
func entered2(n uint64, a [8]uint64) uint64 {
	var room [64]uint64
	room[n%64] = n
	return room[(n+1)%64] + a[n%8] + 1
}

//go:noinline
func enter(v *V, s []*V) {
	n := uint64(0)
	announce()
	for {
		v, s, n = entered(v, s, n)
	}
}

// A goroutine that never ran has its closure in a register to be.
//
//go:noinline
func holder(v *V) func() {
	return func() {
		<-park
		v[0]++
	}
}

func main() {
	for i := 0; i < 10_000; i++ {
		head = &Node{next: head}
	}
	for i := int64(0); i < 1000; i++ {
		table[i] = new(V)
	}
	for i := 0; i < 50; i++ {
		go parked(newV())
		<-started
	}
	way := os.Args[1]
	switch way {
	case "spin":
		go spin(newV())
		for atomic.LoadInt32(&spinning) < 1 {
			runtime.Gosched()
		}
	case "preempted": // the only processor is ours whenever we run
		runtime.GOMAXPROCS(1)
		go spin(newV())
		for atomic.LoadInt32(&spinning) < 1 {
			runtime.Gosched()
		}
	case "prologue":
		runtime.GOMAXPROCS(1)
		for i := 0; i < 2; i++ {
			go enter(newV(), []*V{newV(), newV()})
		}
		for atomic.LoadInt32(&spinning) < 2 {
			runtime.Gosched()
		}
	case "unstarted":
		runtime.GOMAXPROCS(1)
		held = holder(newV())
		runtime.GC() // starts its workers
		for i := 0; i < 8; i++ {
			go func() {}() // the place of a dead goroutine is free when it is needed
		}
		runtime.Gosched()
	}
	//goref:expect path="$P.main.local" count=1 bytes=32
	local := newV()
	truth.Settle()
	crash(way)
	local[0]++
}
