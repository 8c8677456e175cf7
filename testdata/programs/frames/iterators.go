//go:build !go1.23

package frames

func iterators() {}
