//go:build !go1.24

package library

func buildWeak() {}
