// Package specials: finalizers and cleanups, set and queued. Build must come last: it blocks the finalizer goroutine.
package specials

import (
	"runtime"
)

type V [4]uint64 // 32 bytes

type Object struct {
	P *V
	n [5]uint64 // 48 bytes together
}

// Weight is 3072 bytes.
type Weight [384]uint64

var (
	// The object is held by a variable and its fields are reached from there; the finalizer's function only by the special.
	//goref:expect path="$P.Finalized" count=1 bytes=48
	//goref:expect path="$P.Finalized -> P. (*$P.V)" count=1 bytes=32
	//goref:expect path="runtime.SetFinalizer.fn -> $P.setFinalizer.func1 -> w. (*$P.Weight)" count=1 bytes=3072
	Finalized *Object
	blocked   = make(chan struct{})
	release   = make(chan struct{})
)

//go:noinline
func setFinalizer(o *Object) {
	w := new(Weight)
	runtime.SetFinalizer(o, func(*Object) { w[0]++ })
}

// queue leaves objects with finalizers unreachable: one finalizer blocks, the others stay queued behind it.
//
//go:noinline
func queue() {
	for i := 0; i < 20; i++ {
		o := &Object{P: new(V)}
		runtime.SetFinalizer(o, func(o *Object) {
			select {
			case blocked <- struct{}{}:
			default:
			}
			<-release
			o.P = nil
		})
	}
}

// A chain of finalizers: the outer object keeps the inner alive until it ran.
type link struct {
	inner *link
	pad   [7]uint64
}

//go:noinline
func chain() {
	var l *link
	for i := 0; i < 3; i++ {
		l = &link{inner: l}
		runtime.SetFinalizer(l, func(l *link) { l.pad[0]++ })
	}
}

func Build() {
	Finalized = &Object{P: new(V)}
	setFinalizer(Finalized)
	buildCleanup()
	done := make(chan struct{})
	go func() { <-blocked; close(done) }()
	queue()
	go chain()
	for {
		runtime.GC()
		select {
		case <-done:
			return
		default:
			runtime.Gosched()
		}
	}
}
