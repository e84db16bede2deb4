package fast

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// A file of the layout is a model's memory as it is, behind a header. All numbers are little-endian.
//
//	 0  8 bytes  "LLVAFAST"
//	 8  uint32   version, 1
//	12  uint32   length of the header that follows, in bytes
//	16  uint32   CRC-32C of the header
//	20  4 bytes  zero
//	24           header: JSON, {"config": the model's config.json, "params": [{"name", "type", "crc"}, ...] in the order of shapes.Params}
//	             zeros up to a multiple of 4096
//	             the parameters, as newLayout places them; nothing stands behind the last one's end, which is a multiple of 4096
//
// Everything but the values follows from configuration and types, so a header cannot point anywhere: there is no offset in it.
// A checksum guards against a damaged file, not against a forged one; of a forged one only the values are news, and all values are allowed.

const (
	fileMagic   = "LLVAFAST"
	fileVersion = 1
	fileStart   = 24
	maxHeader   = 4 << 20
)

type fileHeader struct {
	Config json.RawMessage `json:"config"`
	Params []fileParam     `json:"params"`
}

type fileParam struct {
	Name string `json:"name"`
	Type string `json:"type"` // F32, F16 or BF16
	CRC  string `json:"crc"`  // CRC-32C of the parameter's bytes, eight hexadecimal digits
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crcText(sum uint32) string { return fmt.Sprintf("%08x", sum) }

// WriteFile brings the weights of a model into the layout and writes them to a file, which appears under its name when it is complete.
// config is the model's config.json. No more than a few million values are in memory at a time. Of the options Class, Threads
// and Progress count: with [kernel.BFloat16], weights that this class cannot run are refused.
func WriteFile(ctx context.Context, path string, config []byte, w shapes.Weights, o Options) (err error) {
	c, err := shapes.ParseConfig(config)
	if err != nil {
		return err
	}
	o = o.complete(c)
	if err := check(c, o); err != nil {
		return err
	}
	types, err := storedTypes(c, w, o)
	if err != nil {
		return err
	}
	l, err := newLayout(c, func(name string) kernel.Type { return types[name] })
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("fast: %w", err)
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	err = writeFile(ctx, f, c, config, l, w, o)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("fast: %s: %w", filepath.Base(path), err)
	}
	return nil
}

func writeFile(ctx context.Context, f io.WriterAt, c shapes.Config, config []byte, l layout, w shapes.Weights, o Options) error {
	var compact bytes.Buffer
	if err := json.Compact(&compact, config); err != nil {
		return err
	}
	h := fileHeader{Config: compact.Bytes()}
	for _, b := range l.blocks {
		h.Params = append(h.Params, fileParam{b.Name, b.typ.String(), crcText(0)})
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	start := int64(alignUp(fileStart + len(text)))
	pool := kernel.NewPool(o.Threads)
	defer pool.Close()
	ld := newLoader(w, pool)
	buffer, free, err := kernel.Alloc(l.largestPart())
	if err != nil {
		return err
	}
	defer free()
	_, total := shapes.Total(shapes.Params(c))
	done := int64(0)
	for i, b := range l.blocks {
		sum := uint32(0)
		for _, p := range b.parts() {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := buffer[:p.size]
			if err := ld.fill(part, b, p); err != nil {
				return err
			}
			sum = crc32.Update(sum, castagnoli, part)
			if _, err := f.WriteAt(part, start+int64(b.at+p.at)); err != nil {
				return err
			}
			done += int64(p.rows * b.k)
			if o.Progress != nil {
				o.Progress(done, int64(total))
			}
		}
		h.Params[i].CRC = crcText(sum)
	}
	if last := l.blocks[len(l.blocks)-1]; last.at+last.size < l.size { // the file ends where the layout does
		if _, err := f.WriteAt([]byte{0}, start+int64(l.size)-1); err != nil {
			return err
		}
	}
	if text, err = json.Marshal(h); err != nil { // as long as before: only digits have changed
		return err
	}
	head := make([]byte, fileStart, start)
	copy(head, fileMagic)
	binary.LittleEndian.PutUint32(head[8:], fileVersion)
	binary.LittleEndian.PutUint32(head[12:], uint32(len(text)))
	binary.LittleEndian.PutUint32(head[16:], crc32.Checksum(text, castagnoli))
	_, err = f.WriteAt(append(head, text...), 0)
	return err
}

// largestPart is the size of the largest part that is on its way at a time.
func (l layout) largestPart() int {
	n := 0
	for _, b := range l.blocks {
		for _, p := range b.parts() {
			n = max(n, p.size)
		}
	}
	return n
}

// OpenFile makes a model of a file that WriteFile has written. The values are read straight into memory in huge pages, where products read
// them a fifth to a quarter faster than in a mapping of the file, and where a file that is cut or changed later can do no harm.
// It is an error, before the values are read, if the memory will not do, if the class is [kernel.BFloat16] and a matrix is not, and if header and size
// of the file are not exactly those of a model; and afterwards, if a checksum does not fit.
func OpenFile(path string, o Options) (*Llava, error) {
	name := filepath.Base(path)
	if info, err := os.Stat(path); err != nil { // looked at before it is opened: opening a named pipe would wait for its writer
		return nil, fmt.Errorf("fast: %w", err)
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("fast: %s: not a regular file", name)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("fast: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("fast: %w", err)
	}
	c, l, sums, start, err := readHeader(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("fast: %s: %w", name, err)
	}
	o = o.complete(c)
	if err := check(c, o); err != nil {
		return nil, err
	}
	if o.Class == kernel.BFloat16 {
		for _, b := range l.blocks {
			if b.form == panels && b.typ != kernel.BF16 {
				return nil, fmt.Errorf("fast: %s: %s: %v, want BF16: the bf16 class takes no other weights, the float32 class takes all", name, b.Name, b.typ)
			}
		}
	}
	return open(c, l, o, func(mem []byte, pool *kernel.Pool) error {
		if err := readBlocks(f, start, l, sums, mem, pool.Threads(), o.Progress); err != nil {
			return fmt.Errorf("fast: %s: %w", name, err)
		}
		return nil
	})
}

// readHeader reads all but the values of a file of size bytes: the model, where its parameters lie, their checksums, and where the first one starts.
func readHeader(r io.ReaderAt, size int64) (c shapes.Config, l layout, sums []uint32, start int64, err error) {
	refuse := func(format string, args ...any) (shapes.Config, layout, []uint32, int64, error) {
		return shapes.Config{}, layout{}, nil, 0, fmt.Errorf(format, args...)
	}
	var head [fileStart]byte
	if size < fileStart {
		return refuse("%d bytes, want at least the %d of the head", size, fileStart)
	}
	if _, err := r.ReadAt(head[:], 0); err != nil && err != io.EOF {
		return refuse("%w", err)
	}
	if string(head[:8]) != fileMagic {
		return refuse("begins with %q, want %q", head[:8], fileMagic)
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v != fileVersion {
		return refuse("version %d, want %d: convert the checkpoint again", v, fileVersion)
	}
	if bytes := binary.LittleEndian.Uint32(head[20:]); bytes != 0 {
		return refuse("bytes 20 to 23 are %08x, want zeros", bytes)
	}
	length := binary.LittleEndian.Uint32(head[12:])
	if length > maxHeader || int64(length) > size-fileStart {
		return refuse("a header of %d bytes in a file of %d, want at most %d and what there is", length, size, maxHeader)
	}
	text := make([]byte, length)
	if _, err := r.ReadAt(text, fileStart); err != nil && err != io.EOF {
		return refuse("%w", err)
	}
	if have, want := crc32.Checksum(text, castagnoli), binary.LittleEndian.Uint32(head[16:]); have != want {
		return refuse("header: CRC-32C %08x, want %08x", have, want)
	}
	var h fileHeader
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h); err != nil {
		return refuse("header: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return refuse("header: more behind the JSON object")
	}
	if c, err = shapes.ParseConfig(h.Config); err != nil {
		return refuse("header: %w", err)
	}
	types := map[string]kernel.Type{}
	for _, p := range h.Params {
		t, ok := map[string]kernel.Type{"F32": kernel.F32, "F16": kernel.F16, "BF16": kernel.BF16}[p.Type]
		if !ok {
			return refuse("header: %.200q: type %.20q, want F32, F16 or BF16", p.Name, p.Type)
		}
		types[p.Name] = t
		sum, err := strconv.ParseUint(p.CRC, 16, 32)
		if err != nil || len(p.CRC) != 8 {
			return refuse("header: %.200q: crc %.20q, want eight hexadecimal digits", p.Name, p.CRC)
		}
		sums = append(sums, uint32(sum))
	}
	if l, err = newLayout(c, func(name string) kernel.Type { return types[name] }); err != nil {
		return refuse("header: %w", err)
	}
	if len(h.Params) != len(l.blocks) {
		return refuse("header: %d parameters, want the %d of its config", len(h.Params), len(l.blocks))
	}
	for i, b := range l.blocks {
		if p := h.Params[i]; p.Name != b.Name || p.Type != b.typ.String() {
			return refuse("header: parameter %d is %.200q of type %s, want %s of type %v", i, p.Name, p.Type, b.Name, b.typ)
		}
	}
	start = int64(alignUp(fileStart + len(text)))
	if want := start + int64(l.size); size != want {
		return refuse("%d bytes, want %d", size, want)
	}
	return c, l, sums, start, nil
}

// readBlocks reads the parameters and holds their checksums.
func readBlocks(r io.ReaderAt, start int64, l layout, sums []uint32, mem []byte, threads int, progress func(done, total int64)) error {
	const chunk = 4 << 20
	next := make(chan int, len(l.blocks))
	for i := range l.blocks {
		next <- i
	}
	close(next)
	read := make(chan int, threads)
	finished := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		finished <- parallel(threads, func(int) error {
			for i := range next {
				b, sum := l.blocks[i], uint32(0)
				for at := 0; at < b.size; at += chunk {
					part := mem[b.at+at : b.at+min(at+chunk, b.size)]
					if n, err := r.ReadAt(part, start+int64(b.at+at)); n < len(part) {
						if err == io.EOF {
							err = errors.New("the file has been cut since it was opened")
						}
						return fmt.Errorf("%s: %w", b.Name, err)
					}
					sum = crc32.Update(sum, castagnoli, part)
					select {
					case read <- len(part):
					case <-stop:
					}
				}
				if sum != sums[i] {
					return fmt.Errorf("%s: CRC-32C %08x, want %08x", b.Name, sum, sums[i])
				}
			}
			return nil
		})
	}()
	defer close(stop)
	done := int64(0)
	for {
		select {
		case n := <-read:
			if done += int64(n); progress != nil {
				progress(done, int64(l.size))
			}
		case err := <-finished:
			return err
		}
	}
}
