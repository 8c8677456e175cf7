//go:build go1.23

package frames

import (
	"iter"
	"runtime"
)

var (
	coro    func() (*V, bool)
	coroEnd func()
)

func three(yield func(*V) bool) {
	for i := 0; i < 3; i++ {
		if !yield(newV()) {
			return
		}
	}
}

// Each turn of the loop body defers a call of the function around it: the records hang on a list of their own.
//
//go:noinline
func rangeFunc() {
	n := 0
	for v := range three {
		w := newV()
		defer func() { runtime.KeepAlive(w) }()
		if n++; n == 3 {
			stop()
		}
		runtime.KeepAlive(v)
	}
}

// A goroutine that switched to another one without the scheduler.
//
//goref:expect path="$P.coroutine.v" count=1 bytes=48
//go:noinline
func coroutine(yield func(*V) bool) {
	v := newV()
	for yield(null) {
	}
	runtime.KeepAlive(v)
}

func iterators() {
	go rangeFunc()
	<-started
	coro, coroEnd = iter.Pull(coroutine)
	coro()
}
