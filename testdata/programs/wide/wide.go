// Package wide: types whose pointer mask is long: over 128 words masks are built on demand, over 512 bytes objects have
// malloc headers, over 32 kB spans of their own.
package wide

type V [4]uint64 // 32 bytes

// Wide has a pointer prefix of 200 words.
type Wide struct {
	P [200]*V
}

// Sparse has pointers at its two ends, 300 words apart.
type Sparse struct {
	First *V
	pad   [300]uint64
	Last  *V
}

type Huge struct {
	Head *V
	Mid  [5000]uint64
	Tail []*V
}

var (
	//goref:expect path="$P.Pointer" count=1 bytes=1792
	//goref:expect path="$P.Pointer -> P. ([200]*$P.V) -> [0]. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Pointer -> P. ([200]*$P.V) -> [10+]. (*$P.V)" count=190 bytes=6080
	Pointer *Wide
	//goref:expect path="$P.Global -> P. ([200]*$P.V) -> [10+]. (*$P.V)" count=190 bytes=6080
	Global Wide
	// 2416 bytes and header: slot of 2688.
	//goref:expect path="$P.Ends" count=1 bytes=2688
	//goref:expect path="$P.Ends -> First. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Ends -> Last. (*$P.V)" count=1 bytes=32
	Ends *Sparse
	// Ten times 2416 bytes and header: slot of 24576.
	//goref:expect path="$P.EndsSlice" count=1 bytes=24576
	//goref:expect path="$P.EndsSlice -> [9]. ($P.Sparse) -> Last. (*$P.V)" count=1 bytes=32
	EndsSlice []Sparse
	// A hundred: a large object of 30 pages.
	//goref:expect path="$P.LargeSlice" count=1 bytes=245760
	//goref:expect path="$P.LargeSlice -> [10+]. ($P.Sparse) -> First. (*$P.V)" count=90 bytes=2880
	//goref:expect path="$P.LargeSlice -> [10+]. ($P.Sparse) -> Last. (*$P.V)" count=90 bytes=2880
	LargeSlice []Sparse
	// 40032 bytes: five pages.
	//goref:expect path="$P.One" count=1 bytes=40960
	//goref:expect path="$P.One -> Head. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.One -> Tail. ([]*$P.V)" count=1 bytes=16
	//goref:expect path="$P.One -> Tail. ([]*$P.V) -> [1]. (*$P.V)" count=1 bytes=32
	One *Huge
	// A pointer to an array of structs, and to one element of another.
	//goref:expect path="$P.Array" count=1 bytes=2688
	//goref:expect path="$P.Array -> [10+]. ($P.Elem) -> P. (*$P.V)" count=90 bytes=2880
	Array *[100]Elem
	// Element 70 of an array with a header: the array's own type names all elements.
	//goref:expect path="$P.Element" count=1 bytes=2688
	//goref:expect prefix="$P.Element" count=101 bytes=5888
	Element *Elem
	// 16 MB without pointers.
	//goref:expect path="$P.Bulk" count=1 bytes=16777216
	Bulk []byte
)

type Elem struct {
	P *V
	n [2]uint64
}

func sparse(n int) []Sparse {
	s := make([]Sparse, n)
	for i := range s {
		s[i].First, s[i].Last = new(V), new(V)
	}
	return s
}

func array() *[100]Elem {
	a := new([100]Elem)
	for i := range a {
		a[i].P = new(V)
	}
	return a
}

func Build() {
	Pointer = new(Wide)
	for i := range Pointer.P {
		Pointer.P[i] = new(V)
		Global.P[i] = new(V)
	}
	Ends = &sparse(1)[0]
	EndsSlice = sparse(10)
	LargeSlice = sparse(100)
	One = &Huge{Head: new(V), Tail: []*V{new(V), new(V)}}
	Array = array()
	Element = &array()[70]
	Bulk = make([]byte, 16<<20)
}
