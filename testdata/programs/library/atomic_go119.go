//go:build go1.19

package library

import "sync/atomic"

//goref:expect path="$P.AtomicPointer -> v. (unsafe.Pointer)" count=1 bytes=16
//goref:expect prefix="$P.AtomicPointer" count=2 bytes=48
var AtomicPointer atomic.Pointer[Node]

func buildAtomic() { AtomicPointer.Store(&Node{P: new(V)}) }
