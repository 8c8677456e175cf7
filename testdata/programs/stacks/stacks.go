// Package stacks: what parked goroutines hold in their frames.
package stacks

import "runtime"

type V [6]uint64 // 48 bytes

type Pair struct {
	P, Q *V
}

var (
	park    = make(chan struct{})
	started = make(chan struct{})
)

// argument is alive during the call because it is used afterwards.
//
//goref:expect path="$P.argument.arg" count=100 bytes=4800
//go:noinline
func argument(arg *V) {
	started <- struct{}{}
	<-park
	runtime.KeepAlive(arg)
}

// local variable of the frame.
//
//goref:expect path="$P.local.v" count=10 bytes=480
//go:noinline
func local() {
	v := new(V)
	escape(v)
	started <- struct{}{}
	<-park
	runtime.KeepAlive(v)
}

// A dead variable's slot is no root: what it pointed to is gone at the truth.
//
//goref:expect path="$P.dead.v" mode="default" count=0 bytes=0
//go:noinline
func dead() {
	v := new(V)
	escape(v)
	started <- struct{}{}
	<-park
}

// A struct local: fields follow.
//
//goref:expect path="$P.structLocal.pair -> P. (*$P.V)" mode="noopt" count=4 bytes=192
//goref:expect path="$P.structLocal.pair -> Q. (*$P.V)" mode="noopt" count=4 bytes=192
//go:noinline
func structLocal() {
	pair := Pair{new(V), new(V)}
	escape(pair.P)
	escape(pair.Q)
	started <- struct{}{}
	<-park
	runtime.KeepAlive(pair)
}

// owner has a stack object: its address is taken but does not escape. The callee's argument makes it
// live; it is named by the variable that it is.
//
//goref:expect path="$P.owner.s -> P. (*$P.V)" since="1.18" count=3 bytes=144
//goref:expect path="$P.owner.s -> P. (*$P.V)" until="1.17" without="race" count=3 bytes=144
//goref:expect path="$P.owner.s -> Q. (*$P.V)" since="1.18" count=3 bytes=144
//goref:expect path="$P.owner.s -> Q. (*$P.V)" until="1.17" without="race" count=3 bytes=144
//go:noinline
func owner() {
	var s Pair
	s.P, s.Q = new(V), new(V)
	escape(s.P)
	escape(s.Q)
	callee(&s)
}

//go:noinline
func callee(s *Pair) {
	started <- struct{}{}
	<-park
	runtime.KeepAlive(s)
}

// inlined is part of its caller's physical frame; its variables are named by it.
//
//goref:expect path="$P.inlined.q" count=2 bytes=96
func inlined(c chan struct{}) {
	q := new(V)
	escape(q)
	<-c
	runtime.KeepAlive(q)
}

//go:noinline
func inliner() {
	started <- struct{}{}
	inlined(park)
}

// deep is a recursion of ten frames, each with an argument of its own: one label.
//
//goref:expect path="$P.deep.p" count=10 bytes=480
//go:noinline
func deep(n int, p *V) {
	if n == 0 {
		started <- struct{}{}
		<-park
	} else {
		deep(n-1, newV())
	}
	runtime.KeepAlive(p)
}

// A deferred closure holds what it captured until the function ends. The closure is in the frame, and its code says what it holds.
//
//goref:expect path="$P.deferred -> $P.deferred.func1 -> w. (*$P.V)" mode="default" since="1.23" count=1 bytes=48
//go:noinline
func deferred() {
	w := newV()
	defer func() { runtime.KeepAlive(w) }()
	started <- struct{}{}
	<-park
}

// Deferred calls in a loop are records on the heap: they are named by the calls that lead to the function that deferred them.
//
//goref:expect path="$P.Build.func3 -> $P.deferredLoop -> $P.deferredLoop.func1 -> w. (*$P.V)" mode="default" count=20 bytes=960
//go:noinline
func deferredLoop(n int) {
	for i := 0; i < n; i++ {
		w := newV()
		defer func() { runtime.KeepAlive(w) }()
	}
	started <- struct{}{}
	<-park
}

// A slice and an interface as locals.
//
//goref:expect path="$P.compound.s" mode="noopt" count=1 bytes=32
//goref:expect path="$P.compound.s -> [3]. (*$P.V)" mode="noopt" count=1 bytes=48
//goref:expect path="$P.compound.e" mode="noopt" count=1 bytes=48
//go:noinline
func compound() {
	s := newSlice(4)
	var e interface{} = newV()
	started <- struct{}{}
	<-park
	runtime.KeepAlive(s)
	runtime.KeepAlive(e)
}

// A map that does not escape: its header is a stack object, the rest is on the heap and the map's.
//
//goref:expect path="$P.mapLocal.m -> $mapval. (*$P.V)" mode="noopt" count=100 bytes=4800
//go:noinline
func mapLocal(n int64) {
	m := make(map[int64]*V)
	for i := int64(0); i < n; i++ {
		m[i] = newV()
	}
	started <- struct{}{}
	<-park
	for _, v := range m {
		runtime.KeepAlive(v)
	}
}

// A variable that escapes lives on the heap; the frame holds its address.
//
//goref:expect path="$P.escaping.x" count=2 bytes=56
//go:noinline
func escaping() {
	x := newV()
	f := func() { x = newV() }
	keep(&f)
	started <- struct{}{}
	<-park
	runtime.KeepAlive(x)
}

// A captured variable is one of the closure's own: it is alive in the goroutine's frame.
//
//goref:expect path="$P.captured.func1.p" mode="noopt" count=1 bytes=48
func captured() {
	p := newV()
	go func() {
		started <- struct{}{}
		<-park
		runtime.KeepAlive(p)
	}()
}

// A named result.
//
//goref:expect path="$P.result.r" mode="noopt" count=1 bytes=48
//go:noinline
func result() (r *V) {
	r = newV()
	defer func() { recover() }()
	started <- struct{}{}
	<-park
	return r
}

// Many frames between, and a panic being handled: the goroutine is parked inside a deferred function.
//
//go:noinline
func panicking(p *V) {
	defer func() {
		started <- struct{}{}
		<-park
		runtime.KeepAlive(p)
	}()
	panic(p)
}

var sink *V
var keepSink **func()

//go:noinline
func keep(f *func()) { keepSink = &f; keepSink = nil }

//go:noinline
func escape(v *V) { sink = v; sink = nil }

// newV keeps its object off the stack: the compiler allocates there what it sees not to escape, even for a go statement.
//
//go:noinline
func newV() *V { return new(V) }

//go:noinline
func newSlice(n int) []*V {
	s := make([]*V, n)
	for i := range s {
		s[i] = newV()
	}
	return s
}

func Build() {
	n := 0
	start := func(count int, f func()) {
		for i := 0; i < count; i++ {
			go f()
			n++
		}
	}
	for i := 0; i < 100; i++ {
		go argument(newV())
		n++
	}
	start(10, local)
	start(5, dead)
	start(4, structLocal)
	start(3, owner)
	start(2, inliner)
	start(1, func() { deep(9, newV()) })
	start(1, deferred)
	start(1, func() { deferredLoop(20) })
	start(1, compound)
	start(1, func() { mapLocal(100) })
	start(1, escaping)
	captured()
	n++
	start(1, func() { result() })
	start(1, func() { panicking(newV()) })
	for i := 0; i < n; i++ {
		<-started
	}
}
