//go:build unix

package checkpoint

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// mapFile maps a file into memory.
func mapFile(tb testing.TB, path string) (data []byte, unmap func()) {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		tb.Fatal(err)
	}
	return data, func() {
		if err := unix.Munmap(data); err != nil {
			tb.Error(err)
		}
	}
}
