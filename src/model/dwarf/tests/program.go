// Package main states facts about types, variables and closures that the tests of the DWARF reader and of descriptors assert.
package main

import (
	"os"
	"sync"
)

type Inner struct {
	A int
	B *string
}

type Embedded struct {
	Inner
	*sync.Mutex
	Name    string
	List    []Inner
	Any     any
	Err     error
	F       func(int) string
	M       map[string]*Inner
	C       chan Inner
	Arr     [3]Inner
	Up      uintptr
	Complex complex128
	Flag    bool
	_       [0]func()
	Next    *Embedded
}

type Pair[K comparable, V any] struct {
	Key K
	Val V
}

type Num int
type Alias = Inner
type Names []string
type MyMap map[Num]Names
type Fn func(*Inner) error
type Ptr *Inner
type Big [40]int
type BigMap map[Big]Big

// OnlyBehindInterface is reached through an interface alone.
type OnlyBehindInterface struct {
	Self  *OnlyBehindInterface
	Table map[string]map[Num]chan<- *Inner
	Queue <-chan Pair[Num, *Inner]
	Big   BigMap
	Anon  struct{ X, Y Names }
	Call  func(Inner, ...Num) (Ptr, error)
}

var global Embedded
var globalPair = Pair[string, *Inner]{"x", nil}
var globalMap = MyMap{1: {"a"}}
var sinkVar any

//go:noinline
func sink(x any) { sinkVar = x }

//go:noinline
func block(x *Embedded, n int, s string) int {
	local := &Inner{A: n}
	escaped := n
	f := func() int { escaped++; return local.A + len(s) + x.Arr[1].A }
	if n > 1 {
		inner := s + s
		sink(inner)
		sink(f)
		return f() + len(inner)
	}
	sink(&escaped)
	return f() + escaped
}

func inlined(list []Inner) (sum int) {
	for i := range list {
		element := list[i]
		sum += element.A + len(*element.B)
	}
	return sum
}

//go:noinline
func caller(e *Embedded) int {
	result := inlined(e.List)
	sink(e)
	return result
}

//go:noinline
func generic[T any](v T, p *Pair[int, T]) func() T {
	w := []T{v}
	sink(w)
	return func() T { sink(p); return w[0] }
}

//go:noinline
func byValue(n int, s string, e [2]Inner) func() int {
	return func() int { sink(n); return n + len(s) + e[1].A }
}

func (e *Embedded) method(n int) int { return n + e.A }

func main() {
	s := "abc"
	global.B = &s
	sink(generic[Inner](Inner{1, nil}, &Pair[int, Inner]{1, Inner{}}))
	sink(generic[*Inner](nil, nil))
	sink(block(&global, len(os.Args), "q"))
	sink(caller(&global))
	sink(byValue(len(os.Args), s, [2]Inner{}))
	sink(global.method)
	sink(OnlyBehindInterface{})
	sink(globalMap)
	sink(globalPair)
	sink(Fn(nil))
	sink(Ptr(nil))
	println(len(os.Args))
}
