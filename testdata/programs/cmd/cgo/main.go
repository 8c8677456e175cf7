// Cgo parks goroutines below and above C code: in a C function, and in Go functions that C called back, one within the other. Build
// it with CGO_ENABLED=1.
package main

/*
#include <stdint.h>
#include <unistd.h>

extern void goCallback(uintptr_t handle, int depth);

static void callBack(uintptr_t handle, int depth) { goCallback(handle, depth); }
static void inC(int fd) { char c; while (read(fd, &c, 1) < 0) {} }
*/
import "C"

import (
	"runtime"
	"runtime/cgo"
	"syscall"

	"goref.test/fixtures/truth"
)

// V is 48 bytes.
type V [5]uint64

type Passed struct {
	v *V
}

var (
	park    = make(chan struct{})
	started = make(chan struct{})
	fds     [2]int
)

//go:noinline
func newV() *V { return new(V) }

// outer calls C, which calls inner; the frames of all of them are on the goroutine's stack.
//
// What C got a handle of is under the table of handles.
//
//goref:expect within="value. (interface {})" since="1.24" min_count=5
//goref:expect within="v. (*$P.V)" count=5 bytes=240
//goref:expect path="$P.outer.v" count=5 bytes=240
//go:noinline
func outer(depth int) {
	v := newV()
	C.callBack(C.uintptr_t(cgo.NewHandle(&Passed{newV()})), C.int(depth))
	runtime.KeepAlive(v)
}

// inner goes down once more, or parks.
//
//goref:expect path="$P.goCallback.w" count=5 bytes=240
//export goCallback
func goCallback(handle C.uintptr_t, depth C.int) {
	w := newV()
	passed := cgo.Handle(handle).Value().(*Passed)
	if depth > 1 {
		outer(int(depth) - 1)
	} else {
		started <- struct{}{}
		<-park
	}
	runtime.KeepAlive(w)
	runtime.KeepAlive(passed)
}

// below is in C.
//
//goref:expect path="$P.below.v" count=1 bytes=48
//go:noinline
func below() {
	v := newV()
	started <- struct{}{}
	C.inC(C.int(fds[0]))
	runtime.KeepAlive(v)
}

func main() {
	if syscall.Pipe(fds[:]) != nil {
		panic("no pipe")
	}
	go outer(1)
	<-started
	go outer(4)
	<-started
	go below()
	<-started
	truth.Point()
}
