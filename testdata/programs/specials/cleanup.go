//go:build !go1.24

package specials

func buildCleanup() {}
