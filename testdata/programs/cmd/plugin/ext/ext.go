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
	//goref:expect path="$P.Global" count=1 bytes=32
	//goref:expect path="$P.Global -> next. (*$P.Own)" count=9 bytes=288
	Global *Own
	//goref:expect path="$P.table -> $mapval. (*$P.Own)" count=100 bytes=3200
	//goref:expect path="$P.table -> $mapval. (*$P.Own) -> name. (string)" count=100 bytes=4800
	table = map[string]*Own{}
	//goref:expect path="$P.large" count=1 bytes=896
	//goref:expect path="$P.large -> own. ([100]*$P.Own) -> [10+]. (*$P.Own)" count=1 bytes=32
	large *Big
	//goref:expect path="$P.static -> next. (*$P.Own)" count=1 bytes=32
	static = &Own{name: "static"}
	//goref:expect path="$P.boxed" count=1 bytes=32
	//goref:expect path="$P.boxed -> name. (string)" count=1 bytes=48
	boxed interface{}
	//goref:expect path="$P.fn -> $P.Build.func1 -> captured. (*$P.Own)" since="1.23" count=1 bytes=32
	fn    func() *Own
	park  = make(chan *Own)
	start = make(chan struct{})
)

//go:noinline
func newOwn(n int) *Own {
	return &Own{name: "a name of more than sixteen bytes " + strconv.Itoa(n)}
}

// What the module does not explain.
//
//goref:expect within="bss segment[1]" count=0 bytes=0
//goref:expect path="$P.worker.held" count=1 bytes=32
//goref:expect path="$P.worker.held -> tags. (map[string]*$P.Own) -> $mapval. (*$P.Own)" count=1 bytes=32
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
	for i := 0; i < 10; i++ {
		Global = &Own{next: Global, name: newOwn(i).name}
	}
	for i := 0; i < 100; i++ {
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
