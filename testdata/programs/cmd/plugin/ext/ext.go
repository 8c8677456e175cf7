// The plugin: what only its variables, closures and goroutines hold.
package main

import "strconv"

type Own struct {
	next *Own
	name string
	tags map[string]*Own
}

type Big struct {
	own [100]*Own
}

var (
	Global *Own
	table  = map[string]*Own{}
	large  *Big
	static = &Own{name: "static"}
	boxed  any
	fn     func() *Own
	park   = make(chan *Own)
	start  = make(chan struct{})
)

//go:noinline
func newOwn(n int) *Own {
	return &Own{name: "a name of more than sixteen bytes " + strconv.Itoa(n)}
}

//go:noinline
func worker() {
	held := newOwn(77)
	held.tags = map[string]*Own{"x": newOwn(78)}
	start <- struct{}{}
	<-park
	println(held.name)
}

// Build fills the variables.
func Build() {
	for i := range 10 {
		Global = &Own{next: Global, name: newOwn(i).name}
	}
	for i := range 100 {
		table["key number "+strconv.Itoa(i)] = newOwn(i)
	}
	large = new(Big)
	large.own[99] = newOwn(5)
	static.next = newOwn(6)
	boxed = newOwn(7)
	captured := newOwn(8)
	fn = func() *Own { return captured }
	go worker()
	<-start
}
