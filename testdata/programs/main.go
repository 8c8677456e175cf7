// The fixtures: packages linked into one program per toolchain and build mode, alive together in one core with one truth.
package main

import (
	"goref.test/fixtures/lists"
	"goref.test/fixtures/slices"
	"goref.test/fixtures/strs"
	"goref.test/fixtures/truth"
)

func main() {
	strs.Build()
	slices.Build()
	lists.Build()
	truth.Point()
}
