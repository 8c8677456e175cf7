// Package kinds: one value of every kind, in every place a value can be held.
package kinds

import (
	"runtime"
	"strings"
	"unsafe"
)

type V [4]uint64 // 32 bytes, no pointers

type Part struct{ P *V }

type Namer interface{ Name() string }

func (v *V) Name() string { return "v" }

// All is 136 bytes, in a slot of 144.
type All struct {
	Ptr    *V
	Str    string
	Slice  []*V
	Array  [2]*V
	Struct Part
	Map    map[int64]*V
	Chan   chan *V
	Func   func() *V
	Eface  interface{}
	Iface  Namer
	Unsafe unsafe.Pointer
}

// The frames under each holder are the same.
//
// Map header 48 and one group of 8 + 8*16 in a slot of 144.
//
// Channel header 104 or 112 in a slot of 112, buffer of 16.
//
// Two values in interfaces: a pointer (direct) and a struct that is a pointer in one word (direct too).
//
//goref:define HOLDER="[[$P.Global|$P.Pointer|$P.Boxed|$P.InMap -> $mapval. ($P.All)|$P.InSlice -> [0]. ($P.All)|$P.InChan -> [0]. ($P.All)|$P.Captured -> $P.capture.func1 -> all. ($P.All)]]"
//goref:expect path="$HOLDER -> Ptr. (*$P.V)" count=1 bytes=32
//goref:expect path="$HOLDER -> Str. (string)" count=1 bytes=64
//goref:expect path="$HOLDER -> Slice. ([]*$P.V)" count=1 bytes=16
//goref:expect path="$HOLDER -> Slice. ([]*$P.V) -> [0]. (*$P.V)" count=1 bytes=32
//goref:expect path="$HOLDER -> Slice. ([]*$P.V) -> [1]. (*$P.V)" count=1 bytes=32
//goref:expect path="$HOLDER -> Array. ([2]*$P.V) -> [1]. (*$P.V)" count=1 bytes=32
//goref:expect path="$HOLDER -> Struct. ($P.Part) -> P. (*$P.V)" count=1 bytes=32
//goref:expect path="$HOLDER -> Map. (map[int64]*$P.V)" without="noswissmap" count=2 bytes=192
//goref:expect path="$HOLDER -> Map. (map[int64]*$P.V)" with="noswissmap" count=2 bytes=208
//goref:expect path="$HOLDER -> Map. (map[int64]*$P.V) -> $mapval. (*$P.V)" count=2 bytes=64
//goref:expect path="$HOLDER -> Chan. (chan *$P.V)" since="1.23" count=2 bytes=128
//goref:expect path="$HOLDER -> Chan. (chan *$P.V)" until="1.22" count=2 bytes=112
//goref:expect path="$HOLDER -> Chan. (chan *$P.V) -> [0]. (*$P.V)" count=1 bytes=32
//goref:expect path="$HOLDER -> Func. (func() *$P.V)" count=1 bytes=16
//goref:expect path="$HOLDER -> Func. (func() *$P.V) -> $P.fill.func1 -> held. (*$P.V)" count=1 bytes=32
//goref:expect path="$HOLDER -> Eface. (interface {}) -> P. (*$P.V)" count=1 bytes=32
//goref:expect path="$HOLDER -> Iface. ($P.Namer)" count=1 bytes=32
//goref:expect path="$HOLDER -> Unsafe. (unsafe.Pointer)" count=1 bytes=32
var (
	Global All
	//goref:expect path="$P.Pointer" count=1 bytes=144
	Pointer *All
	// An interface with a struct of several words holds a box.
	//goref:expect path="$P.Boxed" count=1 bytes=144
	Boxed interface{}
	// Values over 128 bytes are stored behind a pointer; the box is counted on the value's frame.
	//goref:expect path="$P.InMap -> $mapval. ($P.All)" count=1 bytes=144
	InMap map[int64]All
	//goref:expect path="$P.InSlice" count=1 bytes=144
	InSlice []All
	//goref:expect path="$P.InChan" since="1.23" count=2 bytes=256
	//goref:expect path="$P.InChan" until="1.22" count=2 bytes=240
	InChan chan All
	// A captured value over 128 bytes is captured by reference: the closure object is {F, &all}.
	//goref:expect path="$P.Captured" count=1 bytes=16
	//goref:expect path="$P.Captured -> $P.capture.func1 -> all. ($P.All)" count=1 bytes=144
	Captured func() *All
)

//go:noinline
func fill() All {
	held := new(V)
	a := All{
		Ptr:    new(V),
		Str:    strings.Repeat("x", 64),
		Slice:  []*V{new(V), new(V)},
		Array:  [2]*V{new(V), new(V)},
		Struct: Part{new(V)},
		Map:    map[int64]*V{1: new(V), 2: new(V)},
		Chan:   make(chan *V, 2),
		Func:   func() *V { return held },
		Eface:  Part{new(V)},
		Iface:  new(V),
		Unsafe: unsafe.Pointer(new(V)),
	}
	a.Chan <- new(V)
	return a
}

//go:noinline
func capture() func() *All {
	all := fill()
	return func() *All { return &all }
}

// locals parks with every kind alive in its frame.
//
//goref:expect path="$P.locals.ptr" mode="noopt" count=1 bytes=32
//goref:expect path="$P.locals.str" mode="noopt" count=1 bytes=64
//goref:expect path="$P.locals.slice" mode="noopt" count=1 bytes=16
//goref:expect path="$P.locals.slice -> [1]. (*$P.V)" mode="noopt" count=1 bytes=32
//goref:expect path="$P.locals.m" mode="noopt" without="noswissmap" count=2 bytes=192
//goref:expect path="$P.locals.m" mode="noopt" with="noswissmap" count=2 bytes=208
//goref:expect path="$P.locals.m -> $mapval. (*$P.V)" mode="noopt" count=2 bytes=64
//goref:expect path="$P.locals.c" mode="noopt" since="1.23" count=2 bytes=128
//goref:expect path="$P.locals.c" mode="noopt" until="1.22" count=2 bytes=112
//goref:expect path="$P.locals.c -> [0]. (*$P.V)" mode="noopt" count=1 bytes=32
//goref:expect path="$P.locals.f" mode="noopt" count=1 bytes=16
//goref:expect path="$P.locals.f -> $P.fill.func1 -> held. (*$P.V)" mode="noopt" count=1 bytes=32
//goref:expect path="$P.locals.e -> P. (*$P.V)" mode="noopt" count=1 bytes=32
//goref:expect path="$P.locals.i" mode="noopt" count=1 bytes=32
//goref:expect path="$P.locals.u" mode="noopt" count=1 bytes=32
//go:noinline
func locals(park chan struct{}) {
	a := fill()
	ptr, str, slice, m, c, f, e, i, u := a.Ptr, a.Str, a.Slice, a.Map, a.Chan, a.Func, a.Eface, a.Iface, a.Unsafe
	a = All{}
	<-park
	runtime.KeepAlive(ptr)
	runtime.KeepAlive(str)
	runtime.KeepAlive(slice)
	runtime.KeepAlive(m)
	runtime.KeepAlive(c)
	runtime.KeepAlive(f)
	runtime.KeepAlive(e)
	runtime.KeepAlive(i)
	runtime.KeepAlive(u)
}

var park = make(chan struct{})

func Build() {
	Global = fill()
	Pointer = new(All)
	*Pointer = fill()
	Boxed = fill()
	InMap = map[int64]All{7: fill()}
	InSlice = []All{fill()}
	InChan = make(chan All, 1)
	InChan <- fill()
	Captured = capture()
	go locals(park)
}
