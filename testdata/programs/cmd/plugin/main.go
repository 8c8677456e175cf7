// Plugin loads ext.so from its working folder: two modules, each with variables, types and functions of its own. Build it with
// CGO_ENABLED=1, and ./ext with -buildmode=plugin.
package main

import (
	"os"
	"plugin"

	"goref.test/fixtures/lists"
	"goref.test/fixtures/truth"
)

// V is 48 bytes.
type V [6]uint64

var (
	// What both modules know has one type.
	//
	//goref:expect path="$P.Mine -> v. (*$P.V)" count=1 bytes=48
	Mine  *Holder
	ended = make(chan struct{})
)

type Holder struct{ v *V }

func main() {
	lists.Build()
	Mine = &Holder{new(V)}
	ext, err := plugin.Open("./ext.so")
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	build, err := ext.Lookup("Build")
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	build.(func())()
	truth.Point()
}
