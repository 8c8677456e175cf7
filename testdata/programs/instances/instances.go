//go:build go1.23

// Package instances: the types behind shapes. Code of generic functions is compiled once for all type arguments of one shape
// (every pointer has the same), so what its variables really are has to be found elsewhere.
//
// Every type below has a field of its own name: a string that is counted under that name was reached through its real type, and
// a string counted under the name of another type through a wrong one.
package instances

import (
	"cmp"
	"iter"
	"runtime"
	"sync"
)

//go:noinline
func text() string { b := make([]byte, 20); return string(b) } // 24 bytes

// fill makes n values of a type, each with a string.
//
//go:noinline
func fill[T any](n int, set func(*T, string)) []*T {
	all := make([]*T, n)
	for i := range all {
		all[i] = new(T)
		set(all[i], text())
	}
	return all
}

type (
	Memoised struct{ memoisedName string }
	Shared1  struct{ shared1Name string }
	Shared2  struct{ shared2Name string }
	Once     struct{ onceName string }
	Walked   struct{ walkedName string }
	Twin1    struct{ twin1Name string }
	Twin2    struct{ twin2Name string }
	Ghost    struct{ ghostName string }
	Spirit   struct{ spiritName string }
	Nested   struct{ nestedName string }
	Bound    struct{ boundName string }
	Value    struct {
		valueName string
		number    int
	}
	Keyed   struct{ keyedName string }
	Key     int
	Visible struct{ shownName string }
	Spun    struct{ spunName string }
	Broad   struct{ broadName string }
	Grown   struct{ grownName string }
)

// Memo is inlined: the closure is its caller's, and has a name without this package.
func Memo[K comparable, V any](f func(K) V) func(K) V {
	m := map[K]V{}
	return func(k K) V {
		if v, ok := m[k]; ok {
			return v
		}
		v := f(k)
		m[k] = v
		return v
	}
}

//go:noinline
func memo[K comparable, V any](f func(K) V) func(K) V { return Memo(f) }

//go:noinline
func hold[T any](v T) func() T { return func() T { return v } }

func keep[T any](v T) func() T { return func() T { return v } }

var (
	//goref:expect within="memoisedName. (string)" count=14 bytes=336
	MemoInlined, MemoCalled func(int) *Memoised

	// Two instantiations of one shape share the closure's code; which one an object is of stays open.
	//goref:expect prefix="$P.Hold1" count=4 bytes=72
	//goref:expect path="$P.Hold1 -> $P.hold[go.shape.*uint8].func1 -> v. (*$P.Shared2)" count=0 bytes=0
	//goref:expect path="$P.Hold1 -> $P.hold[go.shape.*uint8].func1 -> v. (*$P.Shared2) -> shared2Name. (string)" count=0 bytes=0
	//goref:expect within="shared2Name. (string)" count=3 bytes=72
	Hold1 []func() *Shared1
	//goref:expect path="$P.Hold2 -> [0]. (*$P.Shared2)" count=1 bytes=16
	Hold2      []*Shared2
	Hold2Funcs []func() *Shared2
	// The same, inlined.
	Kept1 func() *Shared1
	Kept2 func() *Shared2

	//goref:expect within="onceName. (string)" count=1 bytes=24
	OnceValue func() Opt[*Once]

	//goref:expect within="nestedName. (string)" count=3 bytes=72
	NestedFunc func() *Outer[*Nested]

	//goref:expect within="valueName. (string)" count=5 bytes=120
	ValueMemo func(string) Value

	//goref:expect within="keyedName. (string)" count=5 bytes=120
	KeyedMemo func(Key) []*Keyed

	// A method of an instance as a value.
	//goref:expect within="boundName. (string)" count=2 bytes=48
	Method func() *Bound

	// Objects over 512 bytes carry the type of their allocation, which may be a shape.
	//goref:expect within="broadName. (string)" count=3 bytes=72
	BroadFunc func() *Wide[*Broad]
	//goref:expect within="grownName. (string)" count=100 bytes=2400
	GrownList *List[*Grown]

	//goref:expect within="spunName. (string)" count=4 bytes=96
	Pull func() (*Spun, bool)

	//goref:expect within="walkedName. (string)" count=8 bytes=192
	//goref:expect within="twin2Name. (string)" count=9 bytes=216
	Twins []*Twin2
	//goref:expect within="spiritName. (string)" count=3 bytes=72
	Spirits []*Spirit
	// The only bag that a variable's type tells of in every release.
	//goref:expect within="shownName. (string)" count=3 bytes=72
	Shown    *Bag[*Visible]
	Visibles []*Visible
)

type Pair[A, B any] struct {
	Left  A
	Right B
}

type Opt[T any] struct{ v *T }

type Outer[T any] struct {
	in  Pair[Opt[T], []T]
	opt Opt[Pair[string, T]]
}

//go:noinline
func outer[T any](a, b, c T) func() *Outer[T] {
	o := &Outer[T]{in: Pair[Opt[T], []T]{Opt[T]{&a}, []T{b}}, opt: Opt[Pair[string, T]]{&Pair[string, T]{text(), c}}}
	return func() *Outer[T] { return o }
}

type Wide[T any] struct{ items [80]T }

//go:noinline
func wide[T any](vs []T) func() *Wide[T] {
	w := new(Wide[T])
	copy(w.items[:], vs)
	return func() *Wide[T] { return w }
}

type List[T any] struct{ all []T }

//go:noinline
func (l *List[T]) Add(v T) { l.all = append(l.all, v) }

type Cell[T any] struct{ first, second T }

//go:noinline
func (c *Cell[T]) Get() T { return c.first }

// A tree with an iterator that is too large to be inlined, and one that recurses.
type Tree[K cmp.Ordered, V any] struct{ root *node[K, V] }

type node[K cmp.Ordered, V any] struct {
	k           K
	v           V
	left, right *node[K, V]
}

func (t *Tree[K, V]) Put(k K, v V) {
	at := &t.root
	for *at != nil {
		if k < (*at).k {
			at = &(*at).left
		} else {
			at = &(*at).right
		}
	}
	*at = &node[K, V]{k: k, v: v}
}

func (t *Tree[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		var walk func(n *node[K, V]) bool
		walk = func(n *node[K, V]) bool {
			return n == nil || walk(n.left) && yield(n.k, n.v) && walk(n.right)
		}
		walk(t.root)
	}
}

// Bag is small enough to vanish in its callers.
type Bag[T any] struct{ items []*item[T] }

type item[T any] struct{ v T }

func NewBag[T any](vs []T) *Bag[T] {
	b := &Bag[T]{}
	for _, v := range vs {
		b.items = append(b.items, &item[T]{v})
	}
	return b
}

func (b *Bag[T]) Each() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, i := range b.items {
			if !yield(i.v) {
				return
			}
		}
		runtime.KeepAlive(b)
	}
}

type Row[T any] struct{ a, b, c, d T }

func (r *Row[T]) Each() iter.Seq[T] {
	return func(yield func(T) bool) {
		if yield(r.a) && yield(r.b) {
			yield(r.c)
		}
		runtime.KeepAlive(r)
	}
}

var park = make(chan struct{})

//go:noinline
func walkSole(vs []*Walked) {
	t := &Tree[string, *Walked]{}
	for i, v := range vs {
		t.Put(string(rune('a'+i*5%9)), v)
	}
	for k := range t.All() {
		if k == "e" {
			<-park
		}
	}
}

//go:noinline
func walkTwin1(vs []*Twin1) {
	t := &Tree[int, *Twin1]{}
	for i, v := range vs {
		t.Put(i*5%9, v)
	}
	for k := range t.All() {
		if k == 4 {
			<-park
		}
	}
}

//go:noinline
func walkTwin2(vs []*Twin2) {
	t := &Tree[int, *Twin2]{}
	for i, v := range vs {
		t.Put(i*5%9, v)
	}
	for k := range t.All() {
		if k == 4 {
			<-park
		}
	}
}

// The bag is in no variable of its type.
//
//go:noinline
func walkGhosts(vs []*Ghost) {
	for range NewBag(vs).Each() {
		<-park
	}
}

//go:noinline
func walkSpirits(vs []*Spirit) {
	b := NewBag(vs)
	for range b.Each() {
		<-park
	}
}

func Build() {
	f := func(int) *Memoised { return &Memoised{text()} }
	MemoInlined, MemoCalled = Memo(f), memo(f)
	for i := 0; i < 7; i++ {
		MemoInlined(i)
		MemoCalled(i)
	}
	Hold1 = []func() *Shared1{hold(&Shared1{text()})}
	Hold2 = fill(3, func(v *Shared2, s string) { v.shared2Name = s })
	Hold2Funcs = []func() *Shared2{hold(Hold2[0])}
	Kept1, Kept2 = keep(&Shared1{text()}), keep(Hold2[1])
	OnceValue = sync.OnceValue(func() Opt[*Once] { once := &Once{text()}; return Opt[*Once]{&once} })
	OnceValue()
	NestedFunc = outer(&Nested{text()}, &Nested{text()}, &Nested{text()})
	ValueMemo = memo(func(string) Value { return Value{text(), 1} })
	KeyedMemo = memo(func(Key) []*Keyed { return []*Keyed{{text()}} })
	for i := 0; i < 5; i++ {
		ValueMemo(string(rune('a' + i)))
		KeyedMemo(Key(i))
	}
	Method = (&Cell[*Bound]{&Bound{text()}, &Bound{text()}}).Get
	row := &Row[*Spun]{&Spun{text()}, &Spun{text()}, &Spun{text()}, &Spun{text()}}
	Pull, _ = iter.Pull(row.Each())
	Pull()
	BroadFunc = wide(fill(3, func(v *Broad, s string) { v.broadName = s }))
	GrownList = &List[*Grown]{}
	for i := 0; i < 100; i++ {
		GrownList.Add(&Grown{text()})
	}
	go walkSole(fill(9, func(v *Walked, s string) { v.walkedName = s }))
	go walkTwin1(fill(9, func(v *Twin1, s string) { v.twin1Name = s }))
	Twins = fill(9, func(v *Twin2, s string) { v.twin2Name = s })
	go walkTwin2(Twins)
	go walkGhosts(fill(3, func(v *Ghost, s string) { v.ghostName = s }))
	Spirits = fill(3, func(v *Spirit, s string) { v.spiritName = s })
	go walkSpirits(Spirits)
	Visibles = fill(3, func(v *Visible, s string) { v.shownName = s })
	Shown = NewBag(Visibles)
}
