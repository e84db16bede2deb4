package fast

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// Memory is what a model takes, in bytes.
type Memory struct {
	Weights int
	KV      int // keys and values of one sequence of ContextLength positions
	Scratch int // for a prompt with one image of the most tiles, and the logits of one position
}

// Total is the sum.
func (m Memory) Total() int { return m.Weights + m.KV + m.Scratch }

// String is the sum and its parts, in words.
func (m Memory) String() string {
	return fmt.Sprintf("%s: weights %s, keys and values %s, scratch %s", gigabytes(m.Total()), gigabytes(m.Weights), gigabytes(m.KV), gigabytes(m.Scratch))
}

func gigabytes(n int) string { return fmt.Sprintf("%.2f GB", float64(n)/1e9) }

// MemoryOf is what the model of a configuration will take whose matrices are stored as t.
func MemoryOf(c shapes.Config, t kernel.Type, o Options) (Memory, error) {
	o = o.complete(c)
	if err := check(c, o); err != nil {
		return Memory{}, err
	}
	l, err := newLayout(c, func(string) kernel.Type { return t })
	if err != nil {
		return Memory{}, err
	}
	return memoryOf(c, l, o), nil
}

func memoryOf(c shapes.Config, l layout, o Options) Memory {
	return Memory{
		Weights: l.size,
		KV:      kvBytes(c, o.ContextLength),
		Scratch: 4 * (scratchOf(c, mostTiles(c), tileGroup, min(chunkRows, o.ContextLength)) + c.Text.VocabSize),
	}
}

// mostTiles is how many tiles one image may have.
func mostTiles(c shapes.Config) int {
	tiles := 1
	for _, canvas := range c.GridPinpoints {
		tiles = max(tiles, 1+canvas.Area()/(c.Vision.ImageSize*c.Vision.ImageSize))
	}
	return tiles
}

// kvBytes is the size of the keys and values of so many positions.
func kvBytes(c shapes.Config, positions int) int {
	return c.Text.NumHiddenLayers * kernel.KVBytes(positions, c.Text.NumKeyValueHeads, c.Text.HeadDim)
}

// reserve is what the program needs beside the model: the runtime, pages of files, kernels' own scratch.
const reserve = 256 << 20

// enough compares what a model takes with what there is; ok where the system does not say.
func enough(m Memory, available int, known bool) error {
	if need := m.Total() + reserve; known && need > available {
		return fmt.Errorf("fast: memory: the model takes %s; with %s for the program that is %s, but %s are available. A shorter context takes less, and so do weights in bfloat16 or float16",
			m, gigabytes(reserve), gigabytes(need), gigabytes(available))
	}
	return nil
}

// availableMemory is how many bytes the system can give without swapping, as Linux estimates it, and as a control group allows it. known is
// false where the system does not say.
func availableMemory() (bytes int, known bool) {
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	bytes, known = parseMeminfo(string(meminfo))
	read := func(name string) (int, bool) {
		text, err := os.ReadFile("/sys/fs/cgroup/" + name)
		if err != nil {
			return 0, false
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		return n, err == nil && n >= 0
	}
	most, limited := read("memory.max")
	used, counted := read("memory.current")
	if limited && counted {
		files := 0 // pages of files count as used and can be let go
		if text, err := os.ReadFile("/sys/fs/cgroup/memory.stat"); err == nil {
			files = field(string(text), "inactive_file ")
		}
		if left := most - used + files; !known || left < bytes {
			bytes, known = max(left, 0), true
		}
	}
	return bytes, known
}

// parseMeminfo reads MemAvailable, which stands in KiB.
func parseMeminfo(text string) (bytes int, known bool) {
	n := field(text, "MemAvailable:")
	return n * 1024, n > 0
}

// field is the number behind a word at the beginning of a line; 0 if there is none.
func field(text, word string) int {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				n, _ := strconv.Atoi(words[0]) // what is no number is not known
				return n
			}
		}
	}
	return 0
}
