// Package maps: small and directory maps, indirect keys and values, nested and pointer-free ones.
package maps

import "strconv"

type V [4]uint64 // 32 bytes

type Val struct {
	P    *V
	Name string
}

// Big is 160 bytes: values over 128 bytes are stored behind a pointer.
type Big struct {
	P   *V
	pad [19]uint64
}

type BigKey [20]int64

type Key struct {
	Name string
	n    int64
}

var (
	// A small map: header of 48 and one group of 8 + 8*16 = 136 bytes in a slot of 144.
	//goref:expect path="$P.Small" without="noswissmap" count=2 bytes=192
	//goref:expect path="$P.Small" with="noswissmap" count=2 bytes=208
	//goref:expect path="$P.Small -> $mapval. (*$P.V)" count=5 bytes=160
	Small map[int64]*V
	// 1000 entries: header, directory of two, two tables, two arrays of 128 groups (17408 bytes, with header in 18432).
	//goref:expect path="$P.Directory" since="1.24" without="noswissmap" count=6 bytes=36992
	// Classic: header, 256 buckets with spare ones for overflow (39168 bytes in whole pages), and mapextra, which knows the next of those.
	//goref:expect path="$P.Directory" until="1.23" count=3 bytes=41032
	//goref:expect path="$P.Directory -> $mapval. (*$P.V)" count=1000 bytes=32000
	Directory map[int64]*V
	// 800 pointer-free entries: one table.
	//goref:expect path="$P.Numbers" since="1.24" without="noswissmap" count=4 bytes=18520
	// Classic: header, 128 buckets with spare ones in 20480 bytes, mapextra; more buckets, and a list that keeps them alive, as the hash
	// seed has it.
	//goref:expect path="$P.Numbers" until="1.23" min_count=3 min_bytes=20552
	Numbers map[int64]int64
	//goref:expect path="$P.Empty" without="noswissmap" count=1 bytes=48
	//goref:expect path="$P.Empty" with="noswissmap" count=1 bytes=64
	Empty map[string]*V
	//goref:expect path="$P.Nil" count=0 bytes=0
	Nil map[string]*V
	// String keys of 20 bytes in slots of 24: groups of 8 + 8*24 = 200 bytes in a slot of 208.
	//goref:expect path="$P.Strings" without="noswissmap" count=2 bytes=256
	//goref:expect path="$P.Strings" with="noswissmap" count=2 bytes=272
	//goref:expect path="$P.Strings -> $mapkey. (string)" count=8 bytes=192
	//goref:expect path="$P.Strings -> $mapval. (*$P.V)" count=8 bytes=256
	Strings map[string]*V
	//goref:expect path="$P.Structs -> $mapkey. ($P.Key) -> Name. (string)" count=3 bytes=72
	//goref:expect path="$P.Structs -> $mapval. ($P.Val) -> P. (*$P.V)" count=3 bytes=96
	//goref:expect path="$P.Structs -> $mapval. ($P.Val) -> Name. (string)" count=3 bytes=72
	Structs map[Key]Val
	// Indirect keys and values: the boxes are counted on the key's and the value's frame.
	//goref:expect path="$P.Indirect" without="noswissmap" count=2 bytes=192
	//goref:expect path="$P.Indirect" with="noswissmap" count=2 bytes=208
	//goref:expect path="$P.Indirect -> $mapkey. ($P.BigKey)" count=3 bytes=480
	//goref:expect path="$P.Indirect -> $mapval. ($P.Big)" count=3 bytes=480
	//goref:expect path="$P.Indirect -> $mapval. ($P.Big) -> P. (*$P.V)" count=3 bytes=96
	Indirect map[BigKey]Big
	//goref:expect path="$P.Nested -> $mapval. (map[int64]*$P.V)" without="noswissmap" count=8 bytes=768
	//goref:expect path="$P.Nested -> $mapval. (map[int64]*$P.V)" with="noswissmap" count=8 bytes=832
	//goref:expect path="$P.Nested -> $mapval. (map[int64]*$P.V) -> $mapval. (*$P.V)" count=8 bytes=256
	Nested map[string]map[int64]*V
	// Behind a value without size there is a padding word: groups of 8 + 8*24 bytes.
	//goref:expect path="$P.Sets" since="1.24" without="mapsplitgroup,noswissmap" count=2 bytes=256
	// Keys and elements apart need no padding.
	//goref:expect path="$P.Sets" with="mapsplitgroup" count=2 bytes=192
	//goref:expect path="$P.Sets" until="1.23" count=2 bytes=192
	//goref:expect path="$P.Sets -> $mapkey. (string)" count=4 bytes=96
	Sets map[string]struct{}
	//goref:expect path="$P.Ifaces -> $mapkey. (interface {})" count=6 bytes=120
	//goref:expect path="$P.Ifaces -> $mapval. (interface {})" count=3 bytes=96
	Ifaces map[interface{}]interface{}
	//goref:expect path="$P.Slices -> $mapval. ([]*$P.V)" count=2 bytes=32
	//goref:expect path="$P.Slices -> $mapval. ([]*$P.V) -> [1]. (*$P.V)" count=2 bytes=64
	Slices map[int64][]*V
	// Deleted entries hold nothing any more.
	//goref:expect path="$P.Deleted -> $mapval. (*$P.V)" count=50 bytes=1600
	Deleted map[int64]*V
	// A classic map that grows has two arrays of buckets, and its entries are in one or the other.
	//goref:expect path="$P.Growing -> $mapval. (*$P.V)" count=840 bytes=26880
	Growing map[int64]*V
	//goref:expect path="$P.GrowingStrings -> $mapkey. (string)" count=840 bytes=20160
	//goref:expect path="$P.GrowingStrings -> $mapval. (*$P.V)" count=840 bytes=26880
	GrowingStrings map[string]*V
	// Few entries at a time, many over time: overflow buckets pile up, and a classic map grows without getting larger.
	//goref:expect path="$P.Churned -> $mapval. ($P.Val) -> P. (*$P.V)" count=30 bytes=960
	//goref:expect path="$P.Churned -> $mapval. ($P.Val) -> Name. (string)" count=30 bytes=720
	Churned map[int64]Val
	// 2000 boxes of 160 bytes behind keys and values.
	//goref:expect path="$P.ManyIndirect -> $mapkey. ($P.BigKey)" count=1000 bytes=160000
	//goref:expect path="$P.ManyIndirect -> $mapval. ($P.Big)" count=1000 bytes=160000
	ManyIndirect map[BigKey]Big
	// A pointer to a map: the cell and the map's storage.
	//goref:expect path="$P.Pointer" without="noswissmap" count=3 bytes=200
	//goref:expect path="$P.Pointer" with="noswissmap" count=3 bytes=216
	//goref:expect path="$P.Pointer -> $mapval. (*$P.V)" count=1 bytes=32
	Pointer *map[int64]*V
	//goref:expect path="$P.InIface" without="noswissmap" count=2 bytes=192
	//goref:expect path="$P.InIface" with="noswissmap" count=2 bytes=208
	//goref:expect path="$P.InIface -> $mapval. (*$P.V)" count=2 bytes=64
	InIface interface{}
	// Arrays as values.
	//goref:expect path="$P.Arrays -> $mapval. ([2]*$P.V) -> [1]. (*$P.V)" count=2 bytes=64
	Arrays map[int64][2]*V
)

// key returns a fresh string of 20 bytes (slot of 24).
func key(i int) string { return "key-of-twenty-by" + strconv.Itoa(1000+i) }

func ints(n int) map[int64]*V {
	m := make(map[int64]*V)
	for i := 0; i < n; i++ {
		m[int64(i)] = new(V)
	}
	return m
}

func Build() {
	Small = ints(5)
	Directory = ints(1000)
	Numbers = make(map[int64]int64)
	for i := int64(0); i < 800; i++ {
		Numbers[i] = i
	}
	Empty = make(map[string]*V)
	Strings = make(map[string]*V)
	for i := 0; i < 8; i++ {
		Strings[key(i)] = new(V)
	}
	Structs = make(map[Key]Val)
	for i := 0; i < 3; i++ {
		Structs[Key{key(i), int64(i)}] = Val{new(V), key(i)}
	}
	Indirect = make(map[BigKey]Big)
	for i := int64(0); i < 3; i++ {
		Indirect[BigKey{i}] = Big{P: new(V)}
	}
	Nested = make(map[string]map[int64]*V)
	for i := 0; i < 4; i++ {
		Nested[key(i)] = ints(2)
	}
	Sets = make(map[string]struct{})
	for i := 0; i < 4; i++ {
		Sets[key(i)] = struct{}{}
	}
	Ifaces = make(map[interface{}]interface{})
	for i := 0; i < 3; i++ {
		Ifaces[key(i)] = new(V)
	}
	Slices = map[int64][]*V{1: {new(V), new(V)}, 2: {new(V), new(V)}}
	Deleted = ints(100)
	for i := int64(0); i < 50; i++ {
		delete(Deleted, i*2)
	}
	Growing = ints(840)
	GrowingStrings = make(map[string]*V)
	for i := 0; i < 840; i++ {
		GrowingStrings[key(i)] = new(V)
	}
	Churned = make(map[int64]Val)
	for i := 0; i < 5000; i++ {
		Churned[int64(i)] = Val{new(V), key(i)}
		delete(Churned, int64(i-30))
	}
	ManyIndirect = make(map[BigKey]Big)
	for i := 0; i < 1000; i++ {
		ManyIndirect[BigKey{int64(i)}] = Big{}
	}
	m := ints(1)
	Pointer = &m
	InIface = ints(2)
	Arrays = map[int64][2]*V{1: {new(V), new(V)}, 2: {nil, new(V)}}
}
