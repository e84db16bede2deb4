// Command asm writes the amd64 assembly of package kernel, and of the arm64 assembly the loops over values. Run it in its own folder: it replaces the .s files of
// the folder above. Its test holds that the files in the repository are what it writes.
package main

import (
	"fmt"
	"go/token"
	"go/types"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

// files are the assembly files by name, and what fills each.
var files = map[string]func(*asm){
	"matmul_amd64.s": func(a *asm) { a.tiles512(); a.tiles256() },
	"pack_amd64.s":   func(a *asm) { a.packWeights512(); a.packRows512(); a.packRows256() },
	"limits_amd64.s": func(a *asm) { a.limits() },
	"vector_amd64.s": func(a *asm) { a.vectors() },
}

// texts are the files that are written without avo.
var texts = map[string]func() []byte{"vector_arm64.s": vectorsNEON}

func main() {
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join("..", name), text(), 0o644); err != nil {
			fmt.Fprintf(os.Stderr, "asm: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
	for name, fill := range files {
		text, err := generate(fill)
		if err == nil {
			err = os.WriteFile(filepath.Join("..", name), text, 0o644)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "asm: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

// generate returns the text of one assembly file.
func generate(fill func(*asm)) ([]byte, error) {
	a := &asm{Context: build.NewContext()}
	a.ConstraintExpr("!purego")
	fill(a)
	f, err := a.Result()
	if err != nil {
		return nil, err
	}
	if err := pass.Compile.Execute(f); err != nil {
		return nil, err
	}
	return printer.NewGoAsm(printer.Config{Name: "avo", Pkg: "kernel", Argv: []string{"go", "run", "."}}).Print(f)
}

// asm is one file under construction.
type asm struct{ *build.Context }

// function opens a function that takes a pointer to the named struct of package kernel and loads it into AX.
func (a *asm) function(name, arg string, doc ...string) {
	pkg := types.NewPackage("github.com/llavaref/llavaref/fast/kernel", "kernel")
	named := types.NewNamed(types.NewTypeName(token.NoPos, pkg, arg, nil), types.NewStruct(nil, nil), nil)
	pkg.Scope().Insert(named.Obj())
	sig, err := gotypes.ParseSignatureInPackage(pkg, "func(t *"+arg+")")
	if err != nil {
		panic(err)
	}
	a.Function(name)
	a.Attributes(attr.NOSPLIT)
	a.Doc(doc...)
	a.Context.Signature(sig)
	a.Comment(doc...)
}

// raw emits the bytes of one instruction that Go's assembler does not know, under a comment that names it.
// The instruction must be 6 bytes long, which is every EVEX instruction between registers.
func (a *asm) raw(name string, b [6]byte) {
	a.Comment(name)
	a.Instruction(&ir.Instruction{Opcode: "LONG", Operands: []operand.Op{operand.U32(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)}})
	a.Instruction(&ir.Instruction{Opcode: "WORD", Operands: []operand.Op{operand.U16(uint16(b[4]) | uint16(b[5])<<8)}})
}

// evex encodes a 512-bit instruction of map 0F38, W0, on registers: opcode dst, src1, src2 in Intel's order.
// pp is 2 for the prefix F3 and 3 for F2. Every register number is kept inverted but for the low three bits in modrm.
func evex(pp, opcode byte, dst, src1, src2 int) [6]byte {
	not := func(n, bit int) byte { return byte(^n >> bit & 1) }
	return [6]byte{
		0x62,
		not(dst, 3)<<7 | not(src2, 4)<<6 | not(src2, 3)<<5 | not(dst, 4)<<4 | 0b010,
		byte(^src1&15)<<3 | 1<<2 | pp,
		0b10<<5 | not(src1, 4)<<3,
		opcode,
		0b11<<6 | byte(dst&7)<<3 | byte(src2&7),
	}
}

// dot is VDPBF16PS: acc[j] += b[2j+1] a[2j+1] + b[2j] a[2j], all three of them Z registers.
func (a *asm) dot(acc, b, x int) {
	a.raw(fmt.Sprintf("VDPBF16PS Z%d, Z%d, Z%d", x, b, acc), evex(2, 0x52, acc, b, x))
}

// toBF16 is VCVTNE2PS2BF16: dst = the 16 values of low, then the 16 of high, rounded to bf16.
func (a *asm) toBF16(dst, high, low int) {
	a.raw(fmt.Sprintf("VCVTNE2PS2BF16 Z%d, Z%d, Z%d", low, high, dst), evex(3, 0x72, dst, high, low))
}
