// Package strs: strings held in every place a value can be in.
package strs

import "strings"

type Held struct {
	Name  string
	Other string
}

var (
	// Bytes of a string are counted on the frame of the string; 100 bytes live in a slot of 112.
	//goref:expect path="$P.Global" count=1 bytes=112
	Global string
	// A constant string lies in rodata: nothing to count.
	//goref:expect path="$P.Constant" count=0 bytes=0
	Constant = "constant"
	//goref:expect path="$P.Fields -> Name. (string)" count=1 bytes=64
	//goref:expect path="$P.Fields -> Other. (string)" count=1 bytes=80
	Fields Held
	// The struct is counted on the pointer's frame.
	//goref:expect path="$P.Pointer" count=1 bytes=32
	//goref:expect path="$P.Pointer -> Name. (string)" count=1 bytes=128
	//goref:expect path="$P.Pointer -> Other. (string)" count=1 bytes=144
	Pointer *Held
	//goref:expect path="$P.Array -> [0]. (string)" count=1 bytes=48
	//goref:expect path="$P.Array -> [1]. (string)" count=1 bytes=48
	//goref:expect path="$P.Array -> [2]. (string)" count=0 bytes=0
	Array [3]string
	// 15 strings of 200 bytes (slots of 208): the first ten elements have frames of their own, the rest share one.
	//goref:expect path="$P.Slice" count=1 bytes=240
	//goref:expect path="$P.Slice -> [0]. (string)" count=1 bytes=208
	//goref:expect path="$P.Slice -> [9]. (string)" count=1 bytes=208
	//goref:expect path="$P.Slice -> [10+]. (string)" count=5 bytes=1040
	Slice []string
	// An interface holding a string holds a box of 16 bytes; the string's bytes follow without a frame of their own.
	//goref:expect path="$P.Iface" count=2 bytes=192
	Iface interface{}
	// A substring keeps the whole object alive.
	//goref:expect path="$P.Sub" count=1 bytes=1024
	Sub string
	//goref:expect path="$P.PtrToString" count=2 bytes=272
	PtrToString *string
)

func fresh(n int) string { return strings.Repeat("s", n) }

func Build() {
	Global = fresh(100)
	Fields = Held{fresh(64), fresh(80)}
	Pointer = &Held{fresh(128), fresh(144)}
	Array[0], Array[1] = fresh(48), fresh(48)
	Slice = make([]string, 15)
	for i := range Slice {
		Slice[i] = fresh(200)
	}
	Iface = fresh(170)
	Sub = fresh(1000)[500:510]
	PtrToString = new(string)
	*PtrToString = fresh(250)
}
