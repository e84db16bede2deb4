package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Alloc returns memory for packed weights and the function that gives it back, after which the memory must not be touched.
// It is asked for in huge pages, starts at a page, and is zero. Go's garbage collector does not see it.
func Alloc(bytes int) (mem []byte, free func() error, err error) {
	mem, err = unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, fmt.Errorf("kernel: Alloc: %d bytes: %w", bytes, err)
	}
	// A kernel without huge pages refuses the advice; the memory is as good, only slower to read.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	return mem, func() error { return unix.Munmap(mem) }, nil
}
