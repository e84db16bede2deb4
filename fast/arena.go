package fast

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/llavaref/llavaref/fast/kernel"
)

// arena is scratch memory that is taken piece by piece and given back all at once. What it holds is of no meaning until it is written:
// nothing clears it between two uses.
type arena struct {
	mem  []float32
	used int
	free func() error

	poison bool // tests: every piece is NaN when it is taken
}

// piece is how many values a piece of n takes: a multiple of 64 bytes.
func piece(n int) int { return (n + 15) &^ 15 }

// reserve empties the arena and makes room for so many values, in pieces of whole 64 bytes.
func (a *arena) reserve(values int) error {
	a.used = 0
	if values <= len(a.mem) {
		return nil
	}
	if err := a.release(); err != nil {
		return err
	}
	mem, free, err := kernel.Alloc(4 * values)
	if err != nil {
		return fmt.Errorf("fast: scratch: %w", err)
	}
	a.mem, a.free = unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(mem))), values), free
	return nil
}

// take is the next n values.
func (a *arena) take(n int) []float32 {
	if a.used+piece(n) > len(a.mem) {
		panic(fmt.Sprintf("fast: arena: %d values more than the %d of %d that are taken", n, a.used, len(a.mem)))
	}
	p := a.mem[a.used:][:n:n]
	a.used += piece(n)
	if a.poison {
		for i := range p {
			p[i] = float32(math.NaN())
		}
	}
	return p
}

// release gives the memory back.
func (a *arena) release() error {
	free := a.free
	*a = arena{poison: a.poison}
	if free == nil {
		return nil
	}
	return free()
}
