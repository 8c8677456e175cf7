// Package slices: slices and arrays of scalars, pointers, structs and slices.
package slices

// Num is 16 bytes: smaller pointer-free objects would share tiny blocks.
type Num [2]int64

type Item struct {
	P *[4]int64 // 32 bytes
	Q *[6]int64 // 48 bytes
}

type Pair struct {
	A, B *Num
}

var (
	//goref:expect path="$P.Bytes" count=1 bytes=4096
	Bytes []byte
	// A slice is scanned to its capacity: element 3 lies past the length.
	//goref:expect path="$P.Pointers" count=1 bytes=32
	//goref:expect path="$P.Pointers -> [0]. (*[8]int64)" count=1 bytes=64
	//goref:expect path="$P.Pointers -> [3]. (*[8]int64)" count=1 bytes=64
	Pointers []*[8]int64
	//goref:expect path="$P.Structs" count=1 bytes=192
	//goref:expect path="$P.Structs -> [0]. ($P.Item) -> P. (*[4]int64)" count=1 bytes=32
	//goref:expect path="$P.Structs -> [0]. ($P.Item) -> Q. (*[6]int64)" count=1 bytes=48
	//goref:expect path="$P.Structs -> [10+]. ($P.Item) -> P. (*[4]int64)" count=2 bytes=64
	//goref:expect path="$P.Structs -> [10+]. ($P.Item) -> Q. (*[6]int64)" count=2 bytes=96
	Structs []Item
	//goref:expect path="$P.ArrayOfStructs -> [1]. ($P.Item) -> P. (*[4]int64)" count=1 bytes=32
	//goref:expect path="$P.ArrayOfStructs -> [1]. ($P.Item) -> Q. (*[6]int64)" count=1 bytes=48
	ArrayOfStructs [2]Item
	//goref:expect path="$P.Matrix" count=1 bytes=96
	//goref:expect path="$P.Matrix -> [0]. ([]*$P.Num)" count=1 bytes=16
	//goref:expect path="$P.Matrix -> [0]. ([]*$P.Num) -> [0]. (*$P.Num)" count=1 bytes=16
	//goref:expect path="$P.Matrix -> [0]. ([]*$P.Num) -> [1]. (*$P.Num)" count=1 bytes=16
	//goref:expect path="$P.Matrix -> [3]. ([]*$P.Num) -> [1]. (*$P.Num)" count=1 bytes=16
	Matrix [][]*Num
	// 200 kB: a large object, rounded up to whole pages.
	//goref:expect path="$P.Large" count=1 bytes=204800
	Large []byte
	// 3000 pointers: 24000 bytes in a slot of 24576 with a malloc header.
	//goref:expect path="$P.Header" count=1 bytes=24576
	//goref:expect path="$P.Header -> [0]. (*$P.Num)" count=1 bytes=16
	//goref:expect path="$P.Header -> [10+]. (*$P.Num)" count=2990 bytes=47840
	Header []*Num
	// 10000 pairs: a large object with pointers.
	//goref:expect path="$P.LargePairs" count=1 bytes=163840
	//goref:expect path="$P.LargePairs -> [10+]. ($P.Pair) -> A. (*$P.Num)" count=9990 bytes=159840
	//goref:expect path="$P.LargePairs -> [10+]. ($P.Pair) -> B. (*$P.Num)" count=9990 bytes=159840
	LargePairs []Pair
	//goref:expect path="$P.Empty" count=0 bytes=0
	Empty = []int64{}
)

//go:noinline
func num(i int) *Num { return &Num{int64(i)} }

func items(n int) []Item {
	s := make([]Item, n)
	for i := range s {
		s[i] = Item{new([4]int64), new([6]int64)}
	}
	return s
}

func Build() {
	Bytes = make([]byte, 4000)
	Pointers = make([]*[8]int64, 4)
	for i := range Pointers {
		Pointers[i] = new([8]int64)
	}
	Pointers = Pointers[:2]
	Structs = items(12)
	copy(ArrayOfStructs[:], items(2))
	Matrix = make([][]*Num, 4)
	for i := range Matrix {
		Matrix[i] = []*Num{num(i), num(i + 1)}
	}
	Large = make([]byte, 200_000)
	Header = make([]*Num, 3000)
	for i := range Header {
		Header[i] = num(i)
	}
	LargePairs = make([]Pair, 10_000)
	for i := range LargePairs {
		LargePairs[i] = Pair{num(i), num(i)}
	}
}
