// Package chans: channels by element type, and goroutines blocked on them.
package chans

import "runtime"

type V [4]uint64  // 32 bytes
type S [10]uint64 // 80 bytes

type Item struct {
	P *V
	n int
}

var (
	// Header (104 or 112 bytes, slot of 112) and buffer of 4 pointers. Indices are buffer positions.
	//goref:expect path="$P.Pointers" since="1.23" count=2 bytes=144
	//goref:expect path="$P.Pointers" until="1.22" count=2 bytes=128
	//goref:expect path="$P.Pointers -> [0]. (*$P.V)" count=0 bytes=0
	//goref:expect path="$P.Pointers -> [1]. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Pointers -> [2]. (*$P.V)" count=1 bytes=32
	Pointers chan *V
	// Pointer-free elements share one object with the header: 104 or 112 + 800, slot of 1024.
	//goref:expect path="$P.Numbers" since="1.23" count=1 bytes=1024
	//goref:expect path="$P.Numbers" until="1.22" count=1 bytes=896
	Numbers chan int64
	//goref:expect path="$P.Structs" since="1.23" count=2 bytes=304
	//goref:expect path="$P.Structs" until="1.22" count=2 bytes=288
	//goref:expect path="$P.Structs -> [0]. ($P.Item) -> P. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Structs -> [10+]. ($P.Item) -> P. (*$P.V)" count=2 bytes=64
	Structs chan Item
	//goref:expect path="$P.Unbuffered" since="1.23" count=1 bytes=112
	//goref:expect path="$P.Unbuffered" until="1.22" count=1 bytes=96
	Unbuffered chan *V
	//goref:expect path="$P.Closed" since="1.23" count=1 bytes=112
	//goref:expect path="$P.Closed" until="1.22" count=1 bytes=96
	Closed chan struct{}
	//goref:expect path="$P.Directed" since="1.23" count=2 bytes=128
	//goref:expect path="$P.Directed" until="1.22" count=2 bytes=112
	//goref:expect path="$P.Directed -> [0]. (*$P.V)" count=1 bytes=32
	Directed <-chan *V
	//goref:expect path="$P.OfChans -> [0]. (chan *$P.V)" since="1.23" count=2 bytes=128
	//goref:expect path="$P.OfChans -> [0]. (chan *$P.V)" until="1.22" count=2 bytes=112
	//goref:expect path="$P.OfChans -> [0]. (chan *$P.V) -> [1]. (*$P.V)" count=1 bytes=32
	OfChans chan chan *V
	//goref:expect path="$P.InIface -> [0]. (*$P.V)" count=1 bytes=32
	InIface interface{}
	Never   = make(chan *S)
	Boxes   = make(chan *Item)
	Parcels = make(chan Item)

	otherBoxes = make(chan *Item)
)

// sender blocks in a send: the value is live in its frame, as an argument or as the copy handed to the runtime.
//
//goref:expect within="$P.sender.p" mode="noopt" count=3 bytes=240
//go:noinline
func sender(c chan *S, p *S) {
	c <- p
	runtime.KeepAlive(p)
}

// maker blocks in the send of a value that no variable ever held: it is in a temporary, whose type is the channel's.
//
//goref:expect path="$P.maker" count=2 bytes=32
//goref:expect path="$P.maker -> P. (*$P.V)" count=2 bytes=64
//go:noinline
func maker() { Boxes <- newItem() }

// parcel does so with a struct.
//
//goref:expect path="$P.parcel -> P. (*$P.V)" count=2 bytes=64
//go:noinline
func parcel() { Parcels <- Item{P: newItem().P} }

// chooser offers two such values in a select.
//
//goref:expect path="$P.chooser" count=2 bytes=32
//goref:expect path="$P.chooser -> P. (*$P.V)" count=2 bytes=64
//go:noinline
func chooser() {
	select {
	case Boxes <- newItem():
	case otherBoxes <- newItem():
	}
}

//go:noinline
func newItem() *Item { return &Item{P: new(V)} }

// receiver blocks in a receive with something of its own alive.
//
//goref:expect path="$P.receiver.kept" count=5 bytes=400
//go:noinline
func receiver(c chan *V, kept *S) {
	<-c
	runtime.KeepAlive(kept)
}

// selecter blocks in a select of several directions.
//
//goref:expect path="$P.selecter.kept" count=2 bytes=160
//go:noinline
func selecter(a, b chan *S, kept *S) {
	select {
	case a <- kept:
	case b <- kept:
	}
	runtime.KeepAlive(kept)
}

//go:noinline
func newS() *S { return new(S) }

var nobody, nobodyElse = make(chan *S), make(chan *S)

func Build() {
	Pointers = make(chan *V, 4)
	for i := 0; i < 3; i++ {
		Pointers <- new(V)
	}
	<-Pointers
	Numbers = make(chan int64, 100)
	Numbers <- 1
	Structs = make(chan Item, 12)
	for i := 0; i < 12; i++ {
		Structs <- Item{P: new(V)}
	}
	Unbuffered = make(chan *V)
	Closed = make(chan struct{})
	close(Closed)
	d := make(chan *V, 2)
	d <- new(V)
	Directed = d
	OfChans = make(chan chan *V, 1)
	c := make(chan *V, 2)
	c <- nil
	c <- new(V)
	OfChans <- c
	i := make(chan *V, 1)
	i <- new(V)
	InIface = i
	for i := 0; i < 3; i++ {
		go sender(Never, newS())
	}
	for i := 0; i < 2; i++ {
		go maker()
		go parcel()
	}
	go chooser()
	for i := 0; i < 5; i++ {
		go receiver(Unbuffered, newS())
	}
	for i := 0; i < 2; i++ {
		go selecter(nobody, nobodyElse, newS())
	}
}
