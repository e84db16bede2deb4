package kernel

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20

// Alloc returns memory for packed weights and the function that gives it back, after which the memory must not be touched.
// It is zero, starts at a page, and if it is 2 MiB or more, at a huge page, in as many of which it is asked for.
// Go's garbage collector does not see it. Few large pieces have more of themselves in huge pages than many small ones.
func Alloc(bytes int) (mem []byte, free func() error, err error) {
	room := bytes
	if bytes >= hugePage {
		room += hugePage
	}
	all, err := unix.Mmap(-1, 0, room, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, fmt.Errorf("kernel: Alloc: %d bytes: %w", bytes, err)
	}
	at := 0
	if bytes >= hugePage {
		at = int(-uintptr(unsafe.Pointer(&all[0])) & (hugePage - 1))
	}
	// A kernel without huge pages refuses the advice; the memory is as good, only slower to read.
	_ = unix.Madvise(all, unix.MADV_HUGEPAGE)
	return all[at : at+bytes : at+bytes], func() error { return unix.Munmap(all) }, nil
}
