package main

// One shape each: what a walk finds easy or hard. The parameter n counts what the shape is named after.

// payload is 32 bytes without pointers.
type payload [4]uint64

type listNode struct {
	next *listNode
	n    uint64
}

type treeNode struct {
	left, right *treeNode
	key         uint64
}

// selfish has ten pointers to its own type: the number of paths explodes, the number of objects does not.
type selfish struct {
	to [10]*selfish
}

var (
	listHead    *listNode
	treeRoot    *treeNode
	bigSlice    []*payload
	manyStrings []string
	smallMaps   []map[uint64]*payload
	bigMap      map[uint64]*payload
	closures    []func() *payload
	parked      chan *payload
	selfishRoot *selfish
)

func buildList(n int) {
	for range n {
		listHead = &listNode{next: listHead}
	}
}

// buildTree is perfectly balanced: as deep as the logarithm of its size, levels as wide as half of it.
func buildTree(n int) { treeRoot = tree(n) }

func tree(n int) *treeNode {
	if n <= 0 {
		return nil
	}
	t := &treeNode{key: uint64(n)}
	t.left = tree((n - 1) / 2)
	t.right = tree(n - 1 - (n-1)/2)
	return t
}

func buildSlice(n int) {
	bigSlice = make([]*payload, n)
	for i := range bigSlice {
		bigSlice[i] = new(payload)
	}
}

func buildStrings(n int) {
	manyStrings = make([]string, n)
	var r random = 1
	for i := range manyStrings {
		manyStrings[i] = r.text(16 + int(r.next()%48))
	}
}

// buildMaps fills a slice with maps of four entries: header, group and four values each.
func buildMaps(n int) {
	smallMaps = make([]map[uint64]*payload, n)
	for i := range smallMaps {
		m := make(map[uint64]*payload)
		for k := range uint64(4) {
			m[k] = new(payload)
		}
		smallMaps[i] = m
	}
}

func buildBigMap(n int) {
	bigMap = make(map[uint64]*payload)
	for i := range n {
		bigMap[uint64(i)] = new(payload)
	}
}

// buildClosures makes n closures, each with a captured pointer to an object of its own.
func buildClosures(n int) {
	closures = make([]func() *payload, n)
	for i := range closures {
		p := new(payload)
		closures[i] = func() *payload { return p }
	}
}

// buildGoroutines parks n goroutines, each with a list of eight nodes in its frame.
func buildGoroutines(n int) {
	parked = make(chan *payload)
	started := make(chan struct{})
	for range n {
		go func() {
			var l *listNode
			for range 8 {
				l = &listNode{next: l}
			}
			started <- struct{}{}
			<-parked
			keep(l)
		}()
	}
	for range n {
		<-started
	}
}

//go:noinline
func keep(l *listNode) { listHead = l }

func buildSelfish(n int) {
	all := make([]*selfish, n)
	for i := range all {
		all[i] = new(selfish)
	}
	var r random = 1
	for i, s := range all {
		for j := range s.to {
			// The first two make a tree so that everything is reached; the others go anywhere.
			if j < 2 {
				if child := 2*i + 1 + j; child < n {
					s.to[j] = all[child]
				}
				continue
			}
			s.to[j] = all[r.next()%uint64(n)]
		}
	}
	selfishRoot = all[0]
}

// random is a xorshift generator: the same heap every time.
type random uint64

func (r *random) next() uint64 {
	x := uint64(*r)*0x9E3779B97F4A7C15 + 1
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*r = random(x)
	return x
}

// text is a fresh string of n bytes.
func (r *random) text(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(r.next()%26)
	}
	return string(b)
}
