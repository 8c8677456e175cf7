// Crash ends in a core written by the kernel: run it with GOTRACEBACK=crash and `ulimit -c unlimited`. The numbers written
// before are the truth, less what the dying runtime allocates and what registers of the running goroutine keep alive.
package main

import "goref.test/fixtures/truth"

type Node struct {
	next *Node
	data [2]uint64
}

// V is 32 bytes.
type V [4]uint64

var (
	//goref:expect path="$P.head" count=1 bytes=24
	//goref:expect path="$P.head -> next. (*$P.Node)" count=9999 bytes=239976
	head *Node
	//goref:expect path="$P.table -> $mapval. (*$P.V)" count=1000 bytes=32000
	table = map[int64]*V{}
	//goref:expect path="$P.parked.v" count=50 bytes=1600
	park    = make(chan struct{})
	started = make(chan struct{})
)

//go:noinline
func newV() *V { return new(V) }

//go:noinline
func parked(v *V) {
	started <- struct{}{}
	<-park
	v[0]++
}

func main() {
	for range 10_000 {
		head = &Node{next: head}
	}
	for i := range int64(1000) {
		table[i] = new(V)
	}
	for range 50 {
		go parked(newV())
		<-started
	}
	truth.Abort()
}
