// Package pointers: plain, interior, double and untyped pointers.
package pointers

import "unsafe"

type V [4]uint64 // 32 bytes

type Inner struct {
	A, B *V
}

type Outer struct {
	Head  *V
	Inner Inner
	Tail  *V
}

type Base struct{ Held *V }

func (b *Base) Hold() *V { return b.Held }

type Holds interface{ Hold() *V }

type Embeds struct {
	Base
	*Outer
	Own *V
}

// Hundred is 800 bytes with its pointer in the last word but one: with a malloc header, in a slot of 896.
type Hundred struct {
	pad  [98]uint64
	Last *V
	end  uint64
}

var (
	//goref:expect path="$P.Plain" count=1 bytes=32
	Plain *V
	//goref:expect path="$P.Double" count=2 bytes=40
	Double **V
	// An interior pointer keeps and counts the whole object; only its own type's words have names, the others are what
	// no type explains.
	//goref:expect path="$P.Interior" count=1 bytes=32
	//goref:expect path="$P.Interior -> A. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Interior -> B. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Interior -> $sub_objects$" count=2 bytes=64
	Interior *Inner
	// Into the middle of pointer-free memory.
	//goref:expect path="$P.Middle" count=1 bytes=4096
	Middle *byte
	//goref:expect path="$P.Untyped" count=1 bytes=32
	//goref:expect path="$P.Untyped -> $sub_objects$" count=4 bytes=128
	Untyped unsafe.Pointer
	// Over 512 bytes an object carries its own type, which replaces the poorer type of the pointer.
	//goref:expect path="$P.UntypedLarge" count=1 bytes=896
	//goref:expect path="$P.UntypedLarge -> Last. (*$P.V)" since="1.22" without="noallocheaders" count=1 bytes=32
	// Up to Go 1.21 it does not.
	//goref:expect path="$P.UntypedLarge -> $sub_objects$" until="1.21" count=1 bytes=32
	UntypedLarge unsafe.Pointer
	// An interface says what it holds, by its type or by its itab (which lies in the same section), whoever holds the interface.
	//goref:expect path="$P.UntypedInterfaces" count=1 bytes=32
	//goref:expect path="$P.UntypedInterfaces -> $sub_objects$" count=2 bytes=16
	//goref:expect path="$P.UntypedInterfaces -> $sub_objects$ -> Held. (*$P.V)" count=2 bytes=64
	UntypedInterfaces unsafe.Pointer
	// A uintptr holds nothing: no expectation, the collector's total says so.
	Hidden uintptr
	//goref:expect path="$P.Struct -> Head. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Struct -> Inner. ($P.Inner) -> A. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Struct -> Inner. ($P.Inner) -> B. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Struct -> Tail. (*$P.V)" count=1 bytes=32
	Struct Outer
	//goref:expect path="$P.Pointer" count=1 bytes=32
	//goref:expect path="$P.Pointer -> Inner. ($P.Inner) -> B. (*$P.V)" count=1 bytes=32
	//goref:expect prefix="$P.Pointer" count=5 bytes=160
	Pointer *Outer
	//goref:expect path="$P.Embedded -> Base. ($P.Base) -> Held. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Embedded -> Outer. (*$P.Outer)" count=1 bytes=32
	//goref:expect path="$P.Embedded -> Outer. (*$P.Outer) -> Tail. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Embedded -> Own. (*$P.V)" count=1 bytes=32
	Embedded Embeds
	// A pointer one past the end of nothing: the zero-size object is not heap.
	//goref:expect path="$P.Zero" count=0 bytes=0
	Zero *struct{}
	// An anonymous struct's name is its literal.
	//goref:expect path="$P.Anonymous" count=1 bytes=16
	//goref:expect path="$P.Anonymous -> x. (*$P.V)" count=1 bytes=32
	Anonymous *struct {
		x *V
		n int
	}
)

func outer() *Outer {
	return &Outer{new(V), Inner{new(V), new(V)}, new(V)}
}

func Build() {
	Plain = new(V)
	Double = new(*V)
	*Double = new(V)
	Interior = &outer().Inner
	Middle = &make([]byte, 4096)[1234]
	Untyped = unsafe.Pointer(outer())
	UntypedLarge = unsafe.Pointer(&Hundred{Last: new(V)})
	UntypedInterfaces = unsafe.Pointer(&struct {
		e interface{}
		i Holds
	}{&Base{new(V)}, &Base{new(V)}})
	Hidden = uintptr(unsafe.Pointer(new(V)))
	Struct = *outer()
	Pointer = outer()
	Embedded = Embeds{Base{new(V)}, outer(), new(V)}
	Zero = new(struct{})
	Anonymous = &struct {
		x *V
		n int
	}{new(V), 1}
}
