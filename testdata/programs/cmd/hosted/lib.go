// Hosted is Go in a program of another language: host/host.c loads or contains it. Build it with -buildmode=c-shared or c-archive.
package main

import "C"

import (
	"runtime"
	"strconv"

	"goref.test/fixtures/lists"
	"goref.test/fixtures/maps"
	"goref.test/fixtures/truth"
)

// Node is 32 bytes.
type Node struct {
	next *Node
	name string
	map_ map[string]*Node
}

var (
	//goref:expect path="$P.List" count=1 bytes=32
	//goref:expect path="$P.List -> next. (*$P.Node)" count=99 bytes=3168
	List  *Node
	park  = make(chan *Node)
	start = make(chan struct{})
)

//go:noinline
func newNode(n int) *Node { return &Node{name: "a name of more than sixteen bytes " + strconv.Itoa(n)} }

//goref:expect path="$P.parked.held" count=1 bytes=32
//goref:expect path="$P.parked.held -> name. (string)" count=1 bytes=48
//go:noinline
func parked() {
	held := newNode(1)
	start <- struct{}{}
	<-park
	runtime.KeepAlive(held)
}

//export Build
func Build(n C.int) {
	lists.Build()
	maps.Build()
	for range int(n) {
		List = &Node{next: List}
	}
	go parked()
	<-start
}

// Point is called by C on the main thread.
//
//goref:expect path="$P.Point.local" count=1 bytes=32
//goref:expect path="$P.Point.local -> name. (string)" count=1 bytes=48
//export Point
func Point() {
	local := newNode(2)
	truth.Point()
	runtime.KeepAlive(local)
}

func main() {}
