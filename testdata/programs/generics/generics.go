//go:build go1.18

// Package generics: parametric types and functions.
package generics

import "runtime"

type V [4]uint64 // 32 bytes

type Box[T any] struct {
	Val  T
	Next *Box[T]
}

type Pair[K comparable, E any] struct {
	Key  K
	Elem E
}

type Set[K comparable] map[K]struct{}

var (
	//goref:expect path="$P.Pointers" count=1 bytes=16
	//goref:expect path="$P.Pointers -> Val. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Pointers -> Next. (*$P.Box[*$P.V])" count=4 bytes=64
	//goref:expect path="$P.Pointers -> Next. (*$P.Box[*$P.V]) -> Val. (*$P.V)" count=4 bytes=128
	Pointers *Box[*V]
	//goref:expect path="$P.Strings -> Val. (string)" count=1 bytes=24
	Strings *Box[string]
	//goref:expect path="$P.Pairs -> [0]. ($P.Pair[string,*$P.V]) -> Elem. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Pairs -> [0]. ($P.Pair[string,*$P.V]) -> Key. (string)" count=1 bytes=24
	Pairs []Pair[string, *V]
	// Behind a value without size there is a padding word: groups of 8 + 8*24 bytes.
	//goref:expect path="$P.Names" since="1.24" without="noswissmap,mapsplitgroup" count=2 bytes=256
	//goref:expect path="$P.Names" with="mapsplitgroup" count=2 bytes=192
	//goref:expect path="$P.Names" until="1.23" count=2 bytes=192
	//goref:expect path="$P.Names -> $mapkey. (string)" count=2 bytes=48
	Names Set[string]
	//goref:expect path="$P.Boxed" count=1 bytes=16
	//goref:expect path="$P.Boxed -> Val. (*$P.V)" count=1 bytes=32
	Boxed any
	// A closure of a generic function; captured values have shaped types.
	//goref:expect path="$P.Closure" count=1 bytes=24
	//goref:expect prefix="$P.Closure" count=2 bytes=56
	Closure func() *V
)

//go:noinline
func newV() *V { return new(V) }

//go:noinline
func text() string { b := make([]byte, 20); return string(b) }

//go:noinline
func hold[T any](v *T) func() *T { return func() *T { return v } }

// wait parks with a variable of parametric type.
//
//goref:expect path="$P.wait[go.shape.[4]uint64].v" since="1.20" count=3 bytes=96
//go:noinline
func wait[T any](v *T, park chan struct{}) {
	<-park
	runtime.KeepAlive(v)
}

var park = make(chan struct{})

func Build() {
	for i := 0; i < 5; i++ {
		Pointers = &Box[*V]{new(V), Pointers}
	}
	Strings = &Box[string]{Val: text()}
	Pairs = []Pair[string, *V]{{text(), new(V)}}
	Names = Set[string]{"0" + text()[:18] + "1": {}, "1" + text()[:18] + "2": {}}
	Boxed = &Box[*V]{Val: new(V)}
	Closure = hold(new(V))
	for i := 0; i < 3; i++ {
		go wait(newV(), park)
	}
}
