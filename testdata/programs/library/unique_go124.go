//go:build !go1.25

package library

// In Go 1.24 every collection wakes a goroutine of the runtime that goes through the maps of package unique and leaves closures
// behind: garbage that is younger than the collection, so that there is no moment at which HeapAlloc is what is reachable.
func buildUnique() {}
