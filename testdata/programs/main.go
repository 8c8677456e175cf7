// The fixtures: packages linked into one program per toolchain and build mode, alive together in one core with one truth.
// Each package states next to its code what the profile must say about it (grammar: tests/harness/expect.rs).
package main

import (
	"goref.test/fixtures/chans"
	"goref.test/fixtures/frames"
	"goref.test/fixtures/funcs"
	"goref.test/fixtures/generics"
	"goref.test/fixtures/instances"
	"goref.test/fixtures/kinds"
	"goref.test/fixtures/library"
	"goref.test/fixtures/lists"
	"goref.test/fixtures/maps"
	"goref.test/fixtures/pointers"
	"goref.test/fixtures/shared"
	"goref.test/fixtures/slices"
	"goref.test/fixtures/specials"
	"goref.test/fixtures/stacks"
	"goref.test/fixtures/statics"
	"goref.test/fixtures/strs"
	"goref.test/fixtures/truth"
	"goref.test/fixtures/wide"
)

func main() {
	strs.Build()
	slices.Build()
	lists.Build()
	pointers.Build()
	kinds.Build()
	funcs.Build()
	chans.Build()
	maps.Build()
	shared.Build()
	statics.Build()
	stacks.Build()
	frames.Build()
	generics.Build()
	instances.Build()
	wide.Build()
	library.Build()
	specials.Build()
	truth.Point()
}
