//go:build !unix

package checkpoint

import "testing"

// mapFile maps a file into memory.
func mapFile(tb testing.TB, path string) (data []byte, unmap func()) {
	tb.Skip("golang.org/x/sys/unix does not map files on this system")
	return nil, nil
}
