//go:build !go1.18

package generics

// Build makes nothing: there are no parametric types.
func Build() {}
