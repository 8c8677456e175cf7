// Package frames: goroutines whose frames the collector treats by rules of their own: stubs of package reflect, traps, deferred
// calls while a panic unwinds, loop bodies of iterators, system calls, waits inside the runtime and the library.
package frames

import (
	"reflect"
	"runtime"
	"sync"
	"syscall"
	"time"
)

type V [5]uint64 // 48 bytes

type Obj struct {
	P *V
}

var (
	park    = make(chan struct{})
	started = make(chan struct{})
	never   = make(chan struct{})
	null    *V
	zero    uint64
	rec     interface{}

	mu    sync.Mutex
	rw    sync.RWMutex
	cond  = sync.NewCond(new(sync.Mutex))
	group sync.WaitGroup
)

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

//go:noinline
func stop() {
	started <- struct{}{}
	<-park
}

// The function under reflect.MakeFunc drops its arguments: the stub's frame alone holds them, what came in registers in its
// register block, what came on the stack by the argument map of the type.
//
//goref:expect path="$P.makeFunc -> reflect.makeFuncStub" count=4 bytes=160
//goref:expect path="$P.makeFunc -> reflect.makeFuncStub -> $sub_objects$" count=2 bytes=96
//go:noinline
func makeFunc() {
	fn := reflect.MakeFunc(reflect.TypeOf((*func(*V, []*V, [2]*V) *V)(nil)).Elem(), func(args []reflect.Value) []reflect.Value {
		args = nil
		stop()
		return []reflect.Value{reflect.ValueOf(null)}
	}).Interface().(func(*V, []*V, [2]*V) *V)
	fn(newV(), newSlice(2), [2]*V{newV(), newV()})
}

// Before the call the results are not valid; what an earlier call left in their places is no root.
//
//goref:expect path="$P.makeFuncStackResult -> reflect.makeFuncStub" count=1 bytes=48
//go:noinline
func makeFuncStackResult() {
	fn := reflect.MakeFunc(reflect.TypeOf((*func(*V) [2]*V)(nil)).Elem(), func(args []reflect.Value) []reflect.Value {
		args = nil
		stop()
		return []reflect.Value{reflect.ValueOf([2]*V{})}
	}).Interface().(func(*V) [2]*V)
	fn(newV())
}

//go:noinline
func (o *Obj) Wait(v *V, a [2]*V) {
	stop()
}

// A method value made by package reflect.
//
//goref:expect path="$P.methodValue -> reflect.methodValueCall" mode="default" since="1.22" count=2 bytes=96
//go:noinline
func methodValue() {
	fn := reflect.ValueOf(&Obj{newV()}).Method(0).Interface().(func(*V, [2]*V))
	fn(newV(), [2]*V{newV(), newV()})
}

// trapped goes on at its deferreturn call, if at all: only what is live there counts. r is the result, q belongs to the closure.
//
//goref:expect path="$P.trapped.r" count=1 bytes=48
//go:noinline
func trapped(p *V) (r *V) {
	q := newV()
	r = newV()
	defer func() {
		stop()
		runtime.KeepAlive(q)
		rec = recover()
	}()
	zero = null[1] + fault(p)
	return r
}

// fault never goes on: it has no deferred calls. What it held is garbage.
//
//go:noinline
func fault(p *V) uint64 {
	q := newV()
	n := null[0]
	runtime.KeepAlive(p)
	runtime.KeepAlive(q)
	return n
}

// faults is trapped in its callee.
//
// Up to Go 1.17 optimised code has no place for r in the debug information before it returns.
//
//goref:expect path="$P.faults.r" since="1.18" count=1 bytes=48
//goref:expect path="$P.faults.r" until="1.17" mode="noopt" count=1 bytes=48
//go:noinline
func faults() (r *V) {
	r = newV()
	defer func() {
		stop()
		rec = recover()
	}()
	zero = fault(newV())
	return r
}

// A panic in a deferred call of a panic: both values are held by their records.
//
//go:noinline
func nested() {
	defer func() {
		stop()
		rec = recover()
	}()
	defer func() {
		panic(newV())
	}()
	panic(newV())
}

// A deferred call of a function that returns.
//
//goref:expect path="$P.returning.r" mode="noopt" count=1 bytes=48
//go:noinline
func returning() (r *V) {
	q := newV()
	defer stop()
	defer func() { runtime.KeepAlive(q) }()
	return newV()
}

// In a system call.
//
//goref:expect path="$P.inSyscall.v" count=1 bytes=48
//go:noinline
func inSyscall() {
	var fds [2]int
	if syscall.Pipe(fds[:]) != nil {
		panic("no pipe")
	}
	v := newV()
	var b [1]byte
	started <- struct{}{}
	syscall.Read(fds[0], b[:])
	runtime.KeepAlive(v)
}

//goref:expect path="$P.locked.v" count=1 bytes=48
//go:noinline
func locked() {
	v := newV()
	runtime.LockOSThread()
	stop()
	runtime.KeepAlive(v)
}

//goref:expect path="$P.mutex.v" count=1 bytes=48
//go:noinline
func mutex() {
	v := newV()
	started <- struct{}{}
	mu.Lock()
	runtime.KeepAlive(v)
}

//goref:expect path="$P.reader.v" count=1 bytes=48
//go:noinline
func reader() {
	v := newV()
	started <- struct{}{}
	rw.RLock()
	runtime.KeepAlive(v)
}

//goref:expect path="$P.condition.v" count=1 bytes=48
//go:noinline
func condition() {
	v := newV()
	cond.L.Lock()
	started <- struct{}{}
	cond.Wait()
	runtime.KeepAlive(v)
}

//goref:expect path="$P.waits.v" count=1 bytes=48
//go:noinline
func waits() {
	v := newV()
	started <- struct{}{}
	group.Wait()
	runtime.KeepAlive(v)
}

//goref:expect path="$P.sleeps.v" count=1 bytes=48
//go:noinline
func sleeps() {
	v := newV()
	started <- struct{}{}
	time.Sleep(1000 * time.Hour)
	runtime.KeepAlive(v)
}

// The compiler forgets v in code for the race detector and the sanitizers.
//
//goref:expect path="$P.selects.v" without="race,asan,msan" count=1 bytes=48
//go:noinline
func selects() {
	v := newV()
	c := make(chan *V)
	started <- struct{}{}
	select {
	case <-never:
	case c <- newV():
	case <-c:
	case <-time.After(1000 * time.Hour):
	}
	runtime.KeepAlive(v)
}

// Nobody but the timer holds the closure.
//
//go:noinline
func timerFunc() {
	v := newV()
	time.AfterFunc(1000*time.Hour, func() { runtime.KeepAlive(v) })
}

// The compiler keeps no place for a slice of constant size whose memory is in the frame: its address is a constant, too.
//
//goref:expect path="$P.constant.s -> [0]. (*$P.Obj)" since="1.21" count=1 bytes=8
//goref:expect path="$P.constant.s -> [0]. (*$P.Obj) -> P. (*$P.V)" since="1.21" count=1 bytes=48
//goref:expect path="$P.constant.s -> [10+]. (*$P.Obj) -> P. (*$P.V)" since="1.21" count=10 bytes=480
//go:noinline
func constant() {
	s := make([]*Obj, 20)
	for i := range s {
		s[i] = &Obj{newV()}
	}
	stop()
	runtime.KeepAlive(s)
}

func Build() {
	mu.Lock()
	rw.Lock()
	group.Add(1)
	all := []func(){
		makeFunc, makeFuncStackResult, methodValue,
		func() { trapped(newV()) }, func() { faults() }, nested, func() { returning() },
		inSyscall, locked, mutex, reader, condition, waits, sleeps, selects, constant,
	}
	for _, f := range all {
		go f()
		<-started
	}
	iterators()
	timerFunc()
	leak()
}
