// Package statics: package variables whose values the linker laid out. Static memory is not counted; what it holds is.
package statics

type V [4]uint64 // 32 bytes

type T struct {
	F *V
	G []*V
	n int
}

var (
	// &T{} is an unnamed static in the data segment, claimed by the variable's typed pointer.
	//goref:expect path="$P.Literal" count=0 bytes=0
	//goref:expect path="$P.Literal -> F. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Literal -> G. ([]*$P.V)" count=1 bytes=16
	//goref:expect path="$P.Literal -> G. ([]*$P.V) -> [1]. (*$P.V)" count=1 bytes=32
	Literal = &T{n: 1}
	// All zero: the unnamed static is in the bss segment.
	//goref:expect path="$P.Zero -> F. (*$P.V)" count=1 bytes=32
	Zero = &T{}
	// A static array of pointers to statics.
	//goref:expect path="$P.Slice" count=0 bytes=0
	//goref:expect path="$P.Slice -> [0]. (*$P.T)" count=0 bytes=0
	//goref:expect path="$P.Slice -> [0]. (*$P.T) -> F. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Slice -> [1]. (*$P.T) -> F. (*$P.V)" count=1 bytes=32
	Slice = []*T{{n: 1}, {n: 2}}
	// A static behind an interface.
	//goref:expect path="$P.Iface" count=0 bytes=0
	//goref:expect path="$P.Iface -> F. (*$P.V)" count=1 bytes=32
	Iface interface{} = &T{n: 3}
	// A variable of a plain type, and the address of another variable: that one is named by itself.
	//goref:expect path="$P.Other -> F. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.ToOther" count=0 bytes=0
	Other   T
	ToOther = &Other
	// Uninitialised memory (bss) and initialised (data).
	//goref:expect path="$P.Bss -> [3]. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Data -> [3]. (*$P.V)" count=1 bytes=32
	Bss   [8]*V
	Data  = [8]*V{0: &fixed}
	fixed V
	// Over 10 elements.
	//goref:expect path="$P.Many -> [10+]. ($P.T) -> F. (*$P.V)" count=20 bytes=640
	Many [30]T
)

func Build() {
	Literal.F = new(V)
	Literal.G = []*V{new(V), new(V)}
	Zero.F = new(V)
	Slice[0].F, Slice[1].F = new(V), new(V)
	Iface.(*T).F = new(V)
	Other.F = new(V)
	Bss[3], Data[3] = new(V), new(V)
	for i := range Many {
		Many[i].F = new(V)
	}
}
