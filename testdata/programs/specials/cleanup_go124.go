//go:build go1.24

package specials

import "runtime"

var (
	//goref:expect path="$P.CleanedUp" count=1 bytes=48
	//goref:expect within="runtime.AddCleanup.arg" since="1.26" min_bytes=3072
	//goref:expect within="runtime.AddCleanup.fn" until="1.25" min_bytes=3072
	CleanedUp *Object
)

//go:noinline
func addCleanup(o *Object) {
	runtime.AddCleanup(o, func(w *Weight) { w[0]++ }, new(Weight))
}

func buildCleanup() {
	CleanedUp = new(Object)
	addCleanup(CleanedUp)
}
