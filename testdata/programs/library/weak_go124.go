//go:build go1.24

package library

import (
	"sync"
	"weak"
)

var (
	Weak weak.Pointer[Node]
	//goref:expect path="$P.WeakTarget" count=1 bytes=16
	WeakTarget *Node
	// The target is gone: the handle holds 0.
	WeakDead weak.Pointer[Node]
	Lazy     = sync.OnceValue(func() *V { return new(V) })
)

func buildWeak() {
	WeakTarget = &Node{n: 1}
	Weak = weak.Make(WeakTarget)
	WeakDead = weak.Make(&Node{n: 2})
	Lazy()
}
