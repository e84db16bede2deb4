//go:build !linux

package kernel

import "unsafe"

// Alloc returns memory for packed weights and the function that gives it back, after which the memory must not be touched.
// It starts at a multiple of 64 bytes and is zero.
func Alloc(bytes int) (mem []byte, free func() error, err error) {
	all := make([]byte, bytes+64)
	at := int(-uintptr(unsafe.Pointer(&all[0])) & 63)
	return all[at : at+bytes : at+bytes], func() error { return nil }, nil
}
