//go:build !go1.23

package instances

// Build makes nothing: what is stated needs iterators and the library around them.
func Build() {}
