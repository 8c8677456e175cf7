//go:build !go1.27

package frames

func leak() {}
