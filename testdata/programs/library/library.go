// Package library: types of the standard library that hide what they hold from a walk by static types.
package library

import (
	"container/list"
	"context"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"goref.test/fixtures/truth"
)

type V [4]uint64 // 32 bytes

type Node struct {
	P *V
	n int
}

// Pooled is 2048 bytes without pointers.
type Pooled [256]uint64

type PooledNode struct {
	pooled *V
	n      int
}

type ctxKey struct{}

var (
	//goref:expect path="$P.AtomicValue -> v. (interface {})" count=1 bytes=16
	//goref:expect path="$P.AtomicValue -> v. (interface {}) -> P. (*$P.V)" count=1 bytes=32
	AtomicValue atomic.Value
	// Nodes of the trie depend on the hash seed; 100 keys (boxes of 8 bytes, not below 256) and 100 values are sure.
	//goref:expect prefix="$P.SyncMap" min_count=200 min_bytes=4000
	SyncMap sync.Map
	// Given between the last two collections: in the victim cache at the truth.
	// The race detector drops what a pool is given at random.
	//goref:expect prefix="$P.Pool" without="race" min_count=1 min_bytes=2048
	Pool sync.Pool
	// One is private to its P, the others are shared: interfaces in a ring of sync.eface.
	//goref:expect within="pooled. (*$P.V)" without="race" count=5 bytes=160
	Nodes sync.Pool
	//goref:expect path="$P.Builder -> buf. ([]uint8)" count=1 bytes=112
	Builder strings.Builder
	//goref:expect prefix="$P.List" count=21 bytes=848
	List *list.List
	//goref:expect prefix="$P.Context" min_count=3
	Context context.Context
	Cancel  context.CancelFunc
	//goref:expect prefix="$P.Timer" min_count=1
	Timer *time.Timer
	//goref:expect prefix="$P.AfterFunc" min_count=1
	AfterFunc *time.Timer
	//goref:expect path="$P.Location" count=0 bytes=0
	Location = time.UTC
	//goref:expect path="$P.Mutexed -> held. (*$P.V)" count=1 bytes=32
	Mutexed struct {
		sync.Mutex
		held *V
	}
	// The pointer in the word, to a pointer, and to a value.
	//goref:expect path="$P.Reflected" count=1 bytes=96
	//goref:expect path="$P.Reflected -> [0]. (reflect.Value) -> ptr. (unsafe.Pointer)" count=1 bytes=16
	//goref:expect path="$P.Reflected -> [0]. (reflect.Value) -> ptr. (unsafe.Pointer) -> P. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Reflected -> [1]. (reflect.Value) -> ptr. (unsafe.Pointer)" count=2 bytes=24
	//goref:expect path="$P.Reflected -> [1]. (reflect.Value) -> ptr. (unsafe.Pointer) -> P. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Reflected -> [2]. (reflect.Value) -> ptr. (unsafe.Pointer)" count=1 bytes=16
	//goref:expect path="$P.Reflected -> [2]. (reflect.Value) -> ptr. (unsafe.Pointer) -> P. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.Reflected -> [3]. (reflect.Value) -> ptr. (unsafe.Pointer)" count=1 bytes=32
	Reflected []reflect.Value
	//goref:expect path="$P.Err" count=1 bytes=16
	//goref:expect path="$P.Err -> P. (*$P.V)" count=1 bytes=32
	Err error
)

type failure struct {
	P *V
	n int
}

func (failure) Error() string { return "failure" }

//go:noinline
func fill(s string, n int) string { return strings.Repeat(s, n) }

func Build() {
	buildUnique()
	buildWeak()
	buildAtomic()
	AtomicValue.Store(&Node{P: new(V)})
	for i := 0; i < 100; i++ {
		SyncMap.Store(1000+i, new(V))
	}
	truth.BeforeLast(func() {
		Pool.Put(new(Pooled))
		for i := 0; i < 5; i++ {
			Nodes.Put(&PooledNode{pooled: new(V), n: i})
		}
	})
	Builder.Grow(100)
	Builder.WriteString(fill("b", 90))
	List = list.New()
	for i := 0; i < 10; i++ {
		List.PushBack(new(V))
	}
	ctx := context.WithValue(context.Background(), ctxKey{}, &Node{P: new(V)})
	Context, Cancel = context.WithCancel(ctx)
	Timer = time.NewTimer(1000 * time.Hour)
	kept := &Node{P: new(V)}
	AfterFunc = time.AfterFunc(1000*time.Hour, func() { kept.n++ })
	Mutexed.held = new(V)
	pointer := reflect.New(reflect.TypeOf((*Node)(nil))).Elem()
	pointer.Set(reflect.ValueOf(&Node{P: new(V)}))
	value := reflect.ValueOf(&Node{P: new(V)}).Elem()
	// A field of a struct of one pointer: the word is the pointer itself.
	field := reflect.ValueOf(struct{ P *V }{new(V)}).Field(0)
	Reflected = []reflect.Value{reflect.ValueOf(&Node{P: new(V)}), pointer, value, field}
	Err = failure{P: new(V)}
}
