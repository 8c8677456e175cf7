// Package lists: recursive shapes. A path that repeats a (label, type) folds onto the ancestor's.
package lists

type Node struct {
	next *Node
	data [2]uint64
}

type Tree struct {
	left, right *Tree
	value       *[4]uint64
}

// Ring is doubly linked: both directions fold.
type Ring struct {
	next, prev *Ring
	pad        [6]uint64
}

// A and B refer to each other: one path for each of the two labels.
type A struct {
	b   *B
	pad [2]uint64
}
type B struct {
	a   *A
	pad [4]uint64
}

var (
	//goref:expect path="$P.head" count=1 bytes=24
	//goref:expect path="$P.head -> next. (*$P.Node)" count=999 bytes=23976
	head *Node
	// A tree of depth 10: 1023 nodes and as many values. left then right repeats neither label, so both orders of the first
	// change of direction have a path.
	//goref:expect path="$P.root" count=1 bytes=24
	//goref:expect path="$P.root -> value. (*[4]uint64)" count=1 bytes=32
	//goref:expect prefix="$P.root" count=2046 bytes=57288
	root *Tree
	// 100 in a ring, entered at one: half of it is nearer forwards.
	//goref:expect path="$P.ring" count=1 bytes=64
	//goref:expect path="$P.ring -> next. (*$P.Ring)" count=50 bytes=3200
	//goref:expect path="$P.ring -> prev. (*$P.Ring)" count=49 bytes=3136
	ring *Ring
	//goref:expect path="$P.mutual" count=1 bytes=24
	//goref:expect path="$P.mutual -> b. (*$P.B)" count=50 bytes=2400
	//goref:expect path="$P.mutual -> b. (*$P.B) -> a. (*$P.A)" count=49 bytes=1176
	mutual *A
)

func tree(depth int) *Tree {
	if depth == 0 {
		return nil
	}
	return &Tree{tree(depth - 1), tree(depth - 1), new([4]uint64)}
}

func Build() {
	for i := 0; i < 1000; i++ {
		head = &Node{next: head}
	}
	root = tree(10)
	ring = new(Ring)
	ring.next, ring.prev = ring, ring
	for i := 0; i < 99; i++ {
		n := &Ring{next: ring.next, prev: ring}
		ring.next.prev, ring.next = n, n
	}
	for i := 0; i < 50; i++ {
		mutual = &A{b: &B{a: mutual}}
	}
}
