// Package funcs: func values, closures by value and by reference, method values.
package funcs

type V [4]uint64 // 32 bytes

type Obj struct {
	P *V
	q [3]uint64
}

func (o *Obj) Get() *V { return o.P }
func (o Obj) Copy() *V { return o.P }

type Getter interface{ Get() *V }

func plain() *V { return nil }

var (
	// A function without captures has a static func value.
	//goref:expect path="$P.Static" count=0 bytes=0
	Static = plain
	//goref:expect path="$P.ByValue" count=1 bytes=24
	// In 1.21 and 1.22 captures of one type cannot be told apart: they have the names of the closure type's fields.
	//goref:expect path="$P.ByValue -> $P.byValue.func1 -> p. (*$P.V)" until="1.20" count=1 bytes=32
	//goref:expect path="$P.ByValue -> $P.byValue.func1 -> X0. (*$P.V)" since="1.21" until="1.22" count=1 bytes=32
	//goref:expect path="$P.ByValue -> $P.byValue.func1 -> p. (*$P.V)" since="1.23" count=1 bytes=32
	//goref:expect path="$P.ByValue -> $P.byValue.func1 -> q. (*$P.V)" until="1.20" count=1 bytes=32
	//goref:expect path="$P.ByValue -> $P.byValue.func1 -> X1. (*$P.V)" since="1.21" until="1.22" count=1 bytes=32
	//goref:expect path="$P.ByValue -> $P.byValue.func1 -> q. (*$P.V)" since="1.23" count=1 bytes=32
	ByValue func() (*V, *V)
	// p moved to the heap: a cell of 8 bytes, counted on the variable's frame together with what it points to.
	//goref:expect path="$P.ByReference" count=1 bytes=16
	//goref:expect path="$P.ByReference -> $P.byReference.func1 -> p. (*$P.V)" count=2 bytes=40
	ByReference func() *V
	// A chain of middlewares: each captures the one before.
	//goref:expect path="$P.Chain" count=1 bytes=24
	//goref:expect path="$P.Chain -> $P.wrap.func1 -> v. (*$P.V)" count=10 bytes=320
	//goref:expect prefix="$P.Chain" count=20 bytes=560
	Chain func() *V
	// A method value is {F, receiver}; the wrapper has no variable for the receiver.
	//goref:expect path="$P.Method" count=1 bytes=16
	//goref:expect prefix="$P.Method" count=3 bytes=80
	Method func() *V
	//goref:expect path="$P.ValueMethod" count=1 bytes=48
	//goref:expect prefix="$P.ValueMethod" count=2 bytes=80
	ValueMethod func() *V
	//goref:expect path="$P.IfaceMethod" count=1 bytes=24
	//goref:expect prefix="$P.IfaceMethod" count=3 bytes=88
	IfaceMethod func() *V
	// A closure in an interface.
	//goref:expect path="$P.InIface" count=1 bytes=24
	//goref:expect path="$P.InIface -> $P.byValue.func1 -> q. (*$P.V)" until="1.20" count=1 bytes=32
	//goref:expect path="$P.InIface -> $P.byValue.func1 -> X1. (*$P.V)" since="1.21" until="1.22" count=1 bytes=32
	//goref:expect path="$P.InIface -> $P.byValue.func1 -> q. (*$P.V)" since="1.23" count=1 bytes=32
	InIface interface{}
	// Closures in a slice and in a map.
	//goref:expect path="$P.Slice -> [0]. (func() (*$P.V, *$P.V)) -> $P.byValue.func1 -> p. (*$P.V)" until="1.20" count=1 bytes=32
	//goref:expect path="$P.Slice -> [0]. (func() (*$P.V, *$P.V)) -> $P.byValue.func1 -> X0. (*$P.V)" since="1.21" until="1.22" count=1 bytes=32
	//goref:expect path="$P.Slice -> [0]. (func() (*$P.V, *$P.V)) -> $P.byValue.func1 -> p. (*$P.V)" since="1.23" count=1 bytes=32
	//goref:expect path="$P.Map -> $mapval. (func() (*$P.V, *$P.V)) -> $P.byValue.func1 -> p. (*$P.V)" until="1.20" count=1 bytes=32
	//goref:expect path="$P.Map -> $mapval. (func() (*$P.V, *$P.V)) -> $P.byValue.func1 -> X0. (*$P.V)" since="1.21" until="1.22" count=1 bytes=32
	//goref:expect path="$P.Map -> $mapval. (func() (*$P.V, *$P.V)) -> $P.byValue.func1 -> p. (*$P.V)" since="1.23" count=1 bytes=32
	Slice []func() (*V, *V)
	Map   map[int64]func() (*V, *V)
	// More closures of two functions than are told apart at once, in turns, and a static func value between them.
	//goref:expect path="$P.Many" count=1 bytes=24576
	//goref:expect path="$P.Many -> [1]. (func() *$P.V)" count=1 bytes=24
	//goref:expect path="$P.Many -> [10+]. (func() *$P.V)" count=1993 bytes=39864
	//goref:expect path="$P.Many -> [10+]. (func() *$P.V) -> $P.many.func1 -> v. (*$P.V)" count=996 bytes=31872
	//goref:expect path="$P.Many -> [10+]. (func() *$P.V) -> $P.many.func2 -> v. (*$P.V)" until="1.20" count=997 bytes=31904
	//goref:expect path="$P.Many -> [10+]. (func() *$P.V) -> $P.many.func2 -> X0. (*$P.V)" since="1.21" until="1.22" count=997 bytes=31904
	//goref:expect path="$P.Many -> [10+]. (func() *$P.V) -> $P.many.func2 -> v. (*$P.V)" since="1.23" count=997 bytes=31904
	//goref:expect path="$P.Many -> [10+]. (func() *$P.V) -> $P.many.func2 -> w. (*$P.V)" until="1.20" count=997 bytes=31904
	//goref:expect path="$P.Many -> [10+]. (func() *$P.V) -> $P.many.func2 -> X1. (*$P.V)" since="1.21" until="1.22" count=997 bytes=31904
	//goref:expect path="$P.Many -> [10+]. (func() *$P.V) -> $P.many.func2 -> w. (*$P.V)" since="1.23" count=997 bytes=31904
	//goref:expect prefix="$P.Many" count=5001 bytes=160576
	Many []func() *V
	// Two closures share one captured variable: the first name has it.
	//goref:expect path="$P.ShareA -> $P.share.func1 -> v. (*$P.V)" count=2 bytes=40
	//goref:expect path="$P.ShareB" count=1 bytes=16
	//goref:expect path="$P.ShareB -> $P.share.func2 -> v. (*$P.V)" count=0 bytes=0
	ShareA func()
	ShareB func() *V
	// An iterator's loop body lives only while it runs; the iterator itself is a closure.
	//goref:expect path="$P.Iter -> $P.iter.func1 -> v. (*$P.V)" count=1 bytes=32
	Iter func(yield func(*V) bool)
	// Over 512 bytes: captured values up to 128 bytes each are copied into the closure object.
	//goref:expect path="$P.Big" count=1 bytes=704
	// The optimising compiler leaves no debug information for captured arrays.
	//goref:expect path="$P.Big -> $P.fiveArrays.func1 -> a. ([16]*$P.V) -> [0]. (*$P.V)" mode="noopt" until="1.20" count=1 bytes=32
	//goref:expect path="$P.Big -> $P.fiveArrays.func1 -> X0. ([16]*$P.V) -> [0]. (*$P.V)" mode="noopt" since="1.21" until="1.22" count=1 bytes=32
	//goref:expect path="$P.Big -> $P.fiveArrays.func1 -> a. ([16]*$P.V) -> [0]. (*$P.V)" mode="noopt" since="1.23" count=1 bytes=32
	//goref:expect path="$P.Big -> $P.fiveArrays.func1 -> e. ([16]*$P.V) -> [0]. (*$P.V)" mode="noopt" until="1.20" count=1 bytes=32
	//goref:expect path="$P.Big -> $P.fiveArrays.func1 -> X4. ([16]*$P.V) -> [0]. (*$P.V)" mode="noopt" since="1.21" until="1.22" count=1 bytes=32
	//goref:expect path="$P.Big -> $P.fiveArrays.func1 -> e. ([16]*$P.V) -> [0]. (*$P.V)" mode="noopt" since="1.23" count=1 bytes=32
	//goref:expect prefix="$P.Big" count=3 bytes=768
	Big func() *V
)

//go:noinline
func byValue() func() (*V, *V) {
	p, q := new(V), new(V)
	return func() (*V, *V) { return p, q }
}

//go:noinline
func byReference() func() *V {
	p := new(V)
	f := func() *V { p = new(V); return p }
	f()
	return f
}

//go:noinline
func wrap(next func() *V) func() *V {
	v := new(V)
	return func() *V {
		if next != nil {
			return next()
		}
		return v
	}
}

//go:noinline
func many(i int) func() *V {
	v, w := new(V), new(V)
	switch i % 3 {
	case 0:
		return func() *V { return v }
	case 1:
		return func() *V {
			if v == nil {
				return w
			}
			return v
		}
	}
	return plain
}

//go:noinline
func share() (func(), func() *V) {
	v := new(V)
	return func() { v = new(V) }, func() *V { return v }
}

//go:noinline
func iter() func(yield func(*V) bool) {
	v := new(V)
	return func(yield func(*V) bool) { yield(v) }
}

//go:noinline
func big() func() *V {
	var a, b, c, d, e [16]*V
	a[0], e[0] = new(V), new(V)
	return fiveArrays(a, b, c, d, e)
}

//go:noinline
func fiveArrays(a, b, c, d, e [16]*V) func() *V {
	return func() *V { return [...]*V{a[0], b[0], c[0], d[0], e[0]}[4] }
}

func Build() {
	ByValue = byValue()
	ByReference = byReference()
	for i := 0; i < 10; i++ {
		Chain = wrap(Chain)
	}
	Method = (&Obj{P: new(V)}).Get
	ValueMethod = Obj{P: new(V)}.Copy
	var g Getter = &Obj{P: new(V)}
	IfaceMethod = g.Get
	InIface = byValue()
	Slice = []func() (*V, *V){byValue()}
	Map = map[int64]func() (*V, *V){1: byValue()}
	Many = make([]func() *V, 3000)
	for i := range Many {
		Many[i] = many(i)
	}
	ShareA, ShareB = share()
	Iter = iter()
	Big = big()
}
