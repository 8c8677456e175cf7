//go:build !go1.19

package library

import (
	"sync/atomic"
	"unsafe"
)

//goref:expect path="$P.AtomicPointer" count=1 bytes=16
//goref:expect prefix="$P.AtomicPointer" count=2 bytes=48
var AtomicPointer unsafe.Pointer

func buildAtomic() { atomic.StorePointer(&AtomicPointer, unsafe.Pointer(&Node{P: new(V)})) }
