//go:build go1.27

package frames

import (
	"io"
	"runtime"
	"runtime/pprof"
)

// Nobody can ever wake it: the collector says so when asked, and keeps what it holds.
//
//goref:expect path="$P.leaked.v" since="1.27" count=1 bytes=48
//go:noinline
func leaked(c chan *V) {
	v := newV()
	started <- struct{}{}
	<-c
	runtime.KeepAlive(v)
}

func leak() {
	go leaked(make(chan *V))
	<-started
	pprof.Lookup("goroutineleak").WriteTo(io.Discard, 1)
}
